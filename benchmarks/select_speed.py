"""Selecting again on a million rows: `python -m benchmarks.select_speed`."""

import argparse
import resource
import time

import numpy as np

from curation.policy import Policy
from curation.selection import Scores, select


def main() -> None:
    """Prints the seconds of each policy on the same made-up scores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--labels", type=int, default=100)
    options = parser.parse_args()
    rows = options.rows
    random = np.random.default_rng(0)
    labels = np.sort(random.integers(options.labels, size=rows))
    scores = Scores(
        key=np.arange(rows),
        label=labels,
        group=labels,
        ratio=random.lognormal(size=rows),
        teacher_label=random.integers(options.labels, size=rows),
        teacher_error=random.exponential(size=rows),
        scored=np.ones(rows, bool),
    )
    uniforms, first = random.random(rows), random.random(rows) < 0.8
    for policy in (
        Policy(),
        Policy(rho=0.5),
        Policy(subsample="rejection", quota=1000),
        Policy(scope="global", relabel=True),
    ):
        start = time.perf_counter()
        selection = select(scores, policy, uniforms, first)
        table = selection.table()
        seconds = time.perf_counter() - start
        print(f"{seconds:5.2f} s  kept {sum(selection.kept):,} of {table.num_rows:,}  {policy!r}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(f"peak memory {peak:.2f} GB  (demanded: at most 2 s each)")


if __name__ == "__main__":
    main()
