"""What a reviewer looks at: the samples of a run or release as columns, without their images.

A million samples are a hundred megabytes of NumPy columns; images and logits stay on disk until
somebody looks.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cgankd.curation.neighbours.table import Neighbours
from cgankd.curation.policies import Policy
from cgankd.curation.policies.neighbour_rules import duplicate_groups, memorised
from cgankd.curation.policies.rule import Scores
from cgankd.curation.policies.selection import KEPT
from cgankd.shardset.errors import BadInput
from cgankd.shardset.identity import uniforms
from cgankd.shardset.labels import LabelSpace
from cgankd.shardset.samples import PoolPlaces, ReleasePlaces

SCORES = (
    "density_ratio", "teacher_error", "teacher_entropy", "nearest_real_similarity", "outlier",
)  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """Every sample of a pool in key order, with its scores and what one selection decided."""

    path: Path
    kind: Literal["run", "release"]
    space: LabelSpace
    pool_id: str
    seed: int  # of the production
    facts: Mapping[str, Any]  # run.json, or the facts of a release's manifest
    ratio_problems: tuple[str, ...]
    reviews: Path  # the folder of verdicts
    selections: tuple[str, ...]
    selection: str | None  # of which the decisions are; None: nothing was decided
    policy: Policy | None  # of that selection
    notes: tuple[str, ...]  # what is not there, and what to do about it
    places: PoolPlaces | ReleasePlaces

    key: np.ndarray  # int64 [n], ascending
    original_label: np.ndarray  # [n], as assigned: int64 classes, or float64 in their unit
    group: np.ndarray  # int64 [n], of the assigned label
    label: np.ndarray  # [n], after the selection
    reason: np.ndarray  # int8 [n]: KEPT, or an index into REASONS
    scored: np.ndarray  # bool [n]
    teacher_prediction: np.ndarray  # [n]: a class, −1 for none; or a value, NaN for none
    scores: Mapping[str, np.ndarray]  # float32 [n] for each of SCORES, NaN where there is none
    in_first_round: np.ndarray  # bool [n]
    neighbours: Neighbours | None

    def __len__(self) -> int:
        return len(self.key)

    @property
    def kept(self) -> np.ndarray:
        """Bool `[n]`."""
        return self.reason == KEPT

    @cached_property
    def uniforms(self) -> np.ndarray:
        """The number in (0, 1) that belongs to each key when samples are accepted, `[n]`."""
        return uniforms(self.seed, 0, int(self.key[-1]) + 1, "accept")[self.key]

    @cached_property
    def policy_scores(self) -> Scores:
        """The columns as a policy reads them."""
        return Scores(
            key=self.key,
            label=self.original_label,
            group=self.group,
            ratio=self.scores["density_ratio"].astype(np.float64),
            teacher_label=self.teacher_prediction,
            teacher_error=self.scores["teacher_error"].astype(np.float64),
            scored=self.scored,
        )

    @cached_property
    def teacher_disagrees(self) -> np.ndarray:
        """Bool `[n]`: the teacher says another class, or a value in another part of the range."""
        if self.space.task == "classification":
            return (self.teacher_prediction != self.original_label) & (self.teacher_prediction >= 0)
        there = np.isfinite(self.teacher_prediction)
        return there & (self.space.group_of(np.nan_to_num(self.teacher_prediction)) != self.group)

    @cached_property
    def duplicate_group(self) -> np.ndarray:
        """A number int64 `[n]` that near-duplicates share; −1 for samples unlike all others."""
        found = np.full(len(self), -1, np.int64)
        if self.neighbours is not None:
            rows = self._neighbour_rows
            component = duplicate_groups(self.neighbours, self.group[rows], "calibrated")
            alike = np.bincount(component)[component] > 1
            found[rows[alike]] = component[alike]
        return found

    @cached_property
    def memorised(self) -> np.ndarray:
        """Bool `[n]`: as near to a training image as no two different real images are."""
        found = np.zeros(len(self), bool)
        if self.neighbours is not None:
            rows = self._neighbour_rows
            found[rows] = memorised(self.neighbours, self.group[rows], "calibrated")
        return found

    @property
    def _neighbour_rows(self) -> np.ndarray:
        assert self.neighbours is not None
        return np.searchsorted(self.key, self.neighbours.key)

    def rows_of(self, keys: np.ndarray) -> np.ndarray:
        """The rows int64 of keys; `BadInput` names one that is not there."""
        rows = np.minimum(np.searchsorted(self.key, keys), len(self) - 1)
        if (strange := np.flatnonzero(self.key[rows] != keys)).size:
            raise BadInput(f"{self.path} has no key {np.asarray(keys)[strange[0]]}")
        return rows
