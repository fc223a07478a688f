"""Two selections side by side: of one run, of two versions, or one that nobody has saved yet."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
import streamlit as st

from cgankd.app.review.policy import compare
from cgankd.app.review.sample import thumbnails
from cgankd.app.review.state import COLUMN_NAMES
from cgankd.app.review.subject import Subject
from cgankd.app.review.views import (
    COLOURS,
    counts_beside,
    opened,
    pictures,
    selected,
    started,
    subject_at,
)
from cgankd.app.review.views.overview import check_facts

PREVIEWED = "the Policy page's sliders"
OTHER = "another run, release or Hub id"
SHOWN = 24


def draw() -> None:
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
        return selected(picked)
    spec = st.text_input("Folder or Hub id", key=f"compare.{title}.spec")
    return subject_at(spec) if spec else None


def _metrics(first: Subject, second: Subject) -> None:
    """Draws the check's metrics of both, where each was checked."""
    columns = {}
    for name, subject in (("first", first), ("second", second)):
        facts = check_facts(subject)
        if facts and facts["current"]:
            columns[name] = {
                row["metric"]: row["value"]
                for row in facts["metrics"]
                if row.get("kind", "all") == "all"
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
    captions = [plain_label(subject, row) for row in rows]
    pictures(thumbnails(subject, rows, 72), captions, 72)


def plain_label(subject: Subject, row: int) -> str:
    """The label of a row, and its key."""
    return f"{subject.space.display(subject.label[row].item())} ({subject.key[row]})"
