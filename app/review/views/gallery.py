"""The gallery: pages of thumbnails, to choose from and to judge."""

from typing import Any

import numpy as np
import streamlit as st

from cgankd.app.review.data import SCORES, Subject
from cgankd.app.review.filters import page, pages
from cgankd.app.review.images import stored_pictures
from cgankd.app.review.state import ReviewState
from cgankd.app.review.views.filtering import filter_controls, rows_shown
from cgankd.app.review.views.grid import Cell, acted, grid
from cgankd.app.review.views.sample_view import draw_sample, give
from cgankd.app.review.views.shared import errors_shown, noted, opened, plain, reviewer, started
from cgankd.curation.policies.selection import KEPT, REASONS
from cgankd.shardset.errors import BadInput, CgankdError
from cgankd.shardset.reviews import NONE, VERDICTS

SIZES = (200, 50, 500, 1000)
SIDES = {"small": 64, "medium": 96, "large": 144}


def draw() -> None:
    """Draws filter, grid and what was clicked."""
    state = opened()
    subject = state.subject
    for note in subject.notes:
        st.info(plain(note))
    wanted, by, descending = filter_controls(subject)
    rows = rows_shown(state, wanted, by, descending)
    st.session_state["rows"] = rows
    _message()
    if not rows.size:
        st.info("No sample matches this filter. Take something out of it in the sidebar.")
        return
    number, size, side = _page_controls(rows)
    shown = page(rows, number, size)
    grid(
        _cells(state, shown, by),
        matching=len(rows),
        side=side,
        names=subject.space.names if subject.space.task == "classification" else None,
        on_act=_act,
    )
    looked_at = st.session_state.pop("looked_at", None)
    if looked_at is not None:
        _enlarged(state, looked_at)


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


def _cells(state: ReviewState, rows: np.ndarray, by: str) -> list[Cell]:
    subject = state.subject
    images = stored_pictures(subject, rows)
    cells = []
    for row, picture in zip(rows.tolist(), images, strict=True):
        code = int(state.verdict[row])
        verdict: str = "" if code == NONE else VERDICTS[code]
        if verdict == "relabel":
            verdict = f"relabel {subject.space.display(state.relabelled[row].item())}"
        label = subject.space.display(subject.label[row].item())
        decision = _decision(subject, row)
        text = [label, decision]
        if by in SCORES:
            text = [label, f"{subject.scores[by][row]:.3g}", *([decision] if decision else [])]
        cells.append(
            Cell(
                row=row,
                key=int(subject.key[row]),
                uri=picture.uri,
                error=picture.error,
                text=" · ".join(part for part in text if part),
                name=f"key {subject.key[row]}, label {label}, {decision or 'kept'}, "
                f"{verdict or 'no verdict'}",
                verdict=verdict,
            )
        )
    return cells


def _decision(subject: Subject, row: int) -> str:
    reason = int(subject.reason[row])
    return "" if reason == KEPT else f"−{REASONS[reason]}"


def _act() -> None:
    """Does what was clicked or pressed, before the page is drawn again."""
    said, state = acted(), opened()
    if said is None:
        return
    try:
        _do(state, said)
    except (CgankdError, OSError) as error:
        st.session_state["message"] = str(error)


def _do(state: ReviewState, said: dict[str, Any]) -> None:
    what = said["what"]
    if what == "undo":
        if state.undo(reviewer=reviewer()) is None:
            raise BadInput("nothing to undo in this tab")
        noted()
        return
    rows = st.session_state["rows"] if said["rows"] == "all" else np.array(said["rows"], np.int64)
    if rows.size and (rows.min() < 0 or rows.max() >= len(state.subject)):
        raise BadInput(f"the page named row {rows.max()}, and there are {len(state.subject):,}")
    if what == "open":
        st.session_state["looked_at"] = int(rows[0])
    elif what == "comment":
        state.comment(rows, said["comment"], reviewer=reviewer())
        noted()
    else:
        give(state, rows, what, said["label"], said["comment"])


def _message() -> None:
    if message := st.session_state.pop("message", None):
        st.error(plain(message))


@st.dialog("Sample", width="large")
def _enlarged(state: ReviewState, row: int) -> None:
    with errors_shown():
        if draw_sample(state, row, "look"):
            st.rerun()
