"""The kernel distance of two sets of features (KID): unbiased, so it compares unequal sizes."""

import numpy as np

from curation.distances import BLOCK
from curation.fidelity import check_features


def kernel_distance(generated: np.ndarray, real: np.ndarray) -> float:
    """The unbiased squared MMD of features `[n, d]` and `[m, d]`: about 0, or below, for like ones.

    Kernel (x·y/d + 1)³ over all pairs (Bińkowski et al., 2018, arXiv 1801.01401), where the
    usual tools average over random subsets. `BadInput` for fewer than 2 samples or features that
    are not finite.
    """
    check_features("kernel distance", generated, real, least=2)
    own, other = generated.astype(np.float64), real.astype(np.float64)
    return _mean_within(own) + _mean_within(other) - 2 * _sum(own, other) / len(own) / len(other)


def _mean_within(features: np.ndarray) -> float:
    """The kernel's mean over pairs of different samples."""
    count, width = features.shape
    itself = ((np.sum(features**2, 1) / width + 1) ** 3).sum()
    return float(_sum(features, features) - itself) / (count * (count - 1))


def _sum(first: np.ndarray, second: np.ndarray) -> float:
    """The kernel's sum over all pairs, a block of rows at a time."""
    total, step = 0.0, max(1, BLOCK // len(second))
    for start in range(0, len(first), step):
        kernel = first[start : start + step] @ second.T
        kernel /= first.shape[1]
        kernel += 1
        total += float(np.einsum("ij,ij,ij->", kernel, kernel, kernel))
    return total
