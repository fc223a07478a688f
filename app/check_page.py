"""The page of `cgankd check`: what stands in check.json, with pairs of images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.report_drawing import COLOURS
from app.report_facts import ImageGrid
from app.report_figures import draw_grid
from app.report_page import data_uri, page_templates
from shardset.labels import LabelSpace

PAIR_WIDTH = 132  # CSS pixels that two images take


@dataclass(frozen=True)
class Pair:
    """Two images that are alike, uint8 `[c, h, w]`, and what is to be said of them."""

    first: np.ndarray
    second: np.ndarray
    caption: str


def render_check(
    title: str, space: LabelSpace, facts: Mapping[str, Any], pairs: Mapping[str, Sequence[Pair]]
) -> str:
    """The page's HTML; every text is escaped, nothing is loaded from elsewhere."""
    overall = [row for row in facts["metrics"] if row["kind"] == "all"]
    return (
        page_templates()
        .get_template("check.html.j2")
        .render(
            title=title,
            space=space,
            facts=facts,
            overall=overall,
            colours=COLOURS,
            width=PAIR_WIDTH,
            pairs={
                kind: [(pair.caption, _address(pair)) for pair in found]
                for kind, found in pairs.items()
            },
        )
    )


def _address(pair: Pair) -> str:
    grid = ImageGrid("pair", np.stack([pair.first, pair.second]), pair.caption, columns=2)
    return data_uri(draw_grid(grid).png)
