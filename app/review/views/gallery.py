"""The gallery: a filter in the sidebar, and pages of thumbnails to pick from and to judge."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st

from cgankd.app.review.state import (
    COLUMN_NAMES,
    SORTABLE,
    UNREVIEWED,
    Filter,
    ReviewState,
    matching,
    ordered,
    page,
    pages,
)
from cgankd.app.review.subject import SCORES, Subject
from cgankd.app.review.views import (
    drop_text,
    errors_shown,
    mark_read,
    opened,
    plain,
    reviewer,
    started,
)
from cgankd.app.review.views.one_by_one import draw_sample, give
from cgankd.curation.policies.selection import REASONS
from cgankd.shardset.errors import BadInput, CgankdError
from cgankd.shardset.places import stored_pictures
from cgankd.shardset.reviews import VERDICTS

GRID = "cgankd.grid"
SIZES = (200, 50, 500, 1000)
DECISIONS = {"all": None, "kept": True, "dropped": False}
SHOWN_VERDICTS = (UNREVIEWED, *(name for name in VERDICTS if name != "clear"))
SIDES = {"small": 64, "medium": 96, "large": 144}


def draw() -> None:
    """Draws filter, grid and what was clicked."""
    state = opened()
    subject = state.subject
    for note in subject.notes:
        st.info(plain(note))
    wanted, by, descending = _filter_controls(subject)
    rows = ordered(subject, state.verdict, matching(subject, state.verdict, wanted), by, descending)
    st.session_state["rows"] = rows
    if message := st.session_state.pop("message", None):
        st.error(plain(message))
    if not rows.size:
        st.info("No sample matches this filter. Take something out of it in the sidebar.")
        return
    number, size, side = _page_controls(rows)
    grid = {
        "cells": _cells(state, page(rows, number, size), by),
        "matching": len(rows),
        "side": side,  # of an image, in pixels
        "names": list(subject.space.names) if subject.space.task == "classification" else None,
    }
    _grid()(key=GRID, data=grid, on_act_change=_act)
    looked_at = st.session_state.pop("looked_at", None)
    if looked_at is not None:
        _enlarged(state, looked_at)


@cache
def _grid() -> Callable[..., Any]:
    """What draws thumbnails with a toolbar and keys as one element for a whole page of samples."""
    here = Path(__file__).parent
    return st.components.v2.component(
        GRID, css=(here / "grid.css").read_text(), js=(here / "grid.js").read_text()
    )


def _page_controls(rows: np.ndarray) -> tuple[int, int, int]:
    """The page's number from 0, its size, and the side of its images in pixels."""
    held = st.session_state
    with st.container(horizontal=True, vertical_alignment="bottom"):
        size = st.selectbox("A page has", SIZES, key="filter.size", width=110)
        look = st.selectbox("Images", list(SIDES), key=started("filter.side", "medium"), width=120)
        last = pages(rows, size)
        held["filter.page"] = min(max(int(held.get("filter.page", 1)), 1), last)
        st.button("Previous page", disabled=held["filter.page"] <= 1, on_click=_turn, args=(-1,))
        number = st.number_input("Page", 1, last, key="filter.page", width=130)
        st.button("Next page", disabled=number >= last, on_click=_turn, args=(1,))
        st.text(f"{len(rows):,} samples, page {number:,} of {last:,}", width="content")
    return number - 1, size, SIDES[look]


def _turn(by: int) -> None:
    st.session_state["filter.page"] += by


def _cells(state: ReviewState, rows: np.ndarray, by: str) -> list[dict[str, Any]]:
    """What the grid shows of each row; every text is shown as text."""
    subject = state.subject
    cells = []
    pictures = stored_pictures(subject.places, rows)
    for row, picture in zip(rows.tolist(), pictures, strict=True):
        verdict, decision = state.verdict_text(row), drop_text(subject.reason[row])
        label = subject.space.display(subject.label[row].item())
        score = f"{subject.scores[by][row]:.3g}" if by in SCORES else ""
        said = f"{decision or 'kept'}, {verdict or 'no verdict'}"
        cells.append(
            {
                "row": row,
                "key": int(subject.key[row]),
                "uri": picture.uri,  # data:image/png;base64,…
                "error": picture.error,  # why there is no image
                "text": " · ".join(part for part in (label, score, decision) if part),
                "name": f"key {subject.key[row]}, label {label}, {said}",  # for a screen reader
                "verdict": verdict,
            }
        )
    return cells


