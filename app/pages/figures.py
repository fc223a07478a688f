"""The report's figures: as PNG for slides, and as SVG that takes the page's colours."""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cgankd.app.pages import COLOURS
from cgankd.app.pages.records import AlongRecord, Curve, ImageGrid, ReportFacts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure as Drawing

SERIES = ("c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7")
LIGHT = {name: light for name, (light, _) in COLOURS.items()}  # figures are drawn in these
KEPT, DROPPED = ("kept", "c0", False), ("dropped", "c7", False)  # in legends

INCHES = (5.0, 2.7)
BINS = 60
POINTS = 300  # of a curve: more is noise at this size
GRID_WIDTH = 520  # CSS pixels: two grids stand side by side on a wide page
STRIP_WIDTH = 1072  # CSS pixels: the whole of a wide page, for a grid with an axis
IMAGE_WIDTH = 64  # CSS pixels one image is enlarged to at most
BARS = 20  # few enough that a pool made for evenly spaced labels looks even
DOTS = 1500  # more would hide each other, and make a large page

STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: it can be selected and read aloud
    "font.family": ["DejaVu Sans"],
    "font.size": 9.5,
    "text.color": LIGHT["ink"],
    "text.parse_math": False,
    "axes.edgecolor": LIGHT["line"],
    "axes.labelcolor": LIGHT["muted"],
    "axes.facecolor": "none",
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": LIGHT["line"],
    "grid.linewidth": 0.6,
    "xtick.color": LIGHT["line"],
    "ytick.color": LIGHT["line"],
    "xtick.labelcolor": LIGHT["muted"],
    "ytick.labelcolor": LIGHT["muted"],
    "xtick.minor.size": 0,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "lines.linewidth": 1.4,
    "lines.markersize": 3,
    "figure.figsize": INCHES,
    "figure.facecolor": LIGHT["card"],
    "figure.constrained_layout.use": True,
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Figure:
    """One picture of the page."""

    name: str  # the file's name in figures/, without its ending
    kind: Literal["grid", "histogram", "label", "curves"]  # the section it stands in
    title: str
    caption: str
    png: bytes
    svg: str = ""  # for the page, without legend; empty for a grid, which is shown as PNG
    legend: tuple[tuple[str, str, bool], ...] = ()  # (name, colour's name, dashed) of each series
    filled: bool = False  # series are areas or dots, not lines
    width: int = 0  # of a grid: the width to show it at, in CSS pixels
    enlarged: bool = False  # a grid whose pixels are to be seen as such
    axis: tuple[str, ...] = ()  # of a grid: what stands under its columns


def draw_figures(facts: ReportFacts) -> list[Figure]:
    """The figures of a report: image grids, histograms, panels along the label and over steps."""
    figures = [draw_grid(grid, number) for number, grid in enumerate(facts.grids, 1)]
    ratio, error, kept = facts.density_ratio, facts.teacher_error, facts.was_kept
    if np.isfinite(ratio).any():
        zeros = int((ratio == 0).sum())
        caption = "log scale; 1 is where real and generated images are equally likely"
        caption += f"; {zeros:,} zeros stand at the left edge" if zeros else ""
        figures.append(
            draw_histogram("density-ratio", "Density ratio", caption, ratio, kept, log=True)
        )
    if np.isfinite(error).any():
        what = (
            "cross-entropy of the assigned label"
            if facts.space.task == "classification"
            else f"|teacher − assigned label|, {facts.space.unit}"
        )
        caption = f"{what}; the last bar holds everything beyond"
        figures.append(
            draw_histogram("teacher-error", "Teacher error", caption, error, kept, log=False)
        )
    if facts.labels is not None:
        figures += draw_label_figures(facts, facts.labels)
    stages = dict.fromkeys(curve.stage for curve in facts.curves)
    for number, stage in enumerate(stages, 1):
        curves = [curve for curve in facts.curves if curve.stage == stage]
        figures.append(draw_curves(stage, curves, number))
    return figures


@contextmanager
def panel(name: str) -> Iterator["tuple[Drawing, Axes]"]:
    """A new figure of one panel and its axes, in the page's style until the context ends."""
    import matplotlib
    from matplotlib.figure import Figure as Drawing

    # The salt makes the ids of an SVG the same each run. Without pyplot nothing global remembers
    # the figure.
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        drawing = Drawing()
        yield drawing, drawing.add_subplot()


