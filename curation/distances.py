"""Euclidean distances between all rows of two sets of features, a block at a time."""

from collections.abc import Iterator

import numpy as np

BLOCK = 4_000_000  # distances held at once: 32 MB


def squared_distances(
    first: np.ndarray, second: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows int64 `[b]` of `first` `[n, d]` with their squared distances float64 `[b, m]` to all of
    `second` `[m, d]`, until every row was given; memory does not grow with n.
    """
    # About the common mean, |x|² + |y|² − 2xy loses the fewest digits; what is then within rounding
    # of 0 is a copy, and must not count as a distance.
    centre = second.mean(0, dtype=np.float64)
    one, other = first - centre, second - centre
    one_squares, other_squares = np.sum(one**2, 1), np.sum(other**2, 1)
    rounding = 1e-13 * max(one_squares.max(), other_squares.max())
    step = max(1, BLOCK // len(other))
    for start in range(0, len(one), step):
        rows = np.arange(start, min(start + step, len(one)))
        found = one[rows] @ other.T
        found *= -2
        found += one_squares[rows, None]
        found += other_squares
        found[found < rounding] = 0.0
        yield rows, found


def squared_radii(features: np.ndarray, k: int) -> np.ndarray:
    """The squared distance float64 `[n]` of every row of `[n > k, d]` to its k-th nearest other."""
    radii = np.empty(len(features))
    for rows, found in squared_distances(features, features):
        found[np.arange(len(rows)), rows] = np.inf
        radii[rows] = np.partition(found, k - 1, axis=1)[:, k - 1]
    return radii
