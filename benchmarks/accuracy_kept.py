"""Does a change cost accuracy? `python -m benchmarks.accuracy_kept BEFORE AFTER`

BEFORE and AFTER are what `benchmarks.pools` left in OUT with the code before and after. Every arm's
gain (accuracy after − before in points, or error before − after as a part of the error before) is
paired by pool and seed, with its interval of 95 % (Student's t over all students).
"""

import argparse
import json
import math
from pathlib import Path
from statistics import fmean, stdev

from scipy.stats import t as student_t

CONFIDENCE = 0.95


def reports_of(out: Path) -> list[dict]:
    """The reports of the pools in a folder, in their order."""
    paths = sorted(out.glob("pool-*/report/report.json"))
    return [json.loads(path.read_text()) for path in paths]


def gain_of(before: list[list[float]], after: list[list[float]], metric: str) -> tuple[float, ...]:
    """The mean gain and the ends of its interval, of values by pool and seed."""
    pairs = [
        (x, y)
        for old, new in zip(before, after, strict=True)
        for x, y in zip(old, new, strict=True)
    ]
    if metric == "accuracy":
        gains = [y - x for x, y in pairs]
    else:
        scale = fmean(x for x, _ in pairs)
        gains = [100 * (x - y) / scale for x, y in pairs]
    # Student's t: mean ± quantile · s / √n.
    reach = (
        student_t.ppf((1 + CONFIDENCE) / 2, len(gains) - 1) * stdev(gains) / math.sqrt(len(gains))
    )
    return fmean(gains), fmean(gains) - reach, fmean(gains) + reach


def main() -> None:
    """Prints a line for each arm: mean before and after, gain and interval."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    options = parser.parse_args()
    old, new = reports_of(options.before), reports_of(options.after)
    metric = old[0]["metric"]
    unit = "points" if metric == "accuracy" else "% of the error"
    print(f"{len(old)} pools × {len(old[0]['arms']['no-kd']['values'])} seeds; gains in {unit}")
    for arm in old[0]["arms"]:
        before, after = ([report["arms"][arm]["values"] for report in side] for side in (old, new))
        mean, low, high = gain_of(before, after, metric)
        means = fmean(map(fmean, before)), fmean(map(fmean, after))
        print(f"{arm:20} {means[0]:6.2f} {means[1]:6.2f}  {mean:+6.2f}  [{low:+.2f}, {high:+.2f}]")


if __name__ == "__main__":
    main()
