"""The space in which images are compared, and FAISS in it. Features are whitened by what varies
inside labels, as vectors of small whole numbers, so that every FAISS, on every processor, finds the
same products; the nearest vector and all near pairs are decided by value and lowest row, never by
rank.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, Self, TypeVar

import numpy as np

from cgankd.shardset.errors import BadInput

# Vectors are this long. Sums of products of whole numbers stay below 2²⁴, where float32 is exact
# whatever the order of the sum: no similarity depends on machine, threads or library.
LENGTH = 4000
ONE = LENGTH**2  # about the product of two equal vectors
ROUNDING = 5e-4  # their similarity is 1 within this
SHRINK = 0.01  # of the mean variance, added to each: the least directions are noise
REALS_PER_COMPONENT = 10  # with fewer, reals look alike in directions fitted to them alone
COMPONENTS = 128  # at most: time and memory grow with them, and features vary in fewer directions
Result = TypeVar("Result")

ROWS = 1024  # queries that share an index of what comes after them
MOST_PAIRS = 16_000_000  # in memory at once, however many there are
LISTS_PROBED = 32  # of an approximate search


@dataclass(frozen=True)
class FeatureSpace:
    """Features to coordinates, the same for every label but for its centre."""

    directions: np.ndarray  # float64 [d, components]
    centre: np.ndarray | float = 0.0  # [d]

    @classmethod
    def fitted(cls, features: np.ndarray, groups: np.ndarray) -> Self:
        """The space of real features `[n, d]` in groups int64 `[n]`: their pooled covariance inside
        groups becomes the identity. `BadInput` where no two features of a group differ.
        """
        check_features(features, "the real images' features")
        inside = features.astype(np.float64)
        values = np.unique(groups)
        for group in values:
            inside[groups == group] -= inside[groups == group].mean(0)
        freedom = len(features) - len(values)
        variance, vectors = np.linalg.eigh(inside.T @ inside / max(freedom, 1))
        if not variance[-1] > 1e-12:
            raise BadInput(
                f"neighbours: the features of all {len(features):,} real images of a label are "
                "equal; the feature net has collapsed, fit the ratio anew"
            )
        keep = min(len(variance), COMPONENTS, max(freedom // REALS_PER_COMPONENT, 2))
        scale = np.sqrt(variance[-keep:] + SHRINK * variance.mean())
        return cls(vectors[:, -keep:] / scale)

    def about(self, features: np.ndarray) -> Self:
        """The space about the mean of a label's features `[n, d]`."""
        return replace(self, centre=features.mean(0))

    def coordinates(self, features: np.ndarray) -> np.ndarray:
        """Coordinates float64 `[n, components]` of features `[n, d]` about the centre."""
        return (features.astype(np.float64) - self.centre) @ self.directions


def as_vectors(coordinates: np.ndarray) -> np.ndarray:
    """Float32 `[n, d]` of whole numbers, about `LENGTH` long, in the directions of coordinates."""
    length = np.linalg.norm(coordinates, axis=1, keepdims=True)
    return np.rint(coordinates * (LENGTH / np.maximum(length, 1e-12))).astype(np.float32)


def similarities(products: np.ndarray) -> np.ndarray:
    """Cosines float32 in [−1, 1] of products of vectors; of equal ones at least 1 − `ROUNDING`."""
    return np.clip(products.astype(np.float64) / ONE, -1.0, 1.0).astype(np.float32)


def check_features(features: np.ndarray, what: str) -> None:
    """Raises `BadInput` unless every feature `[n, d]` is finite."""
    wrong = np.flatnonzero(~np.isfinite(features).all(1))
    if wrong.size:
        raise BadInput(
            f"neighbours: {what} hold NaN or infinite numbers in {wrong.size:,} of "
            f"{len(features):,} rows, first in row {wrong[0]}; score again"
        )


TAIL = 0.1  # the share of the values from which the tail is read
LEAST = 5  # values, however few there are
TINY = 1e-4  # copies among the values, at 0, would make any tail endless


