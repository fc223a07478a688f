"""One decision with a reason for every pool sample, from scores and a policy alone.

Pure functions of arrays: the same tables and policy give the same selection anywhere. What is
fitted (M, c, quantiles) is fitted on the first planned round, for each group of labels (a class,
or a part of the range), so that a top-up never revokes a kept sample.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cgankd.curation.neighbours.find import Features
from cgankd.curation.neighbours.table import Neighbours
from cgankd.curation.policies.neighbour_rules import aligned_rows, duplicates, memorised, outliers
from cgankd.curation.policies.policy import Policy
from cgankd.curation.policies.quotas import beyond_quota
from cgankd.curation.policies.subsampling import accepted
from cgankd.curation.policies.teacher_filters import agrees, error_limits
from cgankd.shardset.errors import BadInput
from cgankd.shardset.labels import LabelSpace
from cgankd.shardset.reviews import VERDICTS, Reviews

REASONS = ("ratio", "teacher", "duplicate", "memorised", "outlier", "quota", "reviewer")
KEPT = -1
REMEDIES = {
    "ratio": "take policy.subsample none or raise policy.accept",
    "teacher": "raise policy.rho or policy.agreement_within, or take policy.filter none",
    "duplicate": "the label has collapsed: train its generator longer, or raise policy.duplicates",
    "memorised": "the generator repeats its training images: give it more, or train it for less",
    "outlier": "look at the status column of the score table, then at policy.outliers",
    "reviewer": "reviewers rejected them: train the generator longer, or look at them again",
}


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
    told = "teacher_value" if space.task == "regression" else "teacher_label"
    return ("key", "label", "density_ratio", told, "teacher_error", "status")


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
    `policy.diversity` without `features`, float `[n, d]` of the net that the ratio stands on.

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
    groups = _rows_of(scores.group)
    fit = in_first_round & scores.scored
    passes, bounds = accepted(scores.ratio, uniforms, policy, fit, in_first_round, groups)
    reason[(reason == KEPT) & ~passes] = REASONS.index("ratio")
    fitted: dict[str, Any] = {**bounds}
    fitted |= _filter(scores, policy, reason, in_first_round, groups)
    if policy.needs_neighbours:
        fitted |= _drop_by_neighbours(scores, policy, neighbours, reason, in_first_round)
    final = np.where(policy.relabel & scores.scored, scores.teacher_label, scores.label)
    exempt = np.zeros(len(reason), bool)
    if reviews is not None:
        final, exempt = _overrule(scores, reviews, reason, final)
    beyond, shortfall = beyond_quota(
        groups, reason == KEPT, policy, in_first_round, features, exempt
    )
    reason[beyond] = REASONS.index("quota")
    return Selection(scores.key, reason, final, scores.label, scores.group, fitted, shortfall)


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


def _drop_by_neighbours(
    scores: Scores,
    policy: Policy,
    neighbours: Neighbours | None,
    reason: np.ndarray,
    in_first_round: np.ndarray,
) -> dict[str, Any]:
    """Drops copies of real images, then outliers, then all but the best of near-duplicates;
    returns the calibrated thresholds that it went by.

    Of duplicates one of the first round stays before any other, so that a top-up revokes none but
    where it connects two kept samples.
    """
    if neighbours is None:
        raise BadInput(
            "policy.memorised, policy.outliers and policy.duplicates need neighbours; find them "
            "first, or set all three to null"
        )
    rows = aligned_rows(neighbours, scores.key, scores.scored)
    groups = scores.group[rows]

    def drop(dropped: np.ndarray, name: str) -> None:
        own = rows[dropped]
        reason[own[reason[own] == KEPT]] = REASONS.index(name)

    if policy.memorised is not None:
        drop(memorised(neighbours, groups, policy.memorised), "memorised")
    if policy.outliers is not None:
        drop(outliers(neighbours, groups, policy.outliers), "outlier")
    if policy.duplicates is not None:
        rank = ~in_first_round[rows], scores.teacher_error[rows]
        kept = reason[rows] == KEPT
        drop(duplicates(neighbours, groups, policy.duplicates, kept, *rank), "duplicate")
    thresholds = neighbours.thresholds.as_json()
    names = ("memorised", "outliers", "duplicates")
    return {name: thresholds[name] for name in names if getattr(policy, name) == "calibrated"}


def _filter(
    scores: Scores,
    policy: Policy,
    reason: np.ndarray,
    in_first_round: np.ndarray,
    groups: Mapping[int, np.ndarray],
) -> dict[str, dict[str, float]]:
    """Drops what the teacher does not let pass of what was kept so far; returns the quantiles."""
    code = REASONS.index("teacher")
    if policy.filter == "none":
        return {}
    if policy.filter == "agreement":
        told = agrees(
            scores.label, scores.teacher_label, scores.teacher_error, policy.agreement_within
        )
        reason[(reason == KEPT) & ~told] = code
        return {}
    low = policy.band_low if policy.filter == "band" else 0.0
    scopes = groups if policy.scope == "per-label" else {"all": np.arange(len(reason))}
    lows, quantiles = {}, {}
    for name, rows in scopes.items():
        kept = rows[reason[rows] == KEPT]
        fit = kept[in_first_round[kept]]
        if fit.size == 0:
            continue
        least, cut = error_limits(scores.teacher_error[fit], policy.rho, low)
        errors = scores.teacher_error[kept]
        reason[kept[(errors < least) | (errors > cut)]] = code
        lows[str(name)], quantiles[str(name)] = least, cut
    return {"quantile": quantiles} | ({"band_low": lows} if policy.filter == "band" else {})


def _rows_of(groups: np.ndarray) -> dict[int, np.ndarray]:
    """The rows of each group, ascending."""
    order = np.argsort(groups, kind="stable")
    values, starts = np.unique(groups[order], return_index=True)
    return dict(zip(values.tolist(), np.split(order, starts[1:]), strict=True))
