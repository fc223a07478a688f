"""`neighbours.parquet` and the columns beside it: what a policy reads of neighbours; and
groups of near-duplicates: as few pairs as give them at any threshold, and whom to keep.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict

COLUMNS = (
    "nearest_real_id",
    "nearest_real_similarity",
    "nearest_validation_id",
    "nearest_validation_similarity",
    "outlier",
)
Pairs = tuple[np.ndarray, np.ndarray, np.ndarray]  # row a < row b int64, similarity float32


class Thresholds(BaseModel):
    """What counts as alike or far off, for each group of labels.

    Metadata holds it as JSON, in which groups are names.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    memorised: dict[int, float]  # similarity to a real training image
    duplicates: dict[int, float]  # similarity of two generated samples
    outliers: dict[int, float]  # distance to the label's centre, 1 is the median real image's
    loosest: dict[int, float]  # similarity from which pairs are stored
    centre_distance: dict[int, float]  # that median, in the feature space


@dataclass(frozen=True)
class Neighbours:
    """The nearest of every sample in key order, and the pairs of near-duplicates."""

    key: np.ndarray  # int64 [n], ascending
    nearest_real_id: np.ndarray  # int64 [n], into train ++ validation: a training image
    nearest_real_similarity: np.ndarray  # float32 [n] in [−1, 1]
    nearest_validation_id: np.ndarray  # int64 [n], −1 where the label has no validation image
    nearest_validation_similarity: np.ndarray  # float32 [n], NaN there
    outlier: np.ndarray  # float32 [n]: distance to the label's centre over the reals' median
    key_a: np.ndarray  # int64 [m], fewer than n for classes: a spanning forest
    key_b: np.ndarray  # int64 [m], above key_a
    similarity: np.ndarray  # float32 [m]
    thresholds: Thresholds

    def columns(self) -> pa.Table:
        """Key and a column for each of `COLUMNS`, a row per sample, nulls where there is none."""
        columns: dict[str, Any] = {"key": self.key}
        for name in COLUMNS:
            values = getattr(self, name)
            missing = values < 0 if name.endswith("_id") else np.isnan(values)
            columns[name] = pa.array(values, mask=missing)
        return pa.table(columns)

    def table(self, groups: np.ndarray) -> pa.Table:
        """`neighbours.parquet`: near-duplicates, then near real images, at the loosest threshold.

        `groups` int64 `[n]` are the samples' own.
        """
        loosest = np.array([self.thresholds.loosest[group] for group in groups.tolist()])
        pairs = {"key_a": self.key_a, "key_b": self.key_b, "similarity": self.similarity}
        parts = [pa.table(pairs)]
        for split, name in (("train", "nearest_real"), ("validation", "nearest_validation")):
            similarity = getattr(self, f"{name}_similarity")
            near = np.flatnonzero(similarity >= loosest)
            columns = {
                "key_a": self.key[near],
                "real_id": getattr(self, f"{name}_id")[near],
                "split": pa.array([split] * len(near), pa.string()),
                "similarity": similarity[near],
            }
            parts.append(pa.table(columns))
        # A column that a part does not have is null there.
        table = pa.concat_tables(parts, promote_options="default")
        return table.select(["key_a", "key_b", "real_id", "split", "similarity"])

    @classmethod
    def from_tables(cls, columns: pa.Table, pairs: pa.Table, thresholds: Thresholds) -> Self:
        """What `columns` and `table` wrote, with the thresholds from the file's metadata."""
        duplicates = pairs.filter(pairs["key_b"].is_valid())
        values = {}
        for name in COLUMNS:
            missing = -1 if name.endswith("_id") else float("nan")
            values[name] = columns[name].fill_null(missing).to_numpy()
        return cls(
            key=columns["key"].to_numpy(),
            **values,
            key_a=duplicates["key_a"].to_numpy(),
            key_b=duplicates["key_b"].to_numpy(),
            similarity=duplicates["similarity"].to_numpy(),
            thresholds=thresholds,
        )


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
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

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
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import minimum_spanning_tree

    order = np.lexsort((b, a, -similarity))
    place = np.arange(1.0, len(order) + 1)  # no two weights are equal: there is one such forest
    graph = coo_array((place, (a[order], b[order])), shape=(count, count)).tocsr()
    edges = np.sort(minimum_spanning_tree(graph).data).astype(np.int64) - 1
    rows = order[edges]
    return a[rows], b[rows], similarity[rows]