def lower_quantile(values: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """The values float64 that positive `values` `[n]` fall below with these probabilities.

    Inside the sample it is the quantile. Beyond the lowest tenth the tail is taken to fall as a
    power, its exponent fitted to that tenth (Hill, Annals of Statistics 1975): the nearest of
    many neighbours comes closer than the nearest of few ever did. `BadInput` without values.
    """
    if not len(values):
        raise BadInput(
            "neighbours: no label has two real training images, so nothing says how alike "
            "different images are; raise the label budget"
        )
    probability = np.asarray(probability, np.float64)
    ordered = np.sort(np.maximum(values, TINY))
    count = min(len(ordered), max(int(np.ceil(TAIL * len(ordered))), LEAST))
    share, edge = count / len(ordered), ordered[count - 1]
    inverse = np.log(edge / ordered[:count]).mean()
    beyond = edge * (np.minimum(probability, share) / share) ** inverse
    inside = np.quantile(ordered, np.clip(probability, 0, 1))
    return np.where(probability < share, beyond, inside)


def upper_quantile(values: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """The values that positive `values` `[n]` exceed with these probabilities."""
    return 1 / lower_quantile(1 / np.maximum(values, TINY), probability)


def load_faiss() -> ModuleType:
    """The module `faiss`; `BadInput` names the extra to install where it is missing."""
    try:
        import faiss
    except ImportError as error:
        raise BadInput(
            "neighbours need FAISS, which is not installed; install the extra `cpu`: "
            "pip install 'cgankd[cpu]'"
        ) from error
    return faiss


def each_on_a_core(work: Callable[[int], Result], labels: Sequence[int]) -> list[Result]:
    """What `work` gives for each label, in their order, several at once where there are cores.

    A core a label: threads that share a small label wait for one another longer than they compute.
    """
    from threadpoolctl import threadpool_limits

    faiss = load_faiss()
    cores = faiss.omp_get_max_threads()
    workers = 1 if faiss.get_num_gpus() > 0 else max(min(cores, len(labels)), 1)
    with (
        threadpool_limits(max(cores // workers, 1)),
        ThreadPoolExecutor(
            workers, initializer=lambda: faiss.omp_set_num_threads(max(cores // workers, 1))
        ) as pool,
    ):
        return list(pool.map(work, labels))


def nearest(queries: np.ndarray, base: np.ndarray, exact_up_to: int) -> tuple[Any, Any]:
    """The row int64 `[n]` of `base` with the largest product, the lowest of equal ones, and that
    product float32 `[n]`. `base` has at least one row.
    """
    products, rows = _search(queries, base, 2, exact_up_to)
    best, row_of_best = products[:, 0], rows[:, 0].copy()
    tied = np.flatnonzero(products[:, -1] == best) if len(base) > 1 else np.empty(0, np.int64)
    step = max(MOST_PAIRS // len(base), 1)
    for start in range(0, len(tied), step):
        some = tied[start : start + step]
        row_of_best[some] = (queries[some] @ base.T).argmax(1)
    return row_of_best, best


def nearest_others(base: np.ndarray, queries: int, exact_up_to: int) -> np.ndarray:
    """The largest product float32 `[queries]` of each of the first rows with any other row."""
    products, rows = _search(base[:queries], base, 2, exact_up_to)
    return np.where(rows[:, 0] == np.arange(queries), products[:, 1], products[:, 0])


def near_pairs(
    base: np.ndarray, queries: int, threshold: float, exact_up_to: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Rows a < b with a among the first `queries`, and their products, where these are at least
    `threshold` · `ONE`; a bounded number at once.
    """
    faiss = load_faiss()
    least = float(np.ceil(threshold * ONE)) - 1  # FAISS asks for more than, we for at least
    approximate = len(base) > exact_up_to
    for start in range(0, queries, ROWS):
        first = 0 if approximate else start
        if start == 0 or not approximate:
            index = _index(faiss, base[first:], exact_up_to)
        stop = min(start + ROWS, queries)
        step = max(MOST_PAIRS // (len(base) - first), 1)
        for low in range(start, stop, step):
            block = base[low : min(low + step, stop)]
            if faiss.get_num_gpus() > 0 and not approximate:
                from faiss.contrib.exhaustive_search import range_search_gpu

                limits, products, others = range_search_gpu(block, least, index, base[first:])
            else:
                limits, products, others = index.range_search(block, least)
            a = np.repeat(np.arange(low, low + len(block)), np.diff(limits.astype(np.int64)))
            b = others.astype(np.int64) + first
            ascending = b > a
            yield a[ascending], b[ascending], products[ascending]


def _search(
    queries: np.ndarray, base: np.ndarray, count: int, exact_up_to: int
) -> tuple[np.ndarray, np.ndarray]:
    faiss = load_faiss()
    count = min(count, len(base))
    if len(base) > exact_up_to:
        products, rows = _index(faiss, base, exact_up_to).search(queries, count)
    elif faiss.get_num_gpus() > 0:
        products, rows = faiss.knn_gpu(
            faiss.StandardGpuResources(),
            queries,
            base,
            count,
            metric=faiss.METRIC_INNER_PRODUCT,
        )
    else:
        products, rows = faiss.knn(queries, base, count, metric=faiss.METRIC_INNER_PRODUCT)
    return products, rows


def _index(faiss: ModuleType, base: np.ndarray, exact_up_to: int) -> Any:
    """Exact, on a GPU where there is one; beyond `exact_up_to` rows by inverted lists, on the CPU,
    since FAISS has no search by threshold for these on a GPU.
    """
    dim = base.shape[1]
    if len(base) > exact_up_to:
        lists = int(4 * np.sqrt(len(base)))
        index = faiss.index_factory(dim, f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
        index.nprobe = min(LISTS_PROBED, lists)
        index.train(base[:: max(len(base) // (64 * lists), 1)])
    elif faiss.get_num_gpus() > 0:
        index = faiss.GpuIndexFlatIP(faiss.StandardGpuResources(), dim)
    else:
        index = faiss.IndexFlatIP(dim)
    index.add(base)
    return index
