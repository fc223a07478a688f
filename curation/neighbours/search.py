"""FAISS: the nearest vector and all near pairs, decided by value and lowest row, never by rank."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import Any, TypeVar

import numpy as np

from cgankd.curation.neighbours.feature_space import ONE
from cgankd.shardset.errors import BadInput

Found = TypeVar("Found")

ROWS = 1024  # queries that share an index of what comes after them
MOST_PAIRS = 16_000_000  # in memory at once, however many there are
LISTS_PROBED = 32  # of an approximate search


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


def each_on_a_core(work: Callable[[int], Found], labels: Sequence[int]) -> list[Found]:
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
    best, found = products[:, 0], rows[:, 0].copy()
    tied = np.flatnonzero(products[:, -1] == best) if len(base) > 1 else np.empty(0, np.int64)
    step = max(MOST_PAIRS // len(base), 1)
    for start in range(0, len(tied), step):
        some = tied[start : start + step]
        found[some] = (queries[some] @ base.T).argmax(1)
    return found, best


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

                limits, products, found = range_search_gpu(block, least, index, base[first:])
            else:
                limits, products, found = index.range_search(block, least)
            a = np.repeat(np.arange(low, low + len(block)), np.diff(limits.astype(np.int64)))
            b = found.astype(np.int64) + first
            own = b > a
            yield a[own], b[own], products[own]


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
