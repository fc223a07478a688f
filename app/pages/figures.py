"""The report's figures: as PNG for slides, and as SVG that takes the page's colours."""

import io

import numpy as np

from cgankd.app.pages.drawing import (
    Figure,
    draw_lines,
    light,
    panel,
    plain_numbers,
    save,
    slug,
    style,
)
from cgankd.app.pages.facts import Curve, ImageGrid, LabelFacts, ReportFacts
from cgankd.app.pages.records import AlongRecord

BINS = 60
POINTS = 300  # of a curve: more is noise at this size
GRID_WIDTH = 520  # CSS pixels: two grids stand side by side on a wide page
STRIP_WIDTH = 1072  # CSS pixels: the whole of a wide page, for a grid with an axis
IMAGE_WIDTH = 64  # CSS pixels one image is enlarged to at most

BARS = 20  # few enough that a pool made for evenly spaced labels looks even
DOTS = 1500  # more would hide each other, and make a large page


def draw_figures(facts: ReportFacts) -> list[Figure]:
    """The figures of a report: image grids, histograms, panels along the label and over steps."""
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
        what = (
            "cross-entropy of the assigned label"
            if facts.space.task == "classification"
            else f"|teacher − assigned label|, {facts.space.unit}"
        )
        caption = f"{what}; the last bar holds everything beyond"
        figures.append(
            draw_histogram(
                "teacher-error", "Teacher error", caption, error, facts.was_kept, log=False
            )
        )
    if facts.labels is not None:
        figures += draw_label_figures(facts, facts.labels)
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
    with style(name):
        drawing, axes = panel()
        axes.stairs(counts[0], edges, fill=True, color=light("c0"), label="kept")
        axes.stairs(
            counts[0] + counts[1],
            edges,
            baseline=counts[0],
            fill=True,
            color=light("c7"),
            label="dropped",
        )
        if log:
            axes.set_xscale("log")
            plain_numbers(axes.xaxis)
            axes.axvline(1.0, color=light("ink"), linewidth=0.8, linestyle=(0, (3, 3)))
        axes.set_xlim(edges[0], edges[-1])
        axes.set_ylabel("samples")
        legend = (("kept", "c0", False), ("dropped", "c7", False))
        return Figure(name, "histogram", title, caption, *save(drawing, name), legend, filled=True)


def draw_curves(stage: str, curves: list[Curve], number: int = 1) -> Figure:
    """The curves of one stage in one panel; long ones are averaged to `POINTS` points."""
    series = [(curve.series, *_thinned(curve)) for curve in curves]
    return draw_lines(f"curves-{number}-{slug(stage)}", "curves", stage, series, across="steps")


def draw_grid(grid: ImageGrid, number: int = 1) -> Figure:
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
    widest = STRIP_WIDTH if grid.axis else GRID_WIDTH
    scale = max(1.0, min(widest / canvas.shape[1], IMAGE_WIDTH / width))
    shown = int(canvas.shape[1] * (int(scale) if scale >= 2 else scale))
    name = f"images-{number}-{slug(grid.name)}"
    return Figure(
        name,
        "grid",
        grid.name,
        grid.caption,
        file.getvalue(),
        width=shown,
        enlarged=scale > 1,
        axis=grid.axis,
    )


def ticks(low: float, high: float) -> list[float]:
    """Round numbers from at or below `low` to at or above `high`, four to six of them."""
    from matplotlib.ticker import MaxNLocator

    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    locator = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10])
    return [float(mark) for mark in locator.tick_values(low, high)]


