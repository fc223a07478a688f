"""The page of `cgankd check`: what stands in check.json, with pairs of images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from typing import Any

import numpy as np

from cgankd.app.pages.check_words import RATIO_WORDS, SHARES, STEP_WORDS, WORDS, headline
from cgankd.app.pages.report_drawing import COLOURS
from cgankd.app.pages.report_facts import ImageGrid
from cgankd.app.pages.report_figures import draw_grid
from cgankd.app.pages.report_page import data_uri, number, page_templates, percent
from cgankd.shardset.labels import LabelSpace

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
    return (
        page_templates()
        .get_template("check.html.j2")
        .render(
            title=title,
            space=space,
            facts=facts,
            headlines=[
                (percent(value) if name in SHARES else number(value), headline(name, space))
                for name, value in facts["overall"].items()
            ],
            words=WORDS,
            step_words=STEP_WORDS,
            ratio=[
                (name, facts["ratio"]["overall"][name], said)
                for name, said in RATIO_WORDS.items()
                if name in facts["ratio"]["overall"]
            ],
            overall=[
                (metric, list(rows))
                for metric, rows in groupby(
                    sorted(
                        (row for row in facts["metrics"] if row["kind"] == "all"),
                        key=lambda row: list(WORDS).index(row["metric"]),
                    ),
                    key=itemgetter("metric"),
                )
            ],
            by_label=_table(facts["metrics"], "group"),
            by_window=_table(facts["metrics"], "window"),
            colours=COLOURS,
            width=PAIR_WIDTH,
            pairs={
                kind: [(pair.caption, _address(pair)) for pair in found]
                for kind, found in pairs.items()
            },
        )
    )


def _table(metrics: Sequence[Mapping[str, Any]], kind: str) -> dict[str, Any]:
    """The numbers of one kind: a row for each place, a column for each metric and reference."""
    rows: dict[str, dict[tuple[str, str], float | None]] = {}
    columns: dict[tuple[str, str], None] = {}
    for row in metrics:
        if row["kind"] == kind:
            split, beside = row["judge"]["split"], "on" if row["references"] is None else "against"
            column = row["metric"].replace("_", " "), f"{beside} {split}" if split else ""
            columns[column] = None
            rows.setdefault(row["place"], {})[column] = row["value"]
    return {
        "columns": list(columns),
        "rows": [(place, [found.get(c) for c in columns]) for place, found in rows.items()],
    }


def _address(pair: Pair) -> str:
    grid = ImageGrid("pair", np.stack([pair.first, pair.second]), pair.caption, columns=2)
    return data_uri(draw_grid(grid).png)
