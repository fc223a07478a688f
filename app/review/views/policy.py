"""Controls of a policy, and at once what it would keep."""

from pathlib import Path

import numpy as np
import pandas as pd
import streamlit as st
from pydantic import BaseModel, ValidationError

from cgankd.app.review.data import Subject
from cgankd.app.review.filters import counted
from cgankd.app.review.images import thumbnails
from cgankd.app.review.policy import Preview, preview, run_selection, save_recipe
from cgankd.app.review.state import ReviewState
from cgankd.app.review.views.controls import slot_controls
from cgankd.app.review.views.shared import counts_beside, opened, pictures, plain, share, started
from cgankd.curation.policies import Policy
from cgankd.curation.policies.selection import REASONS, Selection
from cgankd.shardset.errors import BadInput


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

    def is_offered(rule: type[BaseModel]) -> bool:
        return subject.neighbours is not None or "neighbours" not in getattr(rule, "reads", ())

    if subject.neighbours is None:
        st.caption("Rules that go by neighbours need them, and they are not here.")
    try:
        return Policy(**slot_controls(Policy, subject.policy or Policy(), is_offered))
    except ValidationError as error:
        st.error(plain(error.errors()[0]["msg"].removeprefix("Value error, ")))
        return None


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
