"""What goes by neighbours: copies of real images, outliers, and near-duplicates of one another."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from cgankd.curation.neighbours import Neighbours, all_but_best, components
from cgankd.curation.policies.rule import Decision, Reason, Samples, Settings, Source, Threshold
from cgankd.shardset.errors import BadInput

NEIGHBOURS: frozenset[Source] = frozenset({"neighbours"})


class Copies(Settings):
    """Drops what is so similar to a real training image that the generator memorised it."""

    kind: Literal["similarity"] = "similarity"
    reads: ClassVar[frozenset[Source]] = NEIGHBOURS
    threshold: Threshold = Field(
        "calibrated",
        examples=[0.99],
        description="similarity in [−1, 1] from which a sample is a copy; calibrated: more alike "
        "than different real images are",
    )

    def decide(self, samples: Samples, kept: np.ndarray) -> Decision:
        """What is no copy; fitted are the calibrated thresholds."""
        near, rows = samples.near
        dropped = memorised(near, samples.scores.group[rows], self.threshold)
        return _without(rows[dropped], kept, "memorised", near, "memorised", self.threshold)


class Outliers(Settings):
    """Drops what is far from the centre of its label's real images."""

    kind: Literal["distance"] = "distance"
    reads: ClassVar[frozenset[Source]] = NEIGHBOURS
    threshold: Threshold = Field(
        "calibrated",
        examples=[3.0],
        description="largest distance, in times the median real image's; calibrated: further than "
        "real images are",
    )

    def decide(self, samples: Samples, kept: np.ndarray) -> Decision:
        """What is near enough; fitted are the calibrated thresholds."""
        near, rows = samples.near
        limit = _each(self.threshold, near.thresholds.outliers, samples.scores.group[rows])
        return _without(
            rows[near.outlier > limit], kept, "outlier", near, "outliers", self.threshold
        )


class Duplicates(Settings):
    """Of samples connected by near-duplicate pairs, keeps the one with the least teacher error.

    One of the first round stays before any other, so that a top-up revokes none but where it
    connects two kept samples.
    """

    kind: Literal["similarity"] = "similarity"
    reads: ClassVar[frozenset[Source]] = NEIGHBOURS | {"teacher"}
    threshold: Threshold = Field(
        "calibrated",
        examples=[0.97],
        description="similarity in [−1, 1] that connects two samples; calibrated: more alike than "
        "different real images are",
    )

    def decide(self, samples: Samples, kept: np.ndarray) -> Decision:
        """All but the worse duplicates of what is kept; fitted are the calibrated thresholds."""
        near, rows = samples.near
        rank = ~samples.in_first_round[rows], samples.scores.teacher_error[rows]
        component = duplicate_groups(near, samples.scores.group[rows], self.threshold)
        left = np.flatnonzero(kept[rows])
        worse = all_but_best(component[left], *(values[left] for values in rank))
        return _without(rows[left[worse]], kept, "duplicate", near, "duplicates", self.threshold)


def memorised(neighbours: Neighbours, groups: np.ndarray, threshold: Threshold) -> np.ndarray:
    """Bool `[n]`: whether a training image is at least so similar; `groups` int64 `[n]`."""
    least = _each(threshold, neighbours.thresholds.memorised, groups)
    return neighbours.nearest_real_similarity >= least


def duplicate_groups(
    neighbours: Neighbours, groups: np.ndarray, threshold: Threshold
) -> np.ndarray:
    """A number int64 `[n]` that samples share where pairs at least so similar connect them;
    `BadInput` for a threshold below that of the stored pairs.
    """
    a, b = (np.searchsorted(neighbours.key, keys) for keys in (neighbours.key_a, neighbours.key_b))
    loosest = max(neighbours.thresholds.loosest.values())
    if not isinstance(threshold, str) and threshold < loosest:
        raise BadInput(
            f"policy.duplicates.threshold {threshold:g}: pairs are stored from a similarity "
            f"of {loosest:.4f} up; raise it, or lower neighbours.loosest and find the neighbours "
            "again"
        )
    near = neighbours.similarity >= _each(threshold, neighbours.thresholds.duplicates, groups[a])
    return components(a[near], b[near], len(groups))


def _each(
    threshold: Threshold, calibrated: Mapping[int, float], groups: np.ndarray
) -> np.ndarray | float:
    if not isinstance(threshold, str):
        return threshold
    table = np.full(max(calibrated) + 1, np.inf)
    table[list(calibrated)] = list(calibrated.values())
    return table[groups]


def _without(
    dropped: np.ndarray,
    kept: np.ndarray,
    reason: Reason,
    neighbours: Neighbours,
    name: str,
    threshold: Threshold,
) -> Decision:
    """The decision to drop some rows, with the calibrated thresholds where it went by them."""
    passes = np.ones(len(kept), bool)
    passes[dropped] = False
    fitted: dict[str, Any] = {}
    if threshold == "calibrated":
        fitted[name] = neighbours.thresholds.model_dump(mode="json")[name]
    return Decision(passes, reason, fitted)
