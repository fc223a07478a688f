"""Sliders of a policy, and at once what it would keep."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st
from pydantic import ValidationError

from cgankd.app.review.data import Subject
from cgankd.app.review.filters import counted
from cgankd.app.review.images import thumbnails
from cgankd.app.review.policy import Preview, preview, run_selection, save_recipe
from cgankd.app.review.state import ReviewState
from cgankd.app.review.views.shared import counts_beside, opened, pictures, plain, share, started
from cgankd.curation.policies import Policy, Rule
from cgankd.curation.policies.selection import REASONS, Selection
from cgankd.shardset.errors import BadInput

SUBSAMPLES = ("none", "rejection", "budget")
FILTERS = ("none", "quantile", "band", "agreement")
SCOPES = ("per-label", "global")
NEIGHBOURS = (
    ("copies", "Drop memorised", 0.99, "similarity to a training image"),
    ("duplicates", "Drop near-duplicates", 0.97, "similarity that connects two samples"),
    ("outliers", "Drop outliers", 3.0, "times the median real image's distance"),
)


def draw() -> None:
    """Draws the policy's controls left, and what it would do right."""
    state = opened()
    left, right = st.columns([1, 2], gap="large")
    with left:
        policy = _controls(state.subject)
        heed = st.checkbox("Heed verdicts", key=started("policy.heed", True))
    if policy is None:
        return
    effect = preview(state.subject, policy, state.reviews() if heed else None)
    st.session_state["previewed"] = (policy, effect.selection.reason, effect.selection.label)
    with right:
        _effect(state, effect)
    _keep(state.subject, policy)


def _controls(subject: Subject) -> Policy | None:
    """The policy that the controls say; None where it is impossible, with an error drawn."""
    start = subject.policy or Policy()
    filter_ = start.filter
    entries: dict[str, Any] = start.model_dump()
    kind = _one_of("Subsample by density ratio", SUBSAMPLES, _kind(start.subsample))
    entries["subsample"] = None if kind == "none" else {"kind": kind}
    if kind == "budget":
        entries["subsample"]["accept"] = st.slider(
            "Mean acceptance",
            0.01,
            1.0,
            step=0.01,
            key=started("policy.accept", getattr(start.subsample, "accept", 0.5)),
        )
    kind = _one_of("Filter by teacher", FILTERS, _kind(filter_))
    entries["filter"] = None if kind == "none" else {"kind": kind}
    if kind in ("quantile", "band"):
        entries["filter"]["rho"] = st.slider(
            "ρ: share that passes",
            0.01,
            1.0,
            step=0.01,
            key=started("policy.rho", getattr(filter_, "rho", 0.9)),
        )
        entries["filter"]["scope"] = _one_of(
            "Quantile", SCOPES, getattr(filter_, "scope", "per-label")
        )
    if kind == "band":
        entries["filter"]["low"] = st.slider(
            "Share dropped as too easy",
            0.0,
            0.99,
            step=0.01,
            key=started("policy.band_low", getattr(filter_, "low", 0.1)),
        )
    if kind == "agreement" and subject.space.task == "regression":
        entries["filter"]["within"] = st.number_input(
            "Largest |teacher − label|", 0.0,
            key=started("policy.agreement_within", getattr(filter_, "within", None) or 1.0),
        )  # fmt: skip
    if subject.neighbours is None:
        st.caption("Duplicates, memorised and outliers need neighbours, which are not here.")
        entries.update(copies=None, duplicates=None, outliers=None)
    else:
        for name, title, usual, meaning in NEIGHBOURS:
            now = getattr(getattr(start, name), "threshold", None)
            threshold = _threshold(name, title, now, usual, meaning)
            entries[name] = None if threshold is None else {"threshold": threshold}
    replaces = st.checkbox(
        "Replace labels by the teacher's",
        key=started("policy.relabel", start.relabel is not None),
    )
    entries["relabel"] = {"kind": "teacher"} if replaces else None
    if st.checkbox(
        "Quota for each label", key=started("policy.has_quota", start.quota is not None)
    ):
        size = st.number_input(
            "Samples of each label",
            1,
            key=started("policy.quota", start.quota.size if start.quota else 100),
        )
        entries["quota"] = {**(entries["quota"] or {}), "size": size}
    else:
        entries["quota"] = None
    try:
        return Policy(**entries)
    except ValidationError as error:
        st.error(plain(error.errors()[0]["msg"].removeprefix("Value error, ")))
        return None


