"""Arms over independent pools: `python -m benchmarks.pools RECIPE OUT [--set …]`.

For each of three recipe seeds the labelled images, the generator and the pool are drawn anew and
every arm is trained with all student seeds. The table's differences are paired by pool and seed;
the standard error counts pools, since students of one pool share its luck.
"""

import argparse
import json
import math
from pathlib import Path
from statistics import fmean, stdev

from cgankd.app import pipeline
from cgankd.app.console import Console

POOLS = (3, 4, 5)  # settings were tried on the draws of lower seeds


def main() -> None:
    """Runs what is not done and prints the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("out", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    options = parser.parse_args()
    console = Console()
    reports = [
        pipeline.run(
            options.recipe,
            console=console,
            out=options.out / f"pool-{pool}",
            overrides=[*options.overrides, f"seed={pool}"],
        )
        for pool in POOLS
    ]
    table = pooled_table(reports)
    (options.out / "table.json").write_text(json.dumps(table, indent=2) + "\n")
    print(markdown(table))


def pooled_table(reports: list[dict]) -> dict:
    """For each arm its mean over pools, the spread between students, and gains over reals."""
    arms = {}
    for name in reports[0]["arms"]:
        values = [report["arms"][name]["values"] for report in reports]
        row = {"mean": fmean(map(fmean, values)), "std": stdev(v for pool in values for v in pool)}
        row["values"] = values
        for baseline in ("no-kd", "raw"):
            others = [report["arms"][baseline]["values"] for report in reports]
            row[f"against {baseline}"] = difference(values, others)
        arms[name] = row
    teachers = [report["teacher"] for report in reports]
    return {"metric": reports[0]["metric"], "arms": arms, "teacher": teachers}


def difference(values: list[list[float]], others: list[list[float]]) -> dict[str, float]:
    """The mean paired difference, with its standard error over students and over pools."""
    pairs = [
        [a - b for a, b in zip(x, y, strict=True)] for x, y in zip(values, others, strict=True)
    ]
    every = [pair for pool in pairs for pair in pool]
    means = [fmean(pool) for pool in pairs]
    return {
        "mean": fmean(every),
        "standard_error": stdev(every) / math.sqrt(len(every)),
        "standard_error_over_pools": stdev(means) / math.sqrt(len(means)),
    }


def markdown(table: dict) -> str:
    """The table as the README shows it."""
    lines = [
        f"| arm | test {table['metric']} | against `no-kd` | against `raw` |",
        "|---|---|---|---|",
    ]
    for name, row in table["arms"].items():
        cells = [f"{row['mean']:.2f} ± {row['std']:.2f}"]
        for baseline in ("no-kd", "raw"):
            gain = row[f"against {baseline}"]
            cells.append(
                "–"
                if name == baseline
                else f"{gain['mean']:+.2f} ± {gain['standard_error']:.2f} "
                f"({gain['standard_error_over_pools']:.2f}), "
                f"{gain['mean'] / table['arms'][baseline]['mean']:+.0%}"
            )
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
