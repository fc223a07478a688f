"""How a figure is made: its colours, its style, its lines, and its two forms, PNG and SVG."""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure as Drawing

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
INCHES = (5.0, 2.7)


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


def draw_lines(
    name: str,
    kind: Literal["label", "curves"],
    title: str,
    series: Sequence[tuple[str, np.ndarray, np.ndarray]],
    *,
    across: str,
    caption: str = "",
    dots: bool = False,
    from_zero: bool = False,
) -> Figure:
    """Lines (name, x `[n]`, y `[n]`) in one panel, with a dot at each point or just at lone ones.

    The vertical axis starts at 0, or is logarithmic where positive values span a factor of 50.
    """
    legend = []
    with style(name):
        drawing, axes = panel()
        lowest, highest = np.inf, -np.inf
        for index, (label, x, y) in enumerate(series):
            colour, dashed = SERIES[index % len(SERIES)], index >= len(SERIES)
            axes.plot(
                x,
                y,
                color=light(colour),
                linestyle=(0, (2, 1.5)) if dashed else "-",
                label=label,
                marker="o" if dots or x.size == 1 else None,
                markersize=3,
            )
            legend.append((label, colour, dashed))
            lowest, highest = min(lowest, y.min(initial=np.inf)), max(highest, y.max(initial=0.0))
        if from_zero:
            axes.set_ylim(bottom=0)
        elif lowest > 0 and highest > 50 * lowest:
            axes.set_yscale("log")
            plain_numbers(axes.yaxis)
        axes.margins(x=0.02)
        axes.set_xlabel(across)
        return Figure(name, kind, title, caption, *save(drawing, name), tuple(legend))


def light(name: str) -> str:
    """A colour of the light theme, as `#rrggbb`."""
    return COLOURS[name][0]


@contextmanager
def style(salt: str) -> Iterator[None]:
    """Matplotlib's settings for one figure; the salt makes the ids of its SVG the same each run."""
    import matplotlib

    ink, muted, line = light("ink"), light("muted"), light("line")
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
        "figure.facecolor": light("card"),
        "figure.constrained_layout.use": True,
        "legend.frameon": False,
    }
    with matplotlib.rc_context(settings):
        yield


def panel() -> "tuple[Drawing, Axes]":
    """A figure made without pyplot, so that nothing global remembers it."""
    from matplotlib.figure import Figure as Drawing

    drawing = Drawing(figsize=INCHES)
    axes = drawing.add_subplot()
    axes.grid(axis="x", visible=False)
    axes.tick_params(axis="y", which="both", length=0)
    axes.tick_params(axis="x", which="minor", length=0)
    return drawing, axes


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
    for colour, (light, _) in COLOURS.items():
        svg = svg.replace(light, f"var(--{colour})")
    svg = svg.replace("xlink:href", "href")
    return re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", svg)


def slug(text: str) -> str:
    """A text as a part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
