"""The report of a run: `report.html`, a page that needs nothing else, `report.json` and figures."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from cgankd.app.pages.report_facts import LabelFacts, ReportFacts
from cgankd.shardset.files import write_bytes, write_json
from cgankd.shardset.labels import LabelSpace


def write_report(folder: Path, facts: ReportFacts) -> Path:
    """The path of `report.html`, written with `report.json` and `figures/` into a folder."""
    from cgankd.app.pages.report_figures import draw_figures
    from cgankd.app.pages.report_page import render_page

    figures = draw_figures(facts)
    for old in (folder / "figures").glob("*.png"):
        old.unlink()
    for figure in figures:
        write_bytes(folder / "figures" / f"{figure.name}.png", figure.png)
    write_json(folder / "report.json", report_json(facts))
    write_bytes(folder / "report.html", render_page(facts, figures).encode())
    return folder / "report.html"


def summary(facts: ReportFacts) -> str:
    """The run's outcome in one or two sentences, as careful as its numbers are."""
    difference, metric = facts.difference, facts.metric
    if difference is None:
        return (
            f"{len(facts.arms)} arms were trained; without both cgan-kd and no-kd among them "
            "there is no answer to whether generated images help."
        )
    arm, baseline = difference.arm, difference.baseline
    value, before = metric.spread(facts.arms[arm]), facts.arms[baseline].mean
    points = metric.text(abs(difference.mean))
    direction = "more" if difference.mean >= 0 else "less"
    if facts.space.task == "classification":
        reached, unit = f"{arm} reaches {value} % accuracy", "points"
    else:
        reached, unit = f"{arm} reaches a mean absolute error of {value} {metric.unit}", metric.unit
        if before > 0:
            direction = f"or {100 * abs(difference.mean) / before:.0f} % {direction}"
    if difference.standard_error is None:
        return (
            f"{reached}, {points} {unit} {direction} than {baseline}. One seed: chance is not "
            "ruled out; run more seeds."
        )
    answer = (
        f"{reached}, {points} ± {metric.text(difference.standard_error)} {unit} {direction} than "
        f"{baseline} (paired difference and its standard error over {difference.pairs} seeds)."
    )
    return (
        answer
        + {
            "gain": " A gain of more than twice the standard error.",
            "loss": " A loss of more than twice the standard error: here generated images hurt.",
            "unclear": " Within twice the standard error: no effect is shown.",
        }[difference.verdict]
    )


def report_json(facts: ReportFacts) -> dict[str, Any]:
    """The report as plain values; a number that is not finite is None."""
    difference = facts.difference
    value = {
        "format_version": 1,
        "title": facts.title,
        "task": facts.space.task,
        "metric": facts.metric.name,
        "unit": facts.metric.unit,
        "summary": summary(facts),
        "warnings": facts.warnings,
        "arms": {
            name: {
                "mean": arm.mean,
                "std": arm.std,
                "values": arm.values,
                "steps": arm.steps,
                "images_seen": arm.images_seen,
                "learning_rate": arm.learning_rate,
                "validation": arm.validation,
                "note": arm.note,
            }
            for name, arm in facts.arms.items()
        },
        "arm_order": list(facts.arms),
        "difference": difference and {**vars(difference), "verdict": difference.verdict},
        "teacher": vars(facts.teacher),
        "pool": sum(facts.pool),
        "kept": sum(facts.kept),
        "selection_sha256": facts.selection_sha256,
        "dropped": {reason: sum(counts) for reason, counts in facts.dropped.items()},
        "classes" if facts.space.task == "classification" else "parts": [
            {
                "name": name,
                "pool": facts.pool[index],
                "kept": facts.kept[index],
                "dropped": {reason: counts[index] for reason, counts in facts.dropped.items()},
                "acceptance": facts.acceptance[index],
            }
            for index, name in enumerate(facts.space.group_names)
        ],
        "ratio": {"diagnostics": facts.ratio_diagnostics, "problems": facts.ratio_problems},
        "seconds": facts.seconds,
        "peak_memory_bytes": facts.peak_memory_bytes,
        "run": facts.run,
    }
    if facts.labels is not None:
        value["labels"] = _labels_json(facts.space, facts.labels)
    return _plain(value)


def _labels_json(space: LabelSpace, labels: LabelFacts) -> dict[str, Any]:
    """What is known along the label; counts and errors are those of the parts of the range."""

    def counts(values: np.ndarray) -> np.ndarray:
        return np.bincount(space.group_of(values), minlength=len(space.group_names))

    measures = {"fidelity": labels.fidelity, "label_score": labels.score}
    return {
        "space": space.model_dump(),
        "real": counts(labels.real),
        "pool": counts(labels.pool),
        "kept": counts(labels.kept),
        "mae": labels.mae,
        **{name: along and vars(along) for name, along in measures.items()},
    }


def _plain(value: Any) -> Any:
    """A value with NumPy's numbers as Python's and numbers that are not finite as None."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
