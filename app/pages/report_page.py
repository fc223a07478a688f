"""The report as one HTML page: what the template needs, already counted, scaled and worded."""

import base64
import math
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cgankd.app.console import duration
from cgankd.app.pages.report import summary
from cgankd.app.pages.report_drawing import COLOURS, SERIES, Figure
from cgankd.app.pages.report_facts import ReportFacts
from cgankd.app.pages.report_figures import ticks

if TYPE_CHECKING:
    from jinja2 import Environment

MANY_GROUPS = 20  # from here on the diagnostics start folded


def render_page(facts: ReportFacts, figures: list[Figure]) -> str:
    """The page's HTML; every text of the facts is escaped, nothing is loaded from elsewhere."""
    from markupsafe import Markup

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


def page_templates() -> "Environment":
    """The pages' templates; every text that they are given is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("cgankd.app"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "duration": duration,
        "count": count,
        "percent": percent,
        "signed": signed,
        "unbroken": unbroken,
        "number": number,
    }
    return environment


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


def unbroken(text: str) -> str:
    """A sentence whose numbers stay on one line with their signs and units."""
    return re.sub(r"(?<=[\d±]) (?=[^\s(])", "\u00a0", text)


def count(number: int) -> str:
    """For example `128,000`."""
    return f"{number:,}"


def signed(value: float) -> str:
    """For example `−60`, with a true minus sign."""
    return f"{value:g}".replace("-", "−")


def percent(share: float | None) -> str:
    """For example `46.7 %`; a dash for None."""
    return "–" if share is None else f"{100 * share:.1f} %"


def number(value: Any) -> str:
    """A diagnostic to four digits; a dash where there is none."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def data_uri(png: bytes) -> str:
    """PNG bytes as an address that holds the picture itself."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _colours(wanted: int) -> list[str]:
    """Names of colours: the first for what was kept, the others over again where need be."""
    others = SERIES[1:]
    return [SERIES[0]] + [others[index % len(others)] for index in range(wanted - 1)]


def _label_name(facts: ReportFacts, label: Any) -> str:
    names = facts.space.group_names
    if isinstance(label, int) and 0 <= label < len(names):
        return names[label]
    return str(label)
