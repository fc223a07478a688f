"""The report of a run: `report.html`, a page that needs nothing else, `report.json` and figures."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cgankd.app.pages import number, page_templates
from cgankd.app.pages.figures import SERIES, Figure, draw_figures
from cgankd.app.pages.records import (
    ArmRecord,
    GroupRecord,
    ReportFacts,
    ReportRecord,
    metric_of,
    paired_difference,
)
from cgankd.shardset.files import write_bytes, write_json
from cgankd.shardset.labels import LabelSpace
from cgankd.shardset.records import DifferenceFacts

MANY_GROUPS = 20  # from here on the diagnostics start folded


def write_report(folder: Path, facts: ReportFacts) -> Path:
    """The path of `report.html`, written with `report.json` and `figures/` into a folder."""
    figures = draw_figures(facts)
    for old in (folder / "figures").glob("*.png"):
        old.unlink()
    for figure in figures:
        write_bytes(folder / "figures" / f"{figure.name}.png", figure.png)
    write_json(folder / "report.json", facts.record.plain())
    write_bytes(folder / "report.html", render_page(facts, figures).encode())
    return folder / "report.html"


def report_record(
    space: LabelSpace,
    arms: Mapping[str, ArmRecord],
    groups: Sequence[GroupRecord],
    **facts: Any,
) -> ReportRecord:
    """What `report.json` holds: the facts given, and what follows from arms and groups."""
    metric = metric_of(space)
    difference = paired_difference(arms, less_is_better=metric.less_is_better)
    reasons = groups[0].dropped if groups else ()
    return ReportRecord(
        task=space.task,
        metric=metric.name,
        unit=metric.unit,
        summary=summary(space, arms, difference),
        arms=arms,
        arm_order=tuple(arms),
        difference=difference,
        pool=sum(group.pool for group in groups),
        kept=sum(group.kept for group in groups),
        dropped={reason: sum(group.dropped[reason] for group in groups) for reason in reasons},
        classes=tuple(groups) if space.task == "classification" else None,
        parts=tuple(groups) if space.task == "regression" else None,
        **facts,
    )


def summary(
    space: LabelSpace, arms: Mapping[str, ArmRecord], difference: DifferenceFacts | None
) -> str:
    """The run's outcome in one or two sentences, as careful as its numbers are."""
    metric = metric_of(space)
    if difference is None:
        return (
            f"{len(arms)} arms were trained; without both cgan-kd and no-kd among them "
            "there is no answer to whether generated images help."
        )
    arm, baseline = difference.arm, difference.baseline
    value, before = metric.spread(arms[arm]), arms[baseline].mean
    points = metric.text(abs(difference.mean))
    direction = "more" if difference.mean >= 0 else "less"
    if space.task == "classification":
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


def render_page(facts: ReportFacts, figures: Sequence[Figure]) -> str:
    """The page's HTML; every text of the facts is escaped, nothing is loaded from elsewhere."""
    record = facts.record
    longest = max(record.seconds.values(), default=0) or 1
    return (
        page_templates()
        .get_template("report.html.j2")
        .render(
            facts=record,
            space=facts.space,
            metric=facts.metric,
            group_word=facts.group_words[0],
            recipe=facts.recipe,
            continuous=facts.space.task == "regression",
            verdict=record.difference.verdict if record.difference else "unclear",
            plot=dot_plot(facts),
            shares=shares(record),
            groups=group_bars(record),
            diagnostics=diagnostics(facts),
            stages=[(name, time, 100 * time / longest) for name, time in record.seconds.items()],
            run=list(flattened(record.run)),
            memory=f"{record.peak_memory_bytes / 2**30:.2f} GiB",
            figures=figures,
        )
    )


def dot_plot(facts: ReportFacts) -> dict[str, Any]:
    """The arms' rows with every value as a position in percent of one shared axis."""
    arms = facts.record.arms
    values = [value for arm in arms.values() for value in arm.values]
    marks = ticks(min(values), max(values)) if values else [0.0, 100.0]
    low, high = marks[0], marks[-1]
    digits = max(0, -math.floor(math.log10((marks[1] - low) * 1.0001) + 1e-9))

    def place(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    rows = [
        {
            "name": name,
            "arm": arm,
            "spread": facts.metric.spread(arm),
            "dots": [place(value) for value in arm.values],
            "mean": place(arm.mean),
            "words": ", ".join(map(facts.metric.text, arm.values)),
        }
        for name, arm in arms.items()
    ]
    return {
        "rows": rows,
        "baseline": place(arms["no-kd"].mean) if "no-kd" in arms else None,
        "ticks": [(place(mark), f"{mark:.{digits}f}") for mark in marks],
    }


def ticks(low: float, high: float) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`, four to six of them."""
    from matplotlib.ticker import MaxNLocator

    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    locator = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10])
    return [float(mark) for mark in locator.tick_values(low, high)]


def shares(record: ReportRecord) -> list[dict[str, Any]]:
    """Kept and each reason of the whole pool: name, colour, count and share."""
    return [
        {"name": name, "colour": colour, "count": count, "share": count / (record.pool or 1)}
        for name, colour, count in _fates(record)
    ]


def group_bars(record: ReportRecord) -> list[dict[str, Any]]:
    """One stacked bar per group of labels, in percent of the largest group's pool."""
    largest = max((group.pool for group in record.groups), default=0) or 1
    bars = []
    for group in record.groups:
        fates = [fate for fate in _fates(group) if fate[2]]
        words = ", ".join(f"{name} {count:,}" for name, _, count in fates)
        bars.append(
            {
                "name": group.name,
                "words": f"{group.name}: {group.pool:,} produced; {words}",
                "acceptance": group.acceptance,
                "parts": [(colour, 100 * count / largest) for _, colour, count in fates],
            }
        )
    return bars


def _fates(record: ReportRecord | GroupRecord) -> list[tuple[str, str, int]]:
    """Kept and each reason: name, colour and number of samples. Colours of reasons recur."""
    counts = {"kept": record.kept, **record.dropped}
    colours = (SERIES[0], *itertools.islice(itertools.cycle(SERIES[1:]), len(record.dropped)))
    return [(name, colour, counts[name]) for name, colour in zip(counts, colours, strict=True)]


def diagnostics(facts: ReportFacts) -> dict[str, Any] | None:
    """The ratio's diagnostics as a table: one row per group, one column per number."""
    rows = facts.record.ratio.diagnostics
    if not rows:
        return None
    names = [name for name in rows[0] if name != "label"]
    groups = dict(enumerate(facts.space.group_names))
    labels = [row.get("label", index) for index, row in enumerate(rows)]
    return {
        "columns": [name.replace("_", " ") for name in names],
        "rows": [
            (groups.get(label, label), [number(row.get(name)) for name in names])
            for label, row in zip(labels, rows, strict=True)
        ],
        "folded": len(rows) >= MANY_GROUPS,
    }


def flattened(facts: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    """Nested facts as (`libraries.torch`, `2.13.0`) pairs."""
    for key, value in facts.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{path}{key}.")
        elif isinstance(value, list | tuple):
            yield f"{path}{key}", ", ".join(map(str, value))
        else:
            yield f"{path}{key}", "–" if value is None else str(value)