def _act() -> None:
    """Does what was clicked or pressed, before the page is drawn again."""
    component = st.session_state.get(GRID)
    action = None if component is None else component.get("act")
    if not action:
        return
    try:
        _do(opened(), dict(action))
    except (CgankdError, OSError) as error:
        st.session_state["message"] = str(error)


def _do(state: ReviewState, action: dict[str, Any]) -> None:
    """Does an action of the grid: `what`, `rows` (a list, or "all"), `label`, `comment`."""
    what = action["what"]
    if what == "undo":
        if state.undo(reviewer=reviewer()) is None:
            raise BadInput("nothing to undo in this tab")
        mark_read()
        return
    rows = st.session_state["rows"] if action["rows"] == "all" else np.array(action["rows"], int)
    if rows.size and (rows.min() < 0 or rows.max() >= len(state.subject)):
        raise BadInput(f"the page named row {rows.max()}, and there are {len(state.subject):,}")
    if what == "open":
        st.session_state["looked_at"] = int(rows[0])
    elif what == "comment":
        state.comment(rows, action["comment"], reviewer=reviewer())
        mark_read()
    else:
        give(state, rows, what, action["label"], action["comment"])


@st.dialog("Sample", width="large")
def _enlarged(state: ReviewState, row: int) -> None:
    with errors_shown():
        if draw_sample(state, row, "look"):
            st.rerun()


def _filter_controls(subject: Subject) -> tuple[Filter, str, bool]:
    """The filter, the column to sort by and whether downwards, as picked in the sidebar."""
    with st.sidebar:
        st.subheader("Filter")
        labels, label_range = _labels(subject)
        wanted = Filter(
            labels=labels,
            label_range=label_range,
            kept=DECISIONS[st.selectbox("Decision", list(DECISIONS), key="filter.kept")],
            reasons=tuple(st.multiselect("Dropped by", _reasons(subject), key="filter.reasons")),
            verdicts=tuple(
                st.multiselect(
                    "Verdict",
                    SHOWN_VERDICTS,
                    key="filter.verdicts",
                    format_func=lambda v: "no verdict yet" if v == UNREVIEWED else v,
                )
            ),
            duplicates=st.checkbox("Near-duplicates only", key="filter.duplicates"),
            memorised=st.checkbox("Memorised only", key="filter.memorised"),
            teacher_disagrees=st.checkbox("Teacher disagrees", key="filter.teacher"),
            ranges=_ranges(subject),
        )
        by = st.selectbox(
            "Sort by", SORTABLE, key="filter.by", format_func=COLUMN_NAMES.__getitem__
        )
        descending = st.checkbox("Largest first", key="filter.descending")
    return wanted, by, descending


def _bounds(values: np.ndarray) -> tuple[float, float] | None:
    """The least and the largest finite value; None for no two different ones."""
    there = values[np.isfinite(values)]
    if not there.size or there.min() == there.max():
        return None
    return float(there.min()), float(there.max())


def _labels(subject: Subject) -> tuple[tuple[int, ...], tuple[float, float] | None]:
    space = subject.space
    if space.task == "classification":
        classes = st.multiselect(
            "Label", range(len(space.names)), key="filter.labels", format_func=space.display
        )
        return tuple(classes), None
    limits = _bounds(subject.original_label)
    if limits is None:
        return (), None
    key = started("filter.label_range", limits)
    st.slider("Label", *limits, key=key)
    low, high = st.session_state[key]
    return (), None if (low, high) == limits else (low, high)


def _reasons(subject: Subject) -> list[str]:
    occurring = set(np.unique(subject.reason).tolist())
    return [name for code, name in enumerate(REASONS) if code in occurring]


def _ranges(subject: Subject) -> tuple[tuple[str, float, float], ...]:
    """Limits of the scores that were picked to be limited."""
    limits = {name: _bounds(subject.scores[name]) for name in SCORES}
    there = [name for name, limit in limits.items() if limit]
    ranges = []
    for name in st.multiselect(
        "Score ranges", there, key="filter.scores", format_func=COLUMN_NAMES.__getitem__
    ):
        low, high = limits[name] or (0.0, 1.0)
        left, right = st.columns(2)
        least = left.number_input(
            f"{COLUMN_NAMES[name]} from", format="%.4g", key=started(f"filter.{name}.low", low)
        )
        most = right.number_input("to", format="%.4g", key=started(f"filter.{name}.high", high))
        ranges.append((name, float(least), float(most)))
    return tuple(ranges)
