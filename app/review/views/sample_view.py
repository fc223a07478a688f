"""One sample: enlarged, with buttons, and everything that is known of it."""

import numpy as np
import streamlit as st

from cgankd.app.review.images import thumbnails
from cgankd.app.review.sample import real_picture, sample
from cgankd.app.review.state import ReviewState
from cgankd.app.review.views.filtering import NAMES
from cgankd.app.review.views.shared import (
    facts_table,
    noted,
    opened,
    pictures,
    plain,
    real_images,
    reviewer,
    share,
)
from cgankd.shardset.errors import CgankdError
from cgankd.shardset.reviews import NONE, VERDICTS, Verdict

BUTTONS: tuple[tuple[str, Verdict, str], ...] = (
    ("Accept", "accept", "A"),
    ("Reject", "reject", "X"),
    ("Flag", "flag", "F"),
    ("Clear", "clear", "D"),
)
SIDE = 320


def give(
    state: ReviewState, rows: np.ndarray, verdict: Verdict, label: float | None, comment: str
) -> None:
    """Says a verdict in the reviewer's name; a class comes as a whole number."""
    if verdict != "relabel":
        label = None
    elif label is not None and state.subject.space.task == "classification":
        label = int(label)
    state.give(rows, verdict, reviewer=reviewer(), label=label, comment=comment)
    noted()


def draw_sample(state: ReviewState, row: int, place: str, *, keys: bool = False) -> bool:
    """Draws one sample with its controls; whether something was said of it."""
    st.text(_standing(state, row))
    left, right = st.columns([1, 1])
    with left:
        picture = thumbnails(state.subject, [row], SIDE)[0]
        pictures([picture], [f"key {state.subject.key[row]}"], SIDE)
        said = verdict_buttons(state, row, place, keys=keys)
        said = _relabel_and_comment(state, row, place) or said
    with right:
        _facts(state, row)
    return said


def verdict_buttons(state: ReviewState, row: int, place: str, *, keys: bool) -> bool:
    """Draws a button for each verdict; whether one was pressed."""
    said = False
    with st.container(horizontal=True):
        for text, verdict, key in BUTTONS:
            if st.button(
                text,
                key=f"{place}.{verdict}",
                type="primary" if verdict == "accept" else "secondary",
                shortcut=key if keys else None,
            ):
                give(state, np.array([row]), verdict, None, "")
                said = True
    return said


def _relabel_and_comment(state: ReviewState, row: int, place: str) -> bool:
    space, said = state.subject.space, False
    words = state.said_of(row)
    with st.expander("Relabel, comment"):
        label: float
        if space.task == "classification":
            label = st.selectbox(
                "New label", range(len(space.names)), key=f"{place}.label",
                format_func=space.display,
            )  # fmt: skip
        else:
            label = st.number_input(
                "New label", value=float(state.subject.label[row]), key=f"{place}.label.{row}"
            )
        comment = st.text_input(
            "Comment", words.comment if words else "", key=f"{place}.comment.{row}", max_chars=2000
        )
        with st.container(horizontal=True):
            if st.button("Relabel", key=f"{place}.relabel"):
                give(state, np.array([row]), "relabel", label, comment)
                said = True
            if st.button("Comment", key=f"{place}.say", disabled=not comment):
                state.comment(np.array([row]), comment, reviewer=reviewer())
                noted()
                said = True
    return said


def _standing(state: ReviewState, row: int) -> str:
    """What was said of a row, by whom."""
    code = int(state.verdict[row])
    words = state.said_of(row)
    if code == NONE or words is None:
        return "no verdict yet"
    verdict: str = VERDICTS[code]
    if verdict == "relabel":
        verdict += f" {state.subject.space.display(state.relabelled[row].item())}"
    said = f"{verdict}, by {words.reviewer}"
    return f"{said}: {words.comment}" if words.comment else said


def _facts(state: ReviewState, row: int) -> None:
    subject = opened().subject
    reals, why_not = real_images()
    try:
        found = sample(subject, row, reals)
    except CgankdError as error:
        st.error(plain(str(error)))
        return
    rows = [("label", found.label), ("decision", found.reason or "kept")]
    if found.reason:
        rows[1] = ("decision", f"dropped by {found.reason}")
    if found.original_label != found.label:
        rows.append(("made for", found.original_label))
    rows += [(NAMES[name], f"{value:.4g}") for name, value in found.scores.items()]
    rows += [(f"teacher: {name}", share(value)) for name, value in found.teacher]
    if found.teacher_value:
        rows.append(("teacher", found.teacher_value))
    facts_table(rows)
    near, captions = [], []
    if found.nearest_real is not None and reals is not None:
        near.append(real_picture(reals, found.nearest_real))
        captions.append(f"nearest real: {found.nearest_real_label}")
    elif why_not:
        st.caption(plain(why_not))
    near += thumbnails(subject, [other.row for other in found.near])
    captions += [f"kept {other.key}, {other.similarity:.3f}" for other in found.near]
    if near:
        pictures(near, captions, 88)
    with st.expander("The row that makes it again"):
        facts_table([(name, str(value)) for name, value in found.origin.items()])
        if found.regenerate:
            st.code(found.regenerate, language=None, wrap_lines=True)