def _kind(rule: Rule | None) -> str:
    return "none" if rule is None else rule.kind


def _one_of(title: str, names: tuple[str, ...], start: str) -> str:
    return st.selectbox(title, names, key=started(f"policy.{title}", start))


def _threshold(
    name: str, title: str, start: float | str | None, usual: float, meaning: str
) -> float | str | None:
    ways = ("off", "calibrated", "by value")
    now = "off" if start is None else "calibrated" if start == "calibrated" else "by value"
    way = st.selectbox(title, ways, key=started(f"policy.{name}", now))
    if way != "by value":
        return None if way == "off" else way
    value = start if isinstance(start, float) else usual
    high = 1.0 if usual < 1 else 20.0
    return st.slider(
        meaning, 0.0, high, step=high / 1000, key=started(f"policy.{name}.value", value)
    )


def _effect(state: ReviewState, effect: Preview) -> None:
    """Draws what a policy would change."""
    subject = state.subject
    before, after = counted(subject), effect.counts
    for note in effect.notes:
        st.warning(plain(note))
    kept = int(after.kept.sum())
    with st.container(horizontal=True):
        st.metric("Kept", f"{kept:,}", f"{kept - int(before.kept.sum()):+,}")
        changes = effect.why.to_pylist()
        for change in ("came", "went", "relabelled"):
            number = sum(row["count"] for row in changes if row["change"] == change)
            st.metric(change.capitalize(), f"{number:,}")
    masks = {"now": subject.kept, "with this policy": effect.selection.reason < 0}
    means = pd.DataFrame({name: _means(subject, mask) for name, mask in masks.items()})
    st.dataframe(means, alt="Cheap metrics before and with this policy")
    counts_beside(("now", "with this policy"), (before, after))
    for name, missing in effect.shortfall.items():
        st.warning(plain(f"{name} is {missing:,} short of its quota"))
    examples = {
        "Would come": effect.came, "Would go": effect.went, "Other label": effect.relabelled,
    }  # fmt: skip
    for title, rows in examples.items():
        if rows.size:
            st.subheader(title)
            captions = [_decision(subject, effect.selection, row) for row in rows]
            pictures(thumbnails(subject, rows, 72), captions, 72)


def _decision(subject: Subject, selection: Selection, row: int) -> str:
    """A row's label, and the reason if it is dropped."""
    label = subject.space.display(selection.label[row].item())
    reason = int(selection.reason[row])
    return label if reason < 0 else f"{label} −{REASONS[reason]}"


def _means(subject: Subject, kept: np.ndarray) -> dict[str, str]:
    """Means over what is kept, bool `[n]`, that cost nothing but the score table."""
    agreeing = ~subject.teacher_disagrees & subject.scored
    means = {
        "kept share": share(kept.mean()),
        "teacher agrees": share(agreeing[kept].sum() / max(int(kept.sum()), 1)),
    }
    for title, score in (
        ("mean teacher error", "teacher_error"), ("mean density ratio", "density_ratio"),
    ):  # fmt: skip
        values = subject.scores[score][kept]
        known = values[np.isfinite(values)]
        means[title] = f"{float(known.mean()) if known.size else float('nan'):.4g}"
    return means


def _keep(subject: Subject, policy: Policy) -> None:
    """Draws two ways to keep a policy: in a recipe file, or as a selection of the run."""
    st.divider()
    left, right = st.columns(2, gap="large")
    with left, st.form("recipe"):
        st.subheader("Save as a recipe")
        name = st.text_input("File", f"{subject.path.name}-policy.yaml")
        st.caption(plain(f"In {Path.cwd()}"))
        if st.form_submit_button("Save recipe"):
            if Path(name).name != name or not name.endswith(".yaml"):
                raise BadInput(f"{name!r}: give a file name that ends in .yaml, without a folder")
            st.success(plain(f"Saved {save_recipe(subject, policy, Path.cwd() / name)}"))
    with right, st.form("selection"):
        st.subheader("Run the selection")
        if subject.kind == "release":
            st.caption("A release never changes; open the run that it was made by.")
        name = st.text_input("Selection's name", subject.selection or "cgan-kd")
        replace = st.checkbox("Replace a selection of this name")
        if st.form_submit_button("Run selection", disabled=subject.kind == "release"):
            facts = run_selection(subject, policy, name, replace)
            st.success(plain(f"{name}: kept {facts['kept']:,}, dropped {facts['dropped']}"))
