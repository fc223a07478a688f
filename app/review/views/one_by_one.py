"""One sample, enlarged, with buttons and everything that is known of it; and the page that shows
one after the other, for a phone or for the keyboard alone.
"""

from typing import Literal

import numpy as np
import streamlit as st

from cgankd.app.review.sample import real_picture, sample, thumbnails
from cgankd.app.review.state import COLUMN_NAMES, UNREVIEWED, Filter, ReviewState, matching
from cgankd.app.review.subject import Subject
from cgankd.app.review.views import (
    facts_table,
    mark_read,
    opened,
    pictures,
    plain,
    real_images,
    reviewer,
    share,
)
from cgankd.shardset.errors import CgankdError
from cgankd.shardset.reviews import Verdict

BUTTONS: tuple[tuple[str, Verdict, str], ...] = (
    ("Accept", "accept", "A"),
    ("Reject", "reject", "X"),
    ("Flag", "flag", "F"),
    ("Clear", "clear", "D"),
)
SIDE = 320


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

    They stay the same while one goes through them, whatever verdicts are given.
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
    mark_read()
    if rows is not None and (at := np.flatnonzero(st.session_state["queue"] == rows[0])).size:
        st.session_state["turn"] = int(at[0])


def give(
    state: ReviewState, rows: np.ndarray, verdict: Verdict, label: float | None, comment: str
) -> None:
    """Gives a verdict in the reviewer's name; the label counts for relabel alone."""
    label = label if verdict == "relabel" else None
    state.give(rows, verdict, reviewer=reviewer(), label=label, comment=comment)
    mark_read()


def draw_sample(state: ReviewState, row: int, place: str, *, keys: bool = False) -> bool:
    """Draws one sample with its controls; whether a verdict or a comment was given.

    place: what the controls' keys begin with; keys: whether the keyboard presses the buttons.
    """
    st.text(_verdict(state, row))
    left, right = st.columns([1, 1])
    with left:
        picture = thumbnails(state.subject, [row], SIDE)[0]
        pictures([picture], [f"key {state.subject.key[row]}"], SIDE)
        given = _verdict_controls(state, row, place, keys=keys)
    with right:
        _facts(state.subject, row)
    return given


def _verdict_controls(state: ReviewState, row: int, place: str, *, keys: bool) -> bool:
    """Draws a button for each verdict, a new label and a comment; whether one was given."""
    space, rows, given = state.subject.space, np.array([row]), False
    with st.container(horizontal=True):
        for text, verdict, key in BUTTONS:
            kind: Literal["primary", "secondary"] = "primary" if key == "A" else "secondary"
            shortcut = key if keys else None
            if st.button(text, key=f"{place}.{verdict}", type=kind, shortcut=shortcut):
                give(state, rows, verdict, None, "")
                given = True
    with st.expander("Relabel, comment"):
        label: float
        if space.task == "classification":
            classes = range(len(space.names))
            label = st.selectbox(
                "New label", classes, key=f"{place}.label", format_func=space.display
            )
        else:
            label = st.number_input(
                "New label", value=float(state.subject.label[row]), key=f"{place}.label.{row}"
            )
        before = state.comments[row]
        comment = st.text_input("Comment", before, key=f"{place}.comment.{row}", max_chars=2000)
        with st.container(horizontal=True):
            if st.button("Relabel", key=f"{place}.relabel"):
                give(state, rows, "relabel", label, comment)
                given = True
            if st.button("Comment", key=f"{place}.say", disabled=not comment):
                state.comment(rows, comment, reviewer=reviewer())
                mark_read()
                given = True
    return given


def _verdict(state: ReviewState, row: int) -> str:
    """The verdict on a row, by whom, and the comment."""
    if not (verdict := state.verdict_text(row)):
        return "no verdict yet"
    said = f"{verdict}, by {state.reviewers[row]}"
    return f"{said}: {state.comments[row]}" if state.comments[row] else said


def _facts(subject: Subject, row: int) -> None:
    """Draws labels, scores, neighbours and origin."""
    reals, why_not = real_images()
    try:
        shown = sample(subject, row)
    except CgankdError as error:
        st.error(plain(str(error)))
        return
    decision = f"dropped by {shown.reason}" if shown.reason else "kept"
    rows = [("label", shown.label), ("decision", decision)]
    if shown.original_label != shown.label:
        rows.append(("made for", shown.original_label))
    rows += [(COLUMN_NAMES[name], f"{value:.4g}") for name, value in shown.scores.items()]
    rows += [(f"teacher: {name}", share(value)) for name, value in shown.teacher]
    if shown.teacher_value:
        rows.append(("teacher", shown.teacher_value))
    facts_table(rows)
    near, captions = [], []
    if shown.nearest_real is not None and reals is not None:
        number = shown.nearest_real
        near.append(real_picture(reals, number))
        is_there = number < len(reals.labels)
        label = subject.space.display(reals.labels[number].item()) if is_there else "not there"
        captions.append(f"nearest real: {label}")
    elif why_not:
        st.caption(plain(why_not))
    near += thumbnails(subject, [other.row for other in shown.near])
    captions += [f"kept {other.key}, {other.similarity:.3f}" for other in shown.near]
    if near:
        pictures(near, captions, 88)
    with st.expander("The row that makes it again"):
        facts_table([(name, str(value)) for name, value in shown.origin.items()])
        if shown.regenerate:
            st.code(shown.regenerate, language=None, wrap_lines=True)
