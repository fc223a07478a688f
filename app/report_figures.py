"""The report's figures: as PNG for slides, and as SVG that takes the page's colours."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure as Drawing

    from app.report import Curve, ImageGrid, ReportFacts

# Every colour of page and figures: name → (light, dark). A figure is drawn in the light ones;
# its SVG then names them, so that the page's style sheet decides. They must differ pairwise.
COLOURS = {
    "ink": ("#1b1f24", "#e8eaed"),
    "muted": ("#5c6370", "#9aa2ae"),
    "line": ("#dfe2e7", "#33383f"),
    "page": ("#fafaf8", "#14171a"),
    "card": ("#ffffff", "#1b1f23"),
    "c0": ("#0f766e", "#35c9b5"),
    "c1": ("#c2500c", "#f0935a"),
    "c2": ("#4f52c9", "#9ca3f7"),
    "c3": ("#a8820b", "#e3c04f"),
    "c4": ("#b82a68", "#ee7fb0"),
    "c5": ("#0b6fa8", "#5db7ee"),
    "c6": ("#5a7d12", "#a4cc54"),
    "c7": ("#8b929c", "#767e89"),
}
SERIES = ("c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7")
BINS = 60
POINTS = 300  # of a curve: more is noise at this size
INCHES = (5.0, 2.7)
GRID_WIDTH = 520  # CSS pixels: two grids stand side by side on a wide page
IMAGE_WIDTH = 64  # CSS pixels one image is enlarged to at most


@dataclass(frozen=True)
class Figure:
    """One picture of the page."""

    name: str  # the file's name in figures/, without its ending
    kind: Literal["histogram", "curves", "grid"]
    title: str
    caption: str
    png: bytes
    svg: str = ""  # for the page, without legend; empty for a grid, which is shown as PNG
    legend: tuple[tuple[str, str, bool], ...] = ()  # (name, colour's name, dashed) of each series
    width: int = 0  # of a grid: the width to show it at, in CSS pixels
    enlarged: bool = False  # a grid whose pixels are to be seen as such


def draw_figures(facts: "ReportFacts") -> list[Figure]:
    """The figures of a report: image grids, histograms, one panel of curves per stage."""
    figures = [draw_grid(grid, number) for number, grid in enumerate(facts.grids, 1)]
    ratio, error = facts.density_ratio, facts.teacher_error
    if np.isfinite(ratio).any():
        zeros = int((ratio == 0).sum())
        caption = "log scale; 1 is where real and generated images are equally likely"
        figures.append(
            draw_histogram(
                "density-ratio",
                "Density ratio",
                caption + (f"; {zeros:,} zeros stand at the left edge" if zeros else ""),
                ratio,
                facts.was_kept,
                log=True,
            )
        )
    if np.isfinite(error).any():
        caption = "cross-entropy of the assigned label; the last bar holds everything beyond"
        figures.append(
            draw_histogram(
                "teacher-error", "Teacher error", caption, error, facts.was_kept, log=False
            )
        )
    stages = dict.fromkeys(curve.stage for curve in facts.curves)
    for number, stage in enumerate(stages, 1):
        curves = [curve for curve in facts.curves if curve.stage == stage]
        figures.append(draw_curves(stage, curves, number))
    return figures


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
    middle = np.clip(values, edges[0], np.nextafter(edges[-1], edges[0]))
    counts = [np.histogram(middle[kept == side], edges)[0] for side in (True, False)]
    with _style(name):
        drawing, axes = _axes()
        axes.stairs(counts[0], edges, fill=True, color=_light("c0"), label="kept")
        axes.stairs(
            counts[0] + counts[1],
            edges,
            baseline=counts[0],
            fill=True,
            color=_light("c7"),
            label="dropped",
        )
        if log:
            axes.set_xscale("log")
            _plain_numbers(axes.xaxis)
            axes.axvline(1.0, color=_light("ink"), linewidth=0.8, linestyle=(0, (3, 3)))
        axes.set_xlim(edges[0], edges[-1])
        axes.set_ylabel("samples")
        legend = (("kept", "c0", False), ("dropped", "c7", False))
        return Figure(name, "histogram", title, caption, *_save(drawing, name), legend)


def draw_curves(stage: str, curves: "list[Curve]", number: int = 1) -> Figure:
    """The curves of one stage in one panel; long ones are averaged to `POINTS` points."""
    name = f"curves-{number}-{_slug(stage)}"
    legend = []
    with _style(name):
        drawing, axes = _axes()
        lowest, highest = np.inf, -np.inf
        for index, curve in enumerate(curves):
            x, y = _thinned(curve)
            colour, dashed = SERIES[index % len(SERIES)], index >= len(SERIES)
            axes.plot(
                x,
                y,
                color=_light(colour),
                linestyle=(0, (2, 1.5)) if dashed else "-",
                label=curve.series,
                marker="o" if x.size == 1 else None,
                markersize=3,
            )
            legend.append((curve.series, colour, dashed))
            lowest, highest = min(lowest, y.min(initial=np.inf)), max(highest, y.max(initial=0.0))
        if lowest > 0 and highest > 50 * lowest:
            axes.set_yscale("log")
            _plain_numbers(axes.yaxis)
        axes.margins(x=0.02)
        axes.set_xlabel("steps")
        return Figure(name, "curves", stage, "", *_save(drawing, name), tuple(legend))


def draw_grid(grid: "ImageGrid", number: int = 1) -> Figure:
    """Images side by side at their own size, with a transparent pixel between; to be enlarged."""
    from PIL import Image

    pixels = grid.pixels
    count, _, height, width = pixels.shape
    columns = max(1, min(grid.columns, count))
    rows = -(-count // columns)
    # One pixel of gap is seen at any enlargement; large images get more.
    gap = max(1, width // 24)
    canvas = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, 4), np.uint8)
    for index in range(count):
        row, column = divmod(index, columns)
        top, left = row * (height + gap), column * (width + gap)
        place = canvas[top : top + height, left : left + width]
        place[..., :3] = pixels[index].transpose(1, 2, 0)  # one channel fills three
        place[..., 3] = 255
    file = io.BytesIO()
    Image.fromarray(canvas).save(file, format="png", optimize=True)
    scale = max(1.0, min(GRID_WIDTH / canvas.shape[1], IMAGE_WIDTH / width))
    shown = int(canvas.shape[1] * (int(scale) if scale >= 2 else scale))
    name = f"images-{number}-{_slug(grid.name)}"
    return Figure(
        name, "grid", grid.name, grid.caption, file.getvalue(), width=shown, enlarged=scale > 1
    )


def ticks(low: float, high: float) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`, four to six of them."""
    from matplotlib.ticker import MaxNLocator

    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    locator = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10])
    return [float(mark) for mark in locator.tick_values(low, high)]


