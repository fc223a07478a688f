"""Real and generated images side by side, a strip along the label, and a blind test."""

import secrets

import numpy as np
import streamlit as st

from cgankd.app.review.sample import (
    Reals,
    blind_pairs,
    real_picture,
    rows_along,
    rows_by_label,
    thumbnails,
    wilson,
)
from cgankd.app.review.subject import Subject
from cgankd.app.review.views import opened, pictures, plain, real_images, share, started

PAIRS = 20
SIDE = 72


def draw() -> None:
    """Draws the part that is picked in the list."""
    subject = opened().subject
    reals, why_not = real_images()
    if why_not:
        st.info(plain(why_not))
    parts = ["Side by side", "Blind test"]
    if subject.space.task == "regression":
        parts.insert(1, "Along the label")
    part = st.selectbox("Show", parts, key="filter.faces")
    if part == "Side by side":
        _side_by_side(subject, reals)
    elif part == "Along the label":
        _strip(subject, reals)
    elif reals is not None:
        _blind(subject, reals)


def _side_by_side(subject: Subject, reals: Reals | None) -> None:
    names = subject.space.group_names
    with st.container(horizontal=True, vertical_alignment="bottom"):
        group = st.selectbox(
            "Label", range(len(names)), key="filter.faces.label", format_func=names.__getitem__
        )
        count = st.slider("Images of each", 8, 96, step=8, key=started("filter.faces.count", 32))
        if st.button("Others"):
            st.session_state["faces.seed"] = st.session_state.get("faces.seed", 0) + 1
    seed = st.session_state.get("faces.seed", 0)
    left, right = st.columns(2, gap="large")
    with left:
        st.subheader("Real")
        if reals is not None:
            members = np.flatnonzero(subject.space.group_of(reals.labels) == group)
            numbers = np.random.default_rng([seed, group]).permutation(members)[:count]
            images = [real_picture(reals, int(number), SIDE) for number in numbers]
            display = subject.space.display
            pictures(images, [display(reals.labels[i].item()) for i in numbers], SIDE)
            if not numbers.size:
                st.info("No real image of the budget has this label.")
    with right:
        st.subheader("Generated and kept")
        rows = rows_by_label(subject, group, count, seed)
        _generated(subject, rows)


def _generated(subject: Subject, rows: np.ndarray) -> None:
    if not rows.size:
        st.info("No sample of this label was kept.")
        return
    labels = [subject.space.display(subject.label[row].item()) for row in rows]
    pictures(thumbnails(subject, rows, SIDE), labels, SIDE)


def _strip(subject: Subject, reals: Reals | None) -> None:
    count = st.slider("Images", 6, 60, step=2, key=started("filter.faces.strip", 24))
    rows = rows_along(subject, count)
    st.subheader("Generated, along the label")
    _generated(subject, rows)
    if reals is not None and rows.size:
        st.subheader("The real image nearest in label")
        near = [int(np.abs(reals.labels - subject.label[row]).argmin()) for row in rows]
        images = [real_picture(reals, number, SIDE) for number in near]
        captions = [subject.space.display(reals.labels[number].item()) for number in near]
        pictures(images, captions, SIDE)


def _blind(subject: Subject, reals: Reals) -> None:
    """Draws two images of one label, and asks which one is generated."""
    held = st.session_state
    if "blind" not in held or st.button("Start again"):
        held["blind"] = (blind_pairs(subject, reals, PAIRS, secrets.randbits(32)), [])
    pairs, answers = held["blind"]
    right = [pair.generated_first == first for pair, first in zip(pairs, answers, strict=False)]
    if len(answers) < len(pairs):
        pair = pairs[len(answers)]
        label = subject.space.display(subject.original_label[pair.row].item())
        st.subheader(f"Which one is generated? ({len(answers) + 1} of {len(pairs)})")
        st.text(f"Label {label}")
        real = real_picture(reals, pair.real, 240)
        made = thumbnails(subject, [pair.row], 240)[0]
        pictures([made, real] if pair.generated_first else [real, made], ["first", "second"], 240)
        with st.container(horizontal=True):
            st.button(
                "The first", key="blind.first", shortcut="1", on_click=answers.append, args=[True]
            )
            st.button(
                "The second",
                key="blind.second",
                shortcut="2",
                on_click=answers.append,
                args=[False],
            )
    if not right:
        st.caption("Half right is guessing: then nobody can tell them apart.")
        return
    done, times = len(answers) == len(pairs), sum(right)
    low, high = wilson(times, len(right))
    st.metric("Your score" if done else "Right so far", share(times / len(right)))
    st.caption(
        f"{times} of {len(right)} right, 95 % interval {share(low)} to {share(high)}; "
        "50 % is guessing"
    )
    if done:
        st.subheader("The generated ones")
        images = thumbnails(subject, [pair.row for pair in pairs], SIDE)
        pictures(images, ["picked out" if one else "took me in" for one in right], SIDE)
