"""The filter's controls, in the sidebar; pages that show samples share it."""

import numpy as np
import streamlit as st

from cgankd.app.review.data import SCORES, Subject
from cgankd.app.review.filters import SORTABLE, UNREVIEWED, Filter, matching, ordered
from cgankd.app.review.state import ReviewState
from cgankd.app.review.views.shared import started
from cgankd.curation.policies.selection import REASONS
from cgankd.shardset.reviews import VERDICTS

NAMES = {
    "key": "key",
    "label": "label",
    "original_label": "assigned label",
    "reason": "reason of the drop",
    "verdict": "verdict",
    "duplicate_group": "group of duplicates",
    "density_ratio": "density ratio",
    "teacher_error": "teacher's error",
    "teacher_entropy": "teacher's entropy",
    "nearest_real_similarity": "similarity to a real image",
    "outlier": "distance from its label",
}
KEPT = {"all": None, "kept": True, "dropped": False}
SHOWN_VERDICTS = (UNREVIEWED, *(name for name in VERDICTS if name != "clear"))


def filter_controls(subject: Subject) -> tuple[Filter, str, bool]:
    """The filter, the column to sort by and whether downwards, as chosen in the sidebar."""
    with st.sidebar:
        st.subheader("Filter")
        labels, label_range = _labels(subject)
        wanted = Filter(
            labels=labels,
            label_range=label_range,
            kept=KEPT[st.selectbox("Decision", list(KEPT), key="filter.kept")],
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
        by = st.selectbox("Sort by", SORTABLE, key="filter.by", format_func=NAMES.__getitem__)
        descending = st.checkbox("Largest first", key="filter.descending")
    return wanted, by, descending


def rows_shown(state: ReviewState, wanted: Filter, by: str, descending: bool) -> np.ndarray:
    """The rows that match, in order."""
    mask = matching(state.subject, state.verdict, wanted)
    return ordered(state.subject, state.verdict, mask, by, descending)


def bounds(values: np.ndarray) -> tuple[float, float] | None:
    """The least and the largest finite value; None for no two different ones."""
    there = values[np.isfinite(values)]
    if not there.size or there.min() == there.max():
        return None
    return float(there.min()), float(there.max())


def _labels(subject: Subject) -> tuple[tuple[int, ...], tuple[float, float] | None]:
    space = subject.space
    if space.task == "classification":
        chosen = st.multiselect(
            "Label", range(len(space.names)), key="filter.labels", format_func=space.display
        )
        return tuple(chosen), None
    limits = bounds(subject.original_label)
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
    """Limits of the scores that were chosen to be limited."""
    limits = {name: bounds(subject.scores[name]) for name in SCORES}
    there = [name for name, limit in limits.items() if limit]
    found = []
    for name in st.multiselect(
        "Score ranges", there, key="filter.scores", format_func=NAMES.__getitem__
    ):
        low, high = limits[name] or (0.0, 1.0)
        left, right = st.columns(2)
        least = left.number_input(
            f"{NAMES[name]} from", format="%.4g", key=started(f"filter.{name}.low", low)
        )
        most = right.number_input("to", format="%.4g", key=started(f"filter.{name}.high", high))
        found.append((name, float(least), float(most)))
    return tuple(found)