def _thinned(curve: "Curve") -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(curve.x, np.float64), np.asarray(curve.y, np.float64)
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = x[finite], y[finite]
    if x.size <= POINTS:
        return x, y
    starts = np.linspace(0, x.size, POINTS, endpoint=False).astype(int)
    sizes = np.diff(np.append(starts, x.size))
    return np.add.reduceat(x, starts) / sizes, np.add.reduceat(y, starts) / sizes


def _light(name: str) -> str:
    return COLOURS[name][0]


@contextmanager
def _style(salt: str) -> Iterator[None]:
    """Matplotlib's settings for one figure; the salt makes the ids of its SVG the same each run."""
    import matplotlib

    ink, muted, line = _light("ink"), _light("muted"), _light("line")
    settings: Any = {
        "svg.hashsalt": salt,
        "svg.fonttype": "none",  # text stays text: it can be selected and read aloud
        "font.family": ["DejaVu Sans"],
        "font.size": 9.5,
        "text.color": ink,
        "text.parse_math": False,
        "axes.edgecolor": line,
        "axes.labelcolor": muted,
        "axes.facecolor": "none",
        "axes.linewidth": 0.8,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "grid.color": line,
        "grid.linewidth": 0.6,
        "xtick.color": line,
        "ytick.color": line,
        "xtick.labelcolor": muted,
        "ytick.labelcolor": muted,
        "xtick.minor.visible": False,
        "lines.linewidth": 1.4,
        "figure.facecolor": _light("card"),
        "figure.constrained_layout.use": True,
        "legend.frameon": False,
    }
    with matplotlib.rc_context(settings):
        yield


def _axes() -> "tuple[Drawing, Axes]":
    """A figure made without pyplot, so that nothing global remembers it."""
    from matplotlib.figure import Figure as Drawing

    drawing = Drawing(figsize=INCHES)
    axes = drawing.add_subplot()
    axes.grid(axis="x", visible=False)
    axes.tick_params(axis="y", which="both", length=0)
    axes.tick_params(axis="x", which="minor", length=0)
    return drawing, axes


def _plain_numbers(axis: "Axis") -> None:
    """Writes 0.01 on a log axis, not a power in mathematical markup."""
    from matplotlib.ticker import NullFormatter, StrMethodFormatter

    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_formatter(NullFormatter())


def _save(drawing: "Drawing", name: str) -> tuple[bytes, str]:
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
    for colour, (light, _) in COLOURS.items():
        svg = svg.replace(light, f"var(--{colour})")
    svg = svg.replace("xlink:href", "href")
    return re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", svg)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
