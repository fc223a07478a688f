"""Selecting again on a million rows: `python -m benchmarks.select_speed`."""

import argparse
import resource
import time
from dataclasses import dataclass

import numpy as np

from cgankd.curation.difference import difference
from cgankd.curation.neighbours import Neighbours, Thresholds
from cgankd.curation.policies import Policy
from cgankd.curation.policies.neighbour_rules import Copies, Duplicates, Outliers
from cgankd.curation.policies.quotas import LowestKeys, most_diverse
from cgankd.curation.policies.rule import Scores
from cgankd.curation.policies.selection import select
from cgankd.curation.policies.subsampling import BudgetedRejection, Rejection
from cgankd.curation.policies.teacher_rules import Agreement, Band, Quantile, TeacherLabels

NEAR = Policy(
    subsample=None,
    filter=None,
    copies=Copies(),
    outliers=Outliers(),
    duplicates=Duplicates(),
)
POLICIES = (
    Policy(),
    Policy(filter=Quantile(rho=0.5)),
    Policy(subsample=Rejection(), quota=LowestKeys(size=1000)),
    Policy(filter=Quantile(scope="global"), relabel=TeacherLabels()),
    Policy(filter=Band()),
    Policy(filter=Agreement()),
    NEAR,
    NEAR.model_copy(update={"subsample": Rejection(), "filter": Band()}),
    NEAR.model_copy(
        update={
            "subsample": BudgetedRejection(),
            "relabel": TeacherLabels(),
            "quota": LowestKeys(size=1000),
        }
    ),
)


@dataclass(frozen=True)
class Pool:
    """Made-up columns of a pool."""

    scores: Scores
    neighbours: Neighbours
    uniforms: np.ndarray
    first: np.ndarray


def main() -> None:
    """Prints the seconds of each policy on the same made-up columns, then those of coverage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--labels", type=int, default=100)
    parser.add_argument("--coverage-rows", type=int, default=5_000, help="of one label")
    parser.add_argument("--coverage-width", type=int, default=512)
    options = parser.parse_args()
    made = pool(options.rows, options.labels)
    tables = []
    for policy in POLICIES:
        start = time.perf_counter()
        selection = select(made.scores, policy, made.uniforms, made.first, made.neighbours)
        tables.append(selection.table())
        seconds = time.perf_counter() - start
        rules = policy.model_dump(exclude_none=True)
        print(f"{seconds:5.2f} s  kept {selection.kept.sum():,} of {options.rows:,}  {rules}")
        del tables[:-2]
    start = time.perf_counter()
    changes = difference(*tables)
    print(f"{time.perf_counter() - start:5.2f} s  difference, {changes.num_rows:,} keys changed")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory {peak:.2f} GiB  (demanded: at most 2 s each and 1.5 GiB)")

    rows, width = options.coverage_rows, options.coverage_width
    features = np.random.default_rng(1).standard_normal((rows, width)).astype(np.float16)
    for method in ("farthest", "kmeans"):
        start = time.perf_counter()
        most_diverse(features, rows // 5, method)
        seconds = time.perf_counter() - start
        print(f"{seconds:5.2f} s  {method}: {rows // 5:,} of {rows:,} × {width} of one label")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory {peak:.2f} GiB with coverage")


def pool(rows: int, labels: int) -> Pool:
    """Columns of `rows` samples, with as many pairs of near-duplicates as a tenth of them."""
    random = np.random.default_rng(0)
    label = np.sort(random.integers(labels, size=rows))
    scores = Scores(
        key=np.arange(rows),
        label=label,
        group=label,
        ratio=random.lognormal(size=rows),
        teacher_label=np.where(random.random(rows) < 0.9, label, 0),
        teacher_error=random.exponential(size=rows),
        scored=np.ones(rows, bool),
    )
    neighbours = near_duplicates(rows, labels, random)
    return Pool(scores, neighbours, random.random(rows), random.random(rows) < 0.8)


def near_duplicates(rows: int, labels: int, random: np.random.Generator) -> Neighbours:
    """Neighbours of `rows` samples with as many pairs of near-duplicates as a tenth of them."""
    a = np.sort(random.choice(rows - 1, rows // 10, replace=False))
    bars = {"memorised": 0.99, "duplicates": 0.2, "outliers": 4.0, "loosest": 0.1}
    return Neighbours(
        key=np.arange(rows),
        nearest_real_id=random.integers(5000, size=rows),
        nearest_real_similarity=random.random(rows, np.float32),
        nearest_validation_id=random.integers(5000, size=rows),
        nearest_validation_similarity=random.random(rows, np.float32),
        outlier=random.exponential(size=rows).astype(np.float32),
        key_a=a,
        key_b=a + 1,
        similarity=random.random(len(a), np.float32),
        thresholds=Thresholds(
            **{name: dict.fromkeys(range(labels), bar) for name, bar in bars.items()},
            centre_distance=dict.fromkeys(range(labels), 1.0),
        ),
    )


if __name__ == "__main__":
    main()
