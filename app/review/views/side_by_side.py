"""Two kinds of images side by side: of two selections, of one run, of two versions, or of one that
nobody has saved yet; and real ones beside generated ones, also along the label and as a blind test.
"""

import secrets
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import streamlit as st

from cgankd.app.review.policy import compare
from cgankd.app.review.sample import (
    Reals,
    blind_pairs,
    real_picture,
    rows_along,
    rows_by_label,
    thumbnails,
    wilson,
)
from cgankd.app.review.state import COLUMN_NAMES
from cgankd.app.review.subject import Subject
from cgankd.app.review.views import (
    COLOURS,
    counts_beside,
    opened,
    pictures,
    plain,
    real_images,
    share,
    started,
    subject_at,
)
from cgankd.app.review.views.overview import last_check

PREVIEWED = "the Policy page's sliders"
OTHER = "another run, release or Hub id"
SHOWN = 24  # samples that one selection alone keeps
PAIRS = 20  # of a blind test
SIDE = 72  # of an image, in pixels


def draw_selections() -> None:
    """Draws the two selections, and what differs."""
    left, right = st.columns(2, gap="large")
    with left:
        first = _side("First", 0)
    with right:
        second = _side("Second", 1)
    if first is None or second is None:
        return
    comparison = compare(first, second)
    if comparison.why is None:
        st.info("These are of different pools, so samples cannot be matched; counts still compare.")
    kept = [int(counts["kept"].sum()) for counts in comparison.counts]
    left.metric("Kept", f"{kept[0]:,}")
    right.metric("Kept", f"{kept[1]:,}", f"{kept[1] - kept[0]:+,}")
    counts_beside(*comparison.counts, ("first", "second"))
    _metrics(first, second)
    _spreads(comparison.spreads)
    _only(first, "Only in the first", comparison.only_first)
    _only(second, "Only in the second", comparison.only_second)
    if comparison.why is not None and len(comparison.why):
        st.subheader("Why")
        st.dataframe(comparison.why.to_pandas(), hide_index=True, alt="Changes and their reasons")


def _side(title: str, number: int) -> Subject | None:
    subject = opened().subject
    options = [*subject.selections, OTHER]
    if "previewed" in st.session_state:
        options.insert(len(subject.selections), PREVIEWED)
    start = 0 if subject.selection is None else options.index(subject.selection)
    if number:
        others = [i for i in range(len(options) - 1) if i != start]
        start = others[-1] if others else start
    picked = st.selectbox(title, options, key=started(f"compare.{title}", options[start]))
    if picked == PREVIEWED:
        policy, reason, label = st.session_state["previewed"]
        if len(reason) == len(subject):
            return replace(subject, selection=None, policy=policy, reason=reason, label=label)
        return None
    if picked != OTHER:
        return subject_at(selection=picked)
    spec = st.text_input("Folder or Hub id", key=f"compare.{title}.spec")
    return subject_at(spec) if spec else None


def _metrics(first: Subject, second: Subject) -> None:
    """Draws the check's metrics of both, where each was checked."""
    checks = {"first": last_check(first), "second": last_check(second)}
    columns = {
        name: {number.metric: number.value for number in check.summary.metrics}
        for name, check in checks.items()
        if check and check.is_current
    }
    st.subheader("Metrics")
    if columns:
        st.dataframe(pd.DataFrame(columns), alt="Metrics of the check, on both sides")
    else:
        st.info("Neither was checked; `cgankd check` measures a selection.")


def _spreads(spreads: Mapping[str, pd.DataFrame]) -> None:
    """Draws each score's distribution among what is kept, as shares: sizes then do not matter."""
    if not spreads:
        return
    st.subheader("Scores of what is kept")
    places = st.columns(2)
    for number, (score, shares) in enumerate(spreads.items()):
        places[number % 2].line_chart(
            shares,
            height=200,
            x_label=COLUMN_NAMES[score],
            y_label="share",
            color=list(COLOURS[:2]),
        )


def _only(subject: Subject, title: str, keys: np.ndarray) -> None:
    if not keys.size:
        return
    st.subheader(title)
    st.caption(f"{len(keys):,} samples" + (f", {SHOWN} of them" if len(keys) > SHOWN else ""))
    rows = subject.rows_of(keys[:SHOWN])
    labels = [subject.space.display(label) for label in subject.label[rows].tolist()]
    captions = [f"{label} ({key})" for label, key in zip(labels, subject.key[rows], strict=True)]
    pictures(thumbnails(subject, rows, SIDE), captions, SIDE)


def draw_faces() -> None:
    """Draws real images beside generated ones, or along the label, or asks which is which."""
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
    labels = [subject.space.display(label) for label in subject.label[rows].tolist()]
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
