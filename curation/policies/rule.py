"""What every rule of a policy gets and gives: columns of the pool in, one decision out.

A rule is a frozen record, its fields are its settings. It says in `reads` what it decides by, and
its `decide(samples, kept)` is a pure function: the same columns give the same decision anywhere.
What it fits is fitted on the first planned round, for each group of labels (a class, or a part of
the range), so that a top-up never revokes a kept sample.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from cgankd.curation.neighbours import Neighbours
from cgankd.curation.neighbours.find import Features
from cgankd.shardset.errors import BadInput
from cgankd.shardset.labels import LabelSpace

Source = Literal["ratio", "teacher", "neighbours", "features"]
Reason = Literal["ratio", "teacher", "duplicate", "memorised", "outlier", "quota", "reviewer"]
Threshold = Literal["calibrated"] | Annotated[float, Field(allow_inf_nan=False)]


class Settings(BaseModel):
    """Settings of a rule: unknown keys, wrong types and changes after reading are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


@dataclass(frozen=True)
class Scores:
    """The columns that a policy reads, one entry per pool sample in key order."""

    key: np.ndarray  # int64 [n]
    label: np.ndarray  # [n], as assigned: int64 classes, or float64 in the label's unit
    group: np.ndarray  # int64 [n], of the assigned label
    ratio: np.ndarray  # float64 [n], ≥ 0; NaN where the sample failed
    teacher_label: np.ndarray  # [n], like `label`: the teacher's class or value
    teacher_error: np.ndarray  # float64 [n], ≥ 0
    scored: np.ndarray  # bool [n]: False for a sample that failed; it is dropped as an outlier

    @classmethod
    def from_table(cls, table: pa.Table, space: LabelSpace) -> Self:
        """The scores of a table with `score_columns`."""
        import pyarrow.compute as pc

        def floats(name: str) -> np.ndarray:
            return table[name].to_numpy().astype(np.float64)

        label = table["label"].to_numpy()
        if space.task == "regression":
            teacher_label = floats("teacher_value")
        else:
            teacher_label = table["teacher_label"].fill_null(-1).to_numpy()
        return cls(
            key=table["key"].to_numpy(),
            label=label,
            group=space.group_of(label),
            ratio=floats("density_ratio"),
            teacher_label=teacher_label,
            teacher_error=floats("teacher_error"),
            scored=pc.equal(table["status"], "ok").to_numpy(),
        )


def score_columns(space: LabelSpace) -> tuple[str, ...]:
    """The columns of a score table that a policy reads."""
    prediction = "teacher_value" if space.task == "regression" else "teacher_label"
    return ("key", "label", "density_ratio", prediction, "teacher_error", "status")


@dataclass(frozen=True)
class Samples:
    """Every sample of a pool as rules see it, in key order."""

    scores: Scores
    uniforms: np.ndarray  # float64 [n] in (0, 1): each belongs to its key
    in_first_round: np.ndarray  # bool [n]: what rules are fitted on
    neighbours: Neighbours | None
    features: Features | None  # float [n, d], of the net that the ratio stands on
    exempt: np.ndarray  # bool [n]: accepted by a reviewer, never beyond a quota

    @cached_property
    def groups(self) -> Mapping[int, np.ndarray]:
        """The rows int64 of each group of assigned labels, ascending."""
        order = np.argsort(self.scores.group, kind="stable")
        values, starts = np.unique(self.scores.group[order], return_index=True)
        return dict(zip(values.tolist(), np.split(order, starts[1:]), strict=True))

    @cached_property
    def near(self) -> tuple[Neighbours, np.ndarray]:
        """The neighbours, and the rows int64 of the samples that they belong to.

        Raises `BadInput` where there are none, or they are of another pool.
        """
        if self.neighbours is None:
            raise BadInput(
                "policy.copies, policy.outliers and policy.duplicates need neighbours; find them "
                "first, or set all three to null"
            )
        rows = aligned_rows(self.neighbours, self.scores.key, self.scores.scored)
        return self.neighbours, rows


@dataclass(frozen=True)
class Decision:
    """What one rule decides."""

    kept: np.ndarray  # bool [n]: what passes; a sample that is gone already may be either
    reason: Reason  # why the others go
    fitted: Mapping[str, Any] = field(default_factory=dict)  # what it went by, for each group
    label: np.ndarray | None = None  # [n], where the rule replaces labels
    shortfall: Mapping[int, int] = field(default_factory=dict)  # group → missing to its quota


def aligned_rows(neighbours: Neighbours, key: np.ndarray, scored: np.ndarray) -> np.ndarray:
    """The rows int64 of ascending keys `[n]` that neighbours' entries belong to, in their order.

    `BadInput` where a scored sample has no neighbours, or neighbours are of another pool.
    """
    rows = np.minimum(np.searchsorted(key, neighbours.key), len(key) - 1)
    strangers = np.flatnonzero(key[rows] != neighbours.key)
    if strangers.size:
        raise BadInput(
            f"neighbours of key {neighbours.key[strangers[0]]} and {strangers.size - 1:,} more are "
            "not of this pool; find the neighbours again"
        )
    missing = scored.copy()
    missing[rows] = False
    if missing.any():
        raise BadInput(
            f"neighbours lack key {key[missing.argmax()]} and {missing.sum() - 1:,} more scored "
            "samples; find the neighbours again"
        )
    return rows
