"""The report of a run: `report.html`, a page that needs nothing else, `report.json` and figures."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from cgankd.app.console import duration
from cgankd.app.pages.drawing import COLOURS, SERIES, Figure
from cgankd.app.pages.facts import LabelFacts, ReportFacts
from cgankd.app.pages.figures import draw_figures, ticks
from cgankd.app.pages.html import data_uri, number, page_templates
from cgankd.app.pages.records import ReportRecord
from cgankd.shardset.files import write_bytes, write_json
from cgankd.shardset.labels import LabelSpace
from cgankd.shardset.records import finite

MANY_GROUPS = 20  # from here on the diagnostics start folded


def write_report(folder: Path, facts: ReportFacts) -> Path:
    """The path of `report.html`, written with `report.json` and `figures/` into a folder."""
    figures = draw_figures(facts)
    for old in (folder / "figures").glob("*.png"):
        old.unlink()
    for figure in figures:
        write_bytes(folder / "figures" / f"{figure.name}.png", figure.png)
    write_json(folder / "report.json", report_record(facts).plain())
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


def report_record(facts: ReportFacts) -> ReportRecord:
    """What `report.json` holds; a number that is not finite is None."""
    difference = facts.difference
    value = {
        "title": facts.title,
        "task": facts.space.task,
        "metric": facts.metric.name,
        "unit": facts.metric.unit,
        "summary": summary(facts),
        "warnings": facts.warnings,
        "arms": {
            name: {**vars(arm), "mean": arm.mean, "std": arm.std}
            for name, arm in facts.arms.items()
        },
        "arm_order": list(facts.arms),
        "difference": difference and difference.model_dump(),
        "teacher": facts.teacher.model_dump(),
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
    return ReportRecord.model_validate_json(json.dumps(_plain(value)))


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
        **{name: along and along.model_dump() for name, along in measures.items()},
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
    return finite(value) if isinstance(value, float) else value


def render_page(facts: ReportFacts, figures: list[Figure]) -> str:
    """The page's HTML; every text of the facts is escaped, nothing is loaded from elsewhere."""
    return (
        page_templates()
        .get_template("report.html.j2")
        .render(
            facts=facts,
            metric=facts.metric,
            continuous=facts.space.task == "regression",
            summary=summary(facts),
            verdict=facts.difference.verdict if facts.difference else "unclear",
            colours=COLOURS,
            plot=dot_plot(facts),
            shares=shares(facts),
            groups=group_bars(facts),
            diagnostics=diagnostics(facts),
            stages=stage_bars(facts.seconds),
            run=list(flattened(facts.run)),
            memory=f"{facts.peak_memory_bytes / 2**30:.2f} GiB",
            grids=[(figure, data_uri(figure.png)) for figure in figures if figure.kind == "grid"],
            histograms=[(f, Markup(f.svg)) for f in figures if f.kind == "histogram"],
            along=[(f, Markup(f.svg)) for f in figures if f.kind == "label"],
            curves=[(f, Markup(f.svg)) for f in figures if f.kind == "curves"],
        )
    )


def dot_plot(facts: ReportFacts) -> dict[str, Any]:
    """The arms' rows with every value as a position in percent of one shared axis."""
    values = [value for arm in facts.arms.values() for value in arm.values]
    marks = ticks(min(values), max(values)) if values else [0.0, 100.0]
    low, high = marks[0], marks[-1]
    digits = max(0, -math.floor(math.log10((marks[1] - low) * 1.0001) + 1e-9))

    def place(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    baseline = facts.arms.get("no-kd")
    rows = [
        {
            "name": name,
            "arm": arm,
            "spread": facts.metric.spread(arm),
            "dots": [place(value) for value in arm.values],
            "mean": place(arm.mean),
            "words": ", ".join(map(facts.metric.text, arm.values)),
        }
        for name, arm in facts.arms.items()
    ]
    return {
        "rows": rows,
        "baseline": place(baseline.mean) if baseline else None,
        "ticks": [(place(mark), f"{mark:.{digits}f}") for mark in marks],
    }


def shares(facts: ReportFacts) -> list[dict[str, Any]]:
    """Kept and each reason of the whole pool: name, colour, count and share."""
    total = sum(facts.pool) or 1
    totals = {"kept": sum(facts.kept)}
    totals |= {reason: sum(counts) for reason, counts in facts.dropped.items()}
    return [
        {"name": name, "colour": colour, "count": number, "share": number / total}
        for (name, number), colour in zip(totals.items(), _colours(len(totals)), strict=True)
    ]


def group_bars(facts: ReportFacts) -> list[dict[str, Any]]:
    """One stacked bar per group of labels, in percent of the largest group's pool."""
    largest = max(facts.pool, default=0) or 1
    colours = _colours(1 + len(facts.dropped))
    bars = []
    for index, name in enumerate(facts.space.group_names):
        parts = {"kept": facts.kept[index]}
        parts |= {reason: counts[index] for reason, counts in facts.dropped.items()}
        words = ", ".join(f"{part} {number:,}" for part, number in parts.items() if number)
        bars.append(
            {
                "name": name,
                "words": f"{name}: {facts.pool[index]:,} produced; {words}",
                "acceptance": facts.acceptance[index],
                "parts": [
                    (colour, 100 * number / largest)
                    for number, colour in zip(parts.values(), colours, strict=True)
                    if number
                ],
            }
        )
    return bars


def diagnostics(facts: ReportFacts) -> dict[str, Any] | None:
    """The ratio's diagnostics as a table: one row per group, one column per number."""
    rows = facts.ratio_diagnostics
    if not rows:
        return None
    names = [name for name in rows[0] if name != "label"]
    return {
        "columns": [name.replace("_", " ") for name in names],
        "rows": [
            (_label_name(facts, row.get("label", index)), [number(row.get(n)) for n in names])
            for index, row in enumerate(rows)
        ],
        "folded": len(rows) >= MANY_GROUPS,
    }


def stage_bars(seconds: Mapping[str, float]) -> list[tuple[str, str, float]]:
    """Each stage with its time in words and in percent of the longest."""
    longest = max(seconds.values(), default=0) or 1
    return [(name, duration(value), 100 * value / longest) for name, value in seconds.items()]


def flattened(facts: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Nested facts as (`libraries.torch`, `2.13.0`) pairs."""
    for key, value in facts.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{path}{key}.")
        elif isinstance(value, list | tuple):
            yield f"{path}{key}", ", ".join(map(str, value))
        else:
            yield f"{path}{key}", "–" if value is None else str(value)


def _colours(wanted: int) -> list[str]:
    """Names of colours: the first for what was kept, the others over again where need be."""
    others = SERIES[1:]
    return [SERIES[0]] + [others[index % len(others)] for index in range(wanted - 1)]


def _label_name(facts: ReportFacts, label: Any) -> str:
    names = facts.space.group_names
    if isinstance(label, int) and 0 <= label < len(names):
        return names[label]
    return str(label)
