"""One sample after the other, with large buttons: for a phone, or for the keyboard alone."""

import numpy as np
import streamlit as st

from cgankd.app.review.filters import UNREVIEWED, Filter, matching
from cgankd.app.review.state import ReviewState
from cgankd.app.review.views.sample_view import draw_sample
from cgankd.app.review.views.shared import noted, opened, plain, reviewer


def draw() -> None:
    """Draws the sample that is next."""
    state, held = opened(), st.session_state
    rows = _queue(state)
    for note in state.subject.notes:
        st.info(plain(note))
    if not rows.size:
        st.info("Every kept sample has a verdict. Filter others in the gallery, then come back.")
        return
    held["turn"] = min(max(held.get("turn", 0), 0), len(rows) - 1)
    turn = held["turn"]
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button("Back", shortcut="Left", disabled=turn == 0, on_click=_turn, args=(-1,))
        st.button(
            "Next", shortcut="Right", disabled=turn + 1 >= len(rows), on_click=_turn, args=(1,)
        )
        st.button("Undo", shortcut="U", disabled=not state.undoable, on_click=_undo)
        st.text(f"{turn + 1:,} of {len(rows):,}", width="content")
        if st.button("Start over", help="Takes the gallery's filter again, from its first sample"):
            held.pop("queue", None)
            held["turn"] = 0
            st.rerun()
    if draw_sample(state, int(rows[turn]), "one", keys=True):
        held["turn"] = turn + 1
        st.rerun()


def _queue(state: ReviewState) -> np.ndarray:
    """The rows to go through: what the gallery showed last, or what is kept without a verdict.

    They stay the same while one goes through them, whatever is said of them.
    """
    held = st.session_state
    source = held.get("rows")
    if "queue" not in held or held.get("queue_of") is not source:
        held["queue"] = source
        if source is None:
            unseen = Filter(kept=True, verdicts=(UNREVIEWED,))
            held["queue"] = np.flatnonzero(matching(state.subject, state.verdict, unseen))
        held["queue_of"], held["turn"] = source, 0
    return held["queue"]


def _turn(by: int) -> None:
    st.session_state["turn"] += by


def _undo() -> None:
    rows = opened().undo(reviewer=reviewer())
    noted()
    if rows is not None and (at := np.flatnonzero(st.session_state["queue"] == rows[0])).size:
        st.session_state["turn"] = int(at[0])