def _thinned(curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    x, y = _finite(np.asarray(curve.x, np.float64), np.asarray(curve.y, np.float64))
    if x.size <= POINTS:
        return x, y
    starts = np.linspace(0, x.size, POINTS, endpoint=False).astype(int)
    sizes = np.diff(np.append(starts, x.size))
    return np.add.reduceat(x, starts) / sizes, np.add.reduceat(y, starts) / sizes


def draw_label_figures(facts: ReportFacts, labels: LabelFacts) -> list[Figure]:
    """The panels along the label, in the order of the pipeline."""
    space = facts.space
    assert space.task == "regression"  # as the facts have checked
    across = f"label, {space.unit}"
    figures = [
        _draw_labels(labels, (space.low, space.high), across),
        _draw_teacher_error(facts, labels.pool, across),
    ]
    for name, title, unit, along in (
        ("label-fidelity", "Fréchet distance", "", labels.fidelity),
        ("label-score", "Label Score", f" {space.unit}", labels.score),
    ):
        if along is not None:
            figures.append(_draw_along(name, title, unit, along, across))
    middles = (space.edges[:-1] + space.edges[1:]) / 2
    arms = [(arm, *_finite(middles, error)) for arm, error in labels.mae.items()]
    figures.append(
        draw_lines(
            "label-mae",
            "label",
            "Students: MAE against the label",
            arms,
            across=across,
            caption=f"{space.unit}, on the test images of each part of the range; mean over seeds",
            dots=True,
            from_zero=True,
        )
    )
    return figures


def _draw_labels(labels: LabelFacts, limits: tuple[float, float], across: str) -> Figure:
    """How often each label occurs: in the reals, in the pool, and after selection."""
    name = "label-histogram"
    edges = np.linspace(*limits, BARS + 1)
    with style(name):
        drawing, axes = panel()
        series = (
            ("real", "c7", labels.real),
            ("raw", "c1", labels.pool),
            ("kept", "c0", labels.kept),
        )
        for label, colour, values in series:
            share = 100 * np.histogram(values, edges)[0] / max(len(values), 1)
            real = label == "real"
            axes.stairs(
                share,
                edges,
                baseline=0 if real else None,
                fill=real,
                color=light(colour),
                alpha=0.4 if real else None,
                linewidth=0 if real else 1.6,
                label=label,
            )
        axes.set_xlim(*limits)
        axes.set_xlabel(across)
        axes.set_ylabel("% of images")
        caption = "real training images, the raw pool, and what was kept, with its final labels"
        legend = tuple((label, colour, False) for label, colour, _ in series)
        images = save(drawing, name)
        return Figure(name, "label", "Labels", caption, *images, legend, filled=True)


def _draw_teacher_error(facts: ReportFacts, pool: np.ndarray, across: str) -> Figure:
    """A dot for each of some samples, over the label it was made for."""
    name = "label-teacher-error"
    error, kept = facts.teacher_error, facts.was_kept
    rows = np.flatnonzero(np.isfinite(error))
    rows = np.random.default_rng(0).permutation(rows)[:DOTS]
    top = float(np.quantile(error[rows], 0.99)) if rows.size else 1.0
    with style(name):
        drawing, axes = panel()
        series = (("dropped", "c7", False), ("kept", "c0", True))
        for label, colour, side in series:
            some = rows[kept[rows] == side]
            axes.plot(
                pool[some],
                np.minimum(error[some], top),
                linestyle="none",
                marker="o",
                markersize=2.2,
                markeredgewidth=0,
                alpha=0.6,
                color=light(colour),
                label=label,
            )
        axes.set_ylim(bottom=0)
        axes.margins(x=0.02)
        axes.set_xlabel(across)
        title = "Teacher error against the label"
        caption = (
            f"|teacher − assigned label|, {facts.metric.unit}; {rows.size:,} samples at random, "
            "the highest hundredth at the top"
        )
        legend = tuple((label, colour, False) for label, colour, _ in series)
        return Figure(name, "label", title, caption, *save(drawing, name), legend, filled=True)


def _draw_along(name: str, title: str, unit: str, along: AlongRecord, across: str) -> Figure:
    """The raw pool and what was kept, window by window."""
    raw, kept = (f"{value:.3g}{unit}" for value in along.overall)
    return draw_lines(
        name,
        "label",
        f"{title}: raw {raw}, kept {kept}",
        [
            (name, *_finite(np.array(along.centre), np.array(values, np.float64)))
            for name, values in (("kept", along.kept), ("raw", along.raw))
        ],
        across=across,
        caption=f"{along.caption}; less is better",
        dots=True,
        from_zero=True,
    )


def _finite(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The points of a line at which both coordinates are finite."""
    finite = np.isfinite(x) & np.isfinite(y)
    return x[finite], y[finite]