def plain_numbers(axis: "Axis") -> None:
    """Writes 0.01 on a log axis, not a power in mathematical markup."""
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def save(drawing: "Drawing", name: str) -> tuple[bytes, str]:
    """PNG bytes and the page's SVG, both without a date or a version in them."""
    png, svg = io.BytesIO(), io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    drawing.savefig(svg, format="svg", metadata=nothing, transparent=True)
    # The page has a legend of its own, which wraps and keeps its size on a telephone.
    handles, labels = drawing.axes[0].get_legend_handles_labels()
    drawing.set_figheight(INCHES[1] + 0.2 * -(-len(labels) // 3))
    drawing.legend(handles, labels, loc="outside upper left", ncols=3, handlelength=1.4)
    drawing.savefig(png, format="png", dpi=200, metadata={"Software": None})
    return png.getvalue(), _for_page(svg.getvalue(), name)


def _for_page(svg: str, name: str) -> str:
    """An SVG file as part of a page: no prologue, colours by name, ids that stay its own."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<style.*?</style>", "", svg, count=1, flags=re.DOTALL)  # it would style the page
    svg = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1">', svg, count=1)
    for colour, light in LIGHT.items():
        svg = svg.replace(light, f"var(--{colour})")
    svg = svg.replace("xlink:href", "href")
    return re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", svg)


def _slug(text: str) -> str:
    """A text as a part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def draw_grid(grid: ImageGrid, number: int = 1) -> Figure:
    """Images side by side at their own size, with a transparent pixel between; to be enlarged."""
    from PIL import Image

    count, _, height, width = grid.pixels.shape
    columns = max(1, min(grid.columns, count))
    rows = -(-count // columns)
    # One pixel of gap is seen at any enlargement; large images get more.
    gap = max(1, width // 24)
    canvas = Image.new("RGBA", (columns * (width + gap) - gap, rows * (height + gap) - gap))
    for index, image in enumerate(grid.pixels):
        row, column = divmod(index, columns)
        colours = np.broadcast_to(image, (3, height, width)).transpose(1, 2, 0)
        canvas.paste(Image.fromarray(colours), (column * (width + gap), row * (height + gap)))
    file = io.BytesIO()
    canvas.save(file, format="png", optimize=True)
    widest = STRIP_WIDTH if grid.axis else GRID_WIDTH
    scale = max(1.0, min(widest / canvas.width, IMAGE_WIDTH / width))
    return Figure(
        f"images-{number}-{_slug(grid.name)}",
        "grid",
        grid.name,
        grid.caption,
        file.getvalue(),
        width=int(canvas.width * (int(scale) if scale >= 2 else scale)),
        enlarged=scale > 1,
        axis=grid.axis,
    )


def draw_histogram(
    name: str, title: str, caption: str, values: np.ndarray, kept: np.ndarray, *, log: bool
) -> Figure:
    """Kept and dropped samples stacked over a value `[n]`; values that are not finite are out."""
    finite = np.isfinite(values)
    values, kept = values[finite].astype(np.float64), kept[finite]
    if log:
        positive = values[values > 0]
        low, high = (positive.min(), positive.max()) if positive.size else (0.1, 1.0)
        low = max(low, high * 1e-6)
        edges = np.geomspace(min(low, high / 10), max(high, low * 10) * 1.0001, BINS + 1)
    else:
        # A long tail would press everything else into one bar.
        low, high = min(0.0, values.min()), np.quantile(values, 0.98)
        edges = np.linspace(low, max(high, low + 1e-6), BINS + 1)
    inside = np.clip(values, edges[0], np.nextafter(edges[-1], edges[0]))
    below: Any = 0  # what is stacked below, of each bar
    with panel(name) as (drawing, axes):
        for (label, colour, _), rows in ((KEPT, kept), (DROPPED, ~kept)):
            top = below + np.histogram(inside[rows], edges)[0]
            axes.stairs(top, edges, baseline=below, fill=True, color=LIGHT[colour], label=label)
            below = top
        if log:
            axes.set_xscale("log")
            plain_numbers(axes.xaxis)
            axes.axvline(1.0, color=LIGHT["ink"], linewidth=0.8, linestyle=(0, (3, 3)))
        axes.set(xlim=(edges[0], edges[-1]), ylabel="samples")
        images = save(drawing, name)
    return Figure(name, "histogram", title, caption, *images, (KEPT, DROPPED), filled=True)


def draw_curves(stage: str, curves: Sequence[Curve], number: int = 1) -> Figure:
    """The curves of one stage in one panel; long ones are averaged to `POINTS` points."""
    series = [(curve.series, *_thinned(curve)) for curve in curves]
    return draw_lines(f"curves-{number}-{_slug(stage)}", "curves", stage, series, across="steps")


def draw_lines(
    name: str,
    kind: Literal["label", "curves"],
    title: str,
    series: Sequence[tuple[str, np.ndarray, np.ndarray]],
    *,
    across: str,
    caption: str = "",
) -> Figure:
    """Lines (name, x `[n]`, y `[n]`) in one panel. Along the label each point has a dot and the
    vertical axis starts at 0; of curves lone points have one, and the axis is logarithmic where
    positive values span a factor of 50.
    """
    legend = []
    along = kind == "label"
    with panel(name) as (drawing, axes):
        lowest, highest = np.inf, -np.inf
        for index, (label, x, y) in enumerate(series):
            colour, dashed = SERIES[index % len(SERIES)], index >= len(SERIES)
            axes.plot(
                x,
                y,
                color=LIGHT[colour],
                linestyle=(0, (2, 1.5)) if dashed else "-",
                label=label,
                marker="o" if along or x.size == 1 else None,
            )
            legend.append((label, colour, dashed))
            lowest, highest = min(lowest, y.min(initial=np.inf)), max(highest, y.max(initial=0.0))
        if along:
            axes.set_ylim(bottom=0)
        elif lowest > 0 and highest > 50 * lowest:
            axes.set_yscale("log")
            plain_numbers(axes.yaxis)
        axes.margins(x=0.02)
        axes.set_xlabel(across)
        return Figure(name, kind, title, caption, *save(drawing, name), tuple(legend))


def _thinned(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    x, y = _finite(curve.x, curve.y)
    if x.size <= POINTS:
        return x, y
    starts = np.linspace(0, x.size, POINTS, endpoint=False).astype(int)
    sizes = np.diff(np.append(starts, x.size))
    return np.add.reduceat(x, starts) / sizes, np.add.reduceat(y, starts) / sizes


def _finite(x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """The points of a line at which both coordinates are finite; None is not."""
    points = np.array([x, y], np.float64)
    x, y = points[:, np.isfinite(points).all(axis=0)]
    return x, y


def draw_label_figures(facts: ReportFacts, labels: Mapping[str, np.ndarray]) -> list[Figure]:
    """The panels along the label, in the order of the pipeline."""
    space, record = facts.space, facts.record.labels
    assert space.task == "regression"  # as the facts have checked
    assert record is not None
    across = f"label, {space.unit}"
    figures = [
        _draw_labels(labels, (space.low, space.high), across),
        _draw_teacher_error(facts, labels["raw"], across),
    ]
    if record.fidelity is not None:
        figures.append(
            _draw_along("label-fidelity", "Fréchet distance", "", record.fidelity, across)
        )
    if record.label_score is not None:
        unit = f" {space.unit}"
        figures.append(_draw_along("label-score", "Label Score", unit, record.label_score, across))
    middles = (space.edges[:-1] + space.edges[1:]) / 2
    figures.append(
        draw_lines(
            "label-mae",
            "label",
            "Students: MAE against the label",
            [(arm, *_finite(middles, error)) for arm, error in record.mae.items()],
            across=across,
            caption=f"{space.unit}, on the test images of each part of the range; mean over seeds",
        )
    )
    return figures


def _draw_labels(
    labels: Mapping[str, np.ndarray], limits: tuple[float, float], across: str
) -> Figure:
    """How often each label occurs: in the reals, in the pool, and after selection."""
    name = "label-histogram"
    edges = np.linspace(*limits, BARS + 1)
    legend = (("real", "c7", False), ("raw", "c1", False), KEPT)
    area: dict[str, Any] = {"baseline": 0, "fill": True, "alpha": 0.4, "linewidth": 0}
    line: dict[str, Any] = {"baseline": None, "linewidth": 1.6}
    with panel(name) as (drawing, axes):
        for label, colour, _ in legend:
            share = 100 * np.histogram(labels[label], edges)[0] / max(len(labels[label]), 1)
            look = area if label == "real" else line
            axes.stairs(share, edges, color=LIGHT[colour], label=label, **look)
        axes.set(xlim=limits, xlabel=across, ylabel="% of images")
        images = save(drawing, name)
    caption = "real training images, the raw pool, and what was kept, with its final labels"
    return Figure(name, "label", "Labels", caption, *images, legend, filled=True)


def _draw_teacher_error(facts: ReportFacts, pool: np.ndarray, across: str) -> Figure:
    """A dot for each of some samples, over the label it was made for."""
    name = "label-teacher-error"
    error, kept = facts.teacher_error, facts.was_kept
    rows = np.flatnonzero(np.isfinite(error))
    rows = np.random.default_rng(0).permutation(rows)[:DOTS]
    top = float(np.quantile(error[rows], 0.99)) if rows.size else 1.0
    look: dict[str, Any] = {"markersize": 2.2, "markeredgewidth": 0, "alpha": 0.6}
    with panel(name) as (drawing, axes):
        for (label, colour, _), side in ((DROPPED, False), (KEPT, True)):
            x = rows[kept[rows] == side]
            y = np.minimum(error[x], top)
            axes.plot(pool[x], y, "o", color=LIGHT[colour], label=label, **look)
        axes.set_ylim(bottom=0)
        axes.margins(x=0.02)
        axes.set_xlabel(across)
        images = save(drawing, name)
    caption = (
        f"|teacher − assigned label|, {facts.metric.unit}; {rows.size:,} samples at random, "
        "the highest hundredth at the top"
    )
    title = "Teacher error against the label"
    return Figure(name, "label", title, caption, *images, (DROPPED, KEPT), filled=True)


def _draw_along(name: str, title: str, unit: str, along: AlongRecord, across: str) -> Figure:
    """The raw pool and what was kept, window by window."""
    raw, kept = (f"{value:.3g}{unit}" for value in along.overall)
    series = {"kept": along.kept, "raw": along.raw}
    return draw_lines(
        name,
        "label",
        f"{title}: raw {raw}, kept {kept}",
        [(label, *_finite(along.centre, values)) for label, values in series.items()],
        across=across,
        caption=f"{along.caption}; less is better",
    )
