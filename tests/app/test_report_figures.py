"""Figures of the report: grids, curves, axes, dots and bars."""

import io
import itertools
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from cgankd.app.pages import COLOURS
from cgankd.app.pages.figures import POINTS, SERIES, draw_curves, draw_figures, draw_grid
from cgankd.app.pages.records import Curve, ImageGrid
from cgankd.app.pages.report import dot_plot, flattened, group_bars, ticks
from tests.app.small_report import facts_of_a_continuous_run, facts_of_a_run


@given(
    arrays.arrays(
        np.uint8,
        st.tuples(st.integers(1, 7), st.sampled_from([1, 3]), *[st.integers(8, 50)] * 2),
    ),
    st.integers(1, 4),
)
@settings(max_examples=30, deadline=None)
def test_a_grid_holds_every_image_unchanged(pixels: np.ndarray, columns: int) -> None:
    """Row by row, with a see-through gap; nothing is resized."""
    figure = draw_grid(ImageGrid("kept", pixels, "", columns))

    canvas = np.asarray(Image.open(io.BytesIO(figure.png)))
    seen = np.ones(canvas.shape[:2], bool)
    _, _, height, width = pixels.shape
    gap = max(1, width // 24)
    for index, image in enumerate(pixels):
        top = index // columns * (height + gap)
        left = index % columns * (width + gap)
        place = canvas[top : top + height, left : left + width]
        np.testing.assert_array_equal(
            place[..., :3], np.broadcast_to(image, (3, height, width)).transpose(1, 2, 0)
        )
        assert (place[..., 3] == 255).all()
        seen[top : top + height, left : left + width] = False
    assert (canvas[seen] == 0).all()


def test_figures_take_every_colour_from_the_page() -> None:
    """So they are as readable in the dark as in the light; settings outside stay as they were."""
    import matplotlib

    before = dict(matplotlib.rcParams)
    both = (facts_of_a_run(), facts_of_a_continuous_run())
    classes, numbers = ([f for f in draw_figures(facts) if f.kind != "grid"] for facts in both)
    drawn = classes + numbers

    assert [figure.name for figure in classes] == [
        "density-ratio",
        "teacher-error",
        "curves-1-generator-loss",
        "curves-2-teacher-loss",
    ]
    assert [figure.name for figure in numbers if figure.kind == "label"] == [
        "label-histogram",
        "label-teacher-error",
        "label-fidelity",
        "label-score",
        "label-mae",
    ]
    for figure in drawn:
        assert re.findall(r"#[0-9a-fA-F]{3,8}\b(?=[;\"' ])", figure.svg) == []
        assert set(re.findall(r"var\(--(\w+)\)", figure.svg)) <= set(COLOURS)
        assert Image.open(io.BytesIO(figure.png)).size[0] == 1000
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("theme", [0, 1])
def test_colours_can_be_told_from_the_ground_in_both_themes(theme: int) -> None:
    """WCAG 2.1: 4.5 to 1 for text, 3 to 1 for what is drawn; no colour stands for two."""

    def luminance(colour: str) -> float:
        parts = [int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for name, ground in itertools.product(("ink", "muted", *SERIES), ("page", "card")):
        light, dark = sorted((luminance(COLOURS[n][theme]) for n in (name, ground)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= (4.5 if name in ("ink", "muted") else 3)
    assert len({pair[theme] for pair in COLOURS.values()}) == len(COLOURS)


def test_long_curves_are_averaged_and_gaps_left_out() -> None:
    """A constant stays constant and a line stays a line, whatever the number of points."""
    steps = np.arange(10 * POINTS, dtype=float)
    values = np.where(steps % 7 == 0, np.nan, 5.0)

    figure = draw_curves("loss", [Curve("loss", "a", steps, values)])

    (path,) = re.findall(r'<path d="([^"]*)" clip-path', figure.svg)[-1:]
    heights = {float(y) for y in re.findall(r"[ML] \S+ (\S+)", path)}
    assert max(heights) - min(heights) < 1e-6


@given(st.floats(0, 100), st.floats(0, 100))
def test_the_axis_covers_its_values_with_few_round_numbers(a: float, b: float) -> None:
    """Every dot stands between the first and the last mark."""
    low, high = sorted((a, b))
    marks = ticks(low, high)

    assert marks[0] <= low + 1e-6
    assert marks[-1] >= high - 1e-6
    assert 2 <= len(marks) <= 8


def test_dots_and_bars_stand_where_their_numbers_say() -> None:
    """Positions are percent of the axis, widths percent of the largest class."""
    facts = facts_of_a_run()
    plot = dot_plot(facts)

    assert [text for _, text in plot["ticks"]] == ["80", "82", "84", "86", "88"]
    assert plot["baseline"] == 25.0
    assert plot["rows"][1]["dots"] == [37.5, 62.5, 100.0]
    assert group_bars(facts.record)[0]["parts"] == [("c0", 75.0), ("c1", 25.0)]
    assert group_bars(facts.record)[1]["parts"] == [("c0", 25.0), ("c2", 25.0)]
    assert list(flattened({"a": {"b": [1, 2]}, "c": None})) == [("a.b", "1, 2"), ("c", "–")]
