"""The figures along a continuous label: labels, the teacher, fidelity and students against it."""

from typing import TYPE_CHECKING

import numpy as np

from cgankd.app.pages.report_drawing import Figure, draw_lines, light, panel, save, style

if TYPE_CHECKING:
    from cgankd.app.pages.report_facts import Along, LabelFacts, ReportFacts

BARS = 20  # few enough that a pool made for evenly spaced labels looks even
DOTS = 1500  # more would hide each other, and make a large page


def draw_label_figures(facts: "ReportFacts", labels: "LabelFacts") -> list[Figure]:
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


def _draw_labels(labels: "LabelFacts", limits: tuple[float, float], across: str) -> Figure:
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


def _draw_teacher_error(facts: "ReportFacts", pool: np.ndarray, across: str) -> Figure:
    """A dot for each of some samples, over the label it was made for."""
    name = "label-teacher-error"
    error, kept = facts.teacher_error, facts.was_kept
    chosen = np.flatnonzero(np.isfinite(error))
    chosen = np.random.default_rng(0).permutation(chosen)[:DOTS]
    top = float(np.quantile(error[chosen], 0.99)) if chosen.size else 1.0
    with style(name):
        drawing, axes = panel()
        series = (("dropped", "c7", False), ("kept", "c0", True))
        for label, colour, side in series:
            some = chosen[kept[chosen] == side]
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
            f"|teacher − assigned label|, {facts.metric.unit}; {chosen.size:,} samples at random, "
            "the highest hundredth at the top"
        )
        legend = tuple((label, colour, False) for label, colour, _ in series)
        return Figure(name, "label", title, caption, *save(drawing, name), legend, filled=True)


def _draw_along(name: str, title: str, unit: str, along: "Along", across: str) -> Figure:
    """The raw pool and what was kept, window by window."""
    raw, kept = (f"{value:.3g}{unit}" for value in along.overall)
    return draw_lines(
        name,
        "label",
        f"{title}: raw {raw}, kept {kept}",
        [
            ("kept", *_finite(along.centre, along.kept)),
            ("raw", *_finite(along.centre, along.raw)),
        ],
        across=across,
        caption=f"{along.caption}; less is better",
        dots=True,
        from_zero=True,
    )


def _finite(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    finite = np.isfinite(y)
    return x[finite], y[finite]
