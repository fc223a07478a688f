"""What a policy makes of neighbours: which samples are copies of real images, outliers, or
near-duplicates of one another.
"""

from collections.abc import Mapping

import numpy as np

from cgankd.curation.neighbours.duplicates import all_but_best, components
from cgankd.curation.neighbours.table import Neighbours
from cgankd.curation.policies.policy import Threshold
from cgankd.shardset.errors import BadInput


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


def memorised(neighbours: Neighbours, groups: np.ndarray, threshold: Threshold) -> np.ndarray:
    """Bool `[n]`: whether a training image is at least so similar; `groups` int64 `[n]`."""
    least = _each(threshold, neighbours.thresholds.memorised, groups)
    return neighbours.nearest_real_similarity >= least


def outliers(neighbours: Neighbours, groups: np.ndarray, threshold: Threshold) -> np.ndarray:
    """Bool `[n]`: whether a sample is further from its label's centre than the threshold."""
    return neighbours.outlier > _each(threshold, neighbours.thresholds.outliers, groups)


def duplicates(
    neighbours: Neighbours,
    groups: np.ndarray,
    threshold: Threshold,
    kept: np.ndarray,
    *rank: np.ndarray,
) -> np.ndarray:
    """Bool `[n]`: whether a better one of the samples `kept` (bool `[n]`) is connected to a sample
    by pairs at least so similar; the lowest `rank` is best, then the lowest key.

    Samples that are gone connect too: two that are like a third are of one group. `BadInput` for
    a threshold below that of the stored pairs.
    """
    component = duplicate_groups(neighbours, groups, threshold)
    rows = np.flatnonzero(kept)
    dropped = np.zeros(len(groups), bool)
    dropped[rows] = all_but_best(component[rows], *(values[rows] for values in rank))
    return dropped


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
            f"policy.duplicates {threshold:g}: pairs are stored from a similarity of {loosest:.4f} "
            "up; raise it, or lower neighbours.loosest and find the neighbours again"
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
