"""Where generated images begin to help: `python -m benchmarks.label_budget OUT [--set …]`.

Fashion-MNIST with 20, 100 and 500 labelled images a class, for a teacher trained on those images
and for a strong one. Each budget's generator and pool serve both teachers. Writes the figure
`label-budget.png` and prints the table.
"""

import argparse
import json
import shutil
from pathlib import Path

from cgankd.app import pipeline
from cgankd.app.console import Console

BUDGETS = (20, 100, 500)
ARMS = ("no-kd", "raw", "relabelled", "cgan-kd", "hinton", "cgan-kd+hinton")
TEACHERS = ("budget", "all")
GAINS = (-1, 0, 1, 2, 5, 10, 15)
COLOURS = dict(
    zip(ARMS, ("#666666", "#4c78a8", "#54a24b", "#e45756", "#b279a2", "#f58518"), strict=True)
)


def main() -> None:
    """Runs what is not done, prints the table as Markdown and draws the figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    options = parser.parse_args()
    results: dict[str, dict[int, dict]] = {teacher: {} for teacher in TEACHERS}
    for budget in BUDGETS:
        for teacher in TEACHERS:
            results[teacher][budget] = run(options.out, budget, teacher, options.overrides)
    (options.out / "label-budget.json").write_text(json.dumps(results, indent=2) + "\n")
    print(markdown(results))
    draw(results, options.out / "label-budget.png")


def run(out: Path, budget: int, teacher: str, overrides: list[str]) -> dict:
    """What the report says of one budget and teacher."""
    folder = out / f"{budget}-{teacher}"
    twin = out / f"{budget}-{TEACHERS[0]}"
    if folder != twin and not folder.exists():
        # Students that no teacher taught are the same for both: found there, not trained again.
        for stage in ("generator", "pool", "ratio", "students/trained"):
            shutil.copytree(twin / stage, folder / stage)
        shutil.copy(twin / "run.json", folder / "run.json")
    return pipeline.run(
        "fashion-mnist",
        console=Console(),
        out=folder,
        overrides=[
            f"budget.per_class={budget}",
            f"teacher.data={teacher}",
            f"arms=[{', '.join(ARMS)}]",
            *overrides,
        ],
    )


def markdown(results: dict[str, dict[int, dict]]) -> str:
    """Mean ± standard deviation over seeds for each arm, budget and teacher."""
    lines = [f"| teacher | a class | its accuracy | {' | '.join(ARMS)} |"]
    lines.append("|---|---|---|" + "---|" * len(ARMS))
    for teacher, budgets in results.items():
        for budget, report in budgets.items():
            cells = [
                f"{report['arms'][arm]['mean']:.1f} ± {report['arms'][arm]['std']:.1f}"
                for arm in ARMS
            ]
            accuracy = f"{report['teacher']['test']:.1f}"
            lines.append(f"| {teacher} | {budget} | {accuracy} | {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(results: dict[str, dict[int, dict]], path: Path) -> None:
    """Gain over no-kd against the label budget, a panel for each teacher."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, len(TEACHERS), sharey=True)
    for panel, (teacher, budgets) in zip(panels, results.items(), strict=True):
        for arm in ARMS[1:]:
            gains = [
                report["arms"][arm]["mean"] - report["arms"]["no-kd"]["mean"]
                for report in budgets.values()
            ]
            panel.plot(list(budgets), gains, marker="o", label=arm, color=COLOURS[arm])
        panel.axhline(0, color="#999999", linewidth=1)
        panel.set_xscale("log")
        panel.set_xticks(BUDGETS, [str(budget) for budget in BUDGETS])
        panel.set_xticks([], minor=True)
        # Soft labels of a strong teacher gain ten times what the others do.
        panel.set_yscale("symlog", linthresh=2)
        panel.set_yticks(GAINS, [f"{gain:+d}" if gain else "0" for gain in GAINS])
        panel.set_xlabel("labelled images a class")
        panel.set_title(f"teacher trained on: {teacher}", fontsize=10)
    panels[0].set_ylabel("points against no-kd")
    panels[0].legend(fontsize=8, frameon=False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
