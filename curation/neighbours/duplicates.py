"""Groups of near-duplicates: as few pairs as tell them at any threshold, and whom to keep."""

from collections.abc import Iterable

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree

Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]  # row a < row b int64, similarity float32


def spanning_pairs(blocks: Iterable[Pairs], count: int) -> Pairs:
    """The fewest of all pairs among `count` rows that connect the same rows at every threshold.

    It is the maximum spanning forest: fewer than `count` pairs, the most similar first and of
    equal ones the lowest rows, where one image a thousand times has half a million pairs.
    """
    a, b, similarity = np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32)
    for more_a, more_b, more in blocks:
        if len(more):
            a, b = np.concatenate([a, more_a]), np.concatenate([b, more_b])
            a, b, similarity = _forest(a, b, np.concatenate([similarity, more]), count)
    return a, b, similarity


def components(a: np.ndarray, b: np.ndarray, count: int) -> np.ndarray:
    """The component int64 `[count]` of each row where pairs `a`, `b` connect rows."""
    graph = coo_array((np.ones(len(a), np.int8), (a, b)), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def all_but_best(component: np.ndarray, *rank: np.ndarray) -> np.ndarray:
    """Bool `[n]`: True but for the member of each component that ranks lowest; the first of
    `rank` counts most, and of equal members the first row stays.
    """
    order = np.lexsort((*rank[::-1], component))
    first = np.r_[True, np.diff(component[order]) != 0]
    dropped = np.ones(len(component), bool)
    dropped[order[first[: len(order)]]] = False
    return dropped


def _forest(a: np.ndarray, b: np.ndarray, similarity: np.ndarray, count: int) -> Pairs:
    order = np.lexsort((b, a, -similarity))
    place = np.arange(1.0, len(order) + 1)  # no two weights are equal: there is one such forest
    graph = coo_array((place, (a[order], b[order])), shape=(count, count)).tocsr()
    chosen = np.sort(minimum_spanning_tree(graph).data).astype(np.int64) - 1
    rows = order[chosen]
    return a[rows], b[rows], similarity[rows]
