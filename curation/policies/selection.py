"""One decision with a reason for every pool sample, from scores and a policy alone.

Pure functions of arrays: the same tables and policy give the same selection anywhere. What is
fitted (M, c, quantiles) is fitted on the first planned round, for each group of labels (a class,
or a part of the range), so that a top-up never revokes a kept sample.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import pyarrow as pa

from cgankd.curation.neighbours import Neighbours
from cgankd.curation.neighbours.find import Features
from cgankd.curation.policies import Policy
from cgankd.curation.policies.rule import Reason, Samples, Scores
from cgankd.shardset.errors import BadInput
from cgankd.shardset.labels import LabelSpace
from cgankd.shardset.reviews import VERDICTS, Reviews

REASONS: tuple[str, ...] = get_args(Reason)
KEPT = -1
REMEDIES = {
    "ratio": "take policy.subsample null or raise policy.subsample.accept",
    "teacher": "loosen policy.filter (rho, within), or take policy.filter null",
    "duplicate": "the label has collapsed: train its generator longer, or raise "
    "policy.duplicates.threshold",
    "memorised": "the generator repeats its training images: give it more, or train it for less",
    "outlier": "look at the status column of the score table, then at policy.outliers",
    "reviewer": "reviewers rejected them: train the generator longer, or look at them again",
}


@dataclass(frozen=True)
class Selection:
    """What was decided, and what was fitted for it."""

    key: np.ndarray  # int64 [n]
    reason: np.ndarray  # int8 [n]: KEPT, or an index into REASONS
    label: np.ndarray  # [n], after replacement: int64 classes, or float64 in the label's unit
    original_label: np.ndarray  # [n], as assigned
    group: np.ndarray  # int64 [n], of the assigned label
    fitted: Mapping[str, Any]  # M, c and quantiles by group
    shortfall: Mapping[int, int]  # group → samples missing to its quota; empty without a quota

    @property
    def kept(self) -> np.ndarray:
        """Bool `[n]`."""
        return self.reason == KEPT

    def counts(self) -> dict[str, Any]:
        """The number kept, and dropped for each reason."""
        codes, numbers = np.unique(self.reason[~self.kept], return_counts=True)
        dropped = {REASONS[c]: int(n) for c, n in zip(codes, numbers, strict=True)}
        return {"kept": int(self.kept.sum()), "dropped": dropped}

    def problems(self, space: LabelSpace) -> list[str]:
        """One line for each group of labels of which nothing was kept: why, and what to change."""
        lines = []
        for group in np.setdiff1d(self.group, self.group[self.kept]).tolist():
            reasons = self.reason[self.group == group]
            times = np.bincount(reasons, minlength=len(REASONS))
            name = REASONS[times.argmax()]
            lines.append(
                f"label {space.group_names[group]}: none of {len(reasons):,} samples was kept, "
                f"{times.max():,} were dropped for {name}; {REMEDIES[name]}"
            )
        return lines

    def kept_of(self, group: int) -> int:
        """The number kept of one group of assigned labels."""
        return int((self.kept & (self.group == group)).sum())

    def table(self) -> pa.Table:
        """The selection as it lies on disk; `reason` is null for kept samples."""
        dictionary = pa.DictionaryArray.from_arrays(
            pa.array(np.where(self.kept, 0, self.reason), pa.int8(), mask=self.kept),
            pa.array(REASONS),
        )
        return pa.table(
            {
                "key": self.key,
                "kept": self.kept,
                "reason": dictionary.cast(pa.string()),
                "label": self.label,
                "original_label": self.original_label,
            }
        )


def select(
    scores: Scores,
    policy: Policy,
    uniforms: np.ndarray,
    in_first_round: np.ndarray,
    neighbours: Neighbours | None = None,
    features: Features | None = None,
    reviews: Reviews | None = None,
) -> Selection:
    """The selection of a policy; `uniforms` in (0, 1) belong to the keys, float64 `[n]`.

    Each sample has the reason of the first to drop it, in this order: ratio, teacher, memorised,
    outlier, duplicate, quota. `BadInput` for a policy on neighbours without these, and for
    a diverse quota without `features`, float `[n, d]` of the net that the ratio stands on.

    `reviews` overrule the policy on the samples that they name, and touch others by the quota
    alone: reject drops, accept keeps, beyond the quota too, and relabel keeps with its own label. A
    near-duplicate of a rejected sample stays dropped, since it looks the same. A sample that
    failed cannot be kept.
    """
    shapes = {a.shape for a in (scores.key, scores.ratio, uniforms, in_first_round)}
    if len(shapes) != 1:
        raise BadInput(f"scores, uniform numbers and rounds must be aligned, got {sorted(shapes)}")
    if (np.diff(scores.key) <= 0).any():
        raise BadInput("scores are not in the order of their keys; read them with read_numbered")
    reason = np.full(len(scores.key), KEPT, dtype=np.int8)
    reason[~scores.scored] = REASONS.index("outlier")
    exempt = np.zeros(len(reason), bool)
    samples = Samples(scores, uniforms, in_first_round, neighbours, features, exempt)
    label = scores.label
    fitted: dict[str, Any] = {}
    shortfall: dict[int, int] = {}
    for slot in Policy.model_fields:
        if slot == "quota" and reviews is not None:
            label, exempt[:] = _overrule(scores, reviews, reason, label)
        if (rule := policy.rules.get(slot)) is None:
            continue
        decision = rule.decide(samples, reason == KEPT)
        reason[(reason == KEPT) & ~decision.kept] = REASONS.index(decision.reason)
        fitted |= decision.fitted
        shortfall |= decision.shortfall
        label = label if decision.label is None else decision.label
    return Selection(scores.key, reason, label, scores.label, scores.group, fitted, shortfall)


def _overrule(
    scores: Scores, reviews: Reviews, reason: np.ndarray, final: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Labels `[n]` after the reviewers', and bool `[n]`: what they accepted; sets `reason`."""
    rows = np.minimum(np.searchsorted(scores.key, reviews.key), len(scores.key) - 1)
    if (strange := np.flatnonzero(scores.key[rows] != reviews.key)).size:
        raise BadInput(
            f"reviews are on key {reviews.key[strange[0]]}, which is not in this pool; move the "
            "reviews of another pool away"
        )
    rejected, relabelled, accepted = (
        reviews.verdict == VERDICTS.index(name) for name in ("reject", "relabel", "accept")
    )
    reason[rows[rejected]] = REASONS.index("reviewer")
    kept = np.zeros(len(reason), bool)
    kept[rows[accepted | relabelled]] = True
    kept &= scores.scored
    reason[kept] = KEPT
    final = final.copy()
    named = relabelled & scores.scored[rows]
    final[rows[named]] = reviews.label[named]
    return final, kept
