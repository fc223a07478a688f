"""Neighbours against the bare FAISS search: `python -m benchmarks.neighbour_speed`.

The bare search is that of the nearest two of all samples of a label among these and among the
label's real images, on the features as they are.
"""

import argparse
import resource
import time

import faiss
import numpy as np

from cgankd.curation.neighbours.find import NeighbourConfig, RealFeatures, find_neighbours
from cgankd.curation.policies import Policy
from cgankd.curation.policies.neighbour_rules import Duplicates
from cgankd.curation.policies.rule import Scores
from cgankd.curation.policies.selection import select
from cgankd.shardset.labels import ClassLabels


def main() -> None:
    """Prints the seconds of both and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--labels", type=int, default=10)
    parser.add_argument("--reals", type=int, default=10_000)
    options = parser.parse_args()
    random = np.random.default_rng(0)
    rows, count = options.rows, options.labels
    middle = random.normal(size=(count, options.dim))
    # As learnt features do: some directions vary much more than others.
    spread = np.linspace(1, 0.1, options.dim)

    def drawn(labels: np.ndarray) -> np.ndarray:
        noise = random.standard_normal((len(labels), options.dim), dtype=np.float32) * spread
        return (middle[labels] + noise).astype(np.float16)

    labels, real_labels = np.arange(rows) % count, np.arange(options.reals) % count
    features, real = drawn(labels), drawn(real_labels)
    features[rows // 50 : rows // 25] = features[: rows // 25 - rows // 50]
    space = ClassLabels(names=tuple(map(str, range(count))))

    start = time.perf_counter()
    for label in range(count):
        own = features[labels == label].astype(np.float32)
        faiss.knn(own, own, 2, metric=faiss.METRIC_INNER_PRODUCT)
        base = real[real_labels == label].astype(np.float32)
        faiss.knn(own, base, 2, metric=faiss.METRIC_INNER_PRODUCT)
    bare = time.perf_counter() - start

    start = time.perf_counter()
    key = np.arange(rows)
    neighbours = find_neighbours(
        key,
        labels,
        features,
        RealFeatures(real, real_labels, options.reals),
        NeighbourConfig(),
        space=space,
    )
    ones, everything = np.ones(rows), np.ones(rows, bool)
    scores = Scores(key, labels, labels, ones, labels, ones, everything)
    policy = Policy(subsample=None, filter=None, duplicates=Duplicates())
    dropped = select(scores, policy, ones, everything, neighbours).counts()["dropped"]
    whole = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"{rows:,} × {options.dim}, {count} labels, {options.reals:,} real images: {dropped}")
    print(f"bare search {bare:.2f} s, neighbours and duplicates {whole:.2f} s")
    print(f"{whole / bare:.2f} times (demanded: at most 1.2), peak memory {peak:.2f} GB")


if __name__ == "__main__":
    main()
