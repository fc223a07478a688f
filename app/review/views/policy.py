"""Controls of a policy, and at once what it would keep.

The controls are made from the fields of the policy's rules: a new rule or field has its own at
once. A control is called like the field in a recipe, `filter.rho`, and explained by its
description.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np
import pandas as pd
import streamlit as st
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from cgankd.app.review.policy import Preview, counted, preview, run_selection, save_recipe
from cgankd.app.review.sample import thumbnails
from cgankd.app.review.state import ReviewState
from cgankd.app.review.subject import Subject
from cgankd.app.review.views import (
    counts_beside,
    drop_text,
    opened,
    pictures,
    plain,
    share,
    started,
)
from cgankd.curation.policies import Policy
from cgankd.shardset.errors import BadInput

OFF = "off"
BY_VALUE = "by value"
STEPS = 100  # from one end of a slider to the other
FIRST_COUNT = 100  # what a whole number that must be given begins with


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


def slot_controls(
    policy: type[BaseModel],
    start: BaseModel,
    offered: Callable[[type[BaseModel]], bool] = lambda rule: True,
) -> dict[str, Any]:
    """A policy's entries by slot: `None`, or the kind and the settings of a rule.

    start: the policy that the controls begin with; offered: whether a rule can be had here.
    """
    entries: dict[str, Any] = {}
    for slot, field in policy.model_fields.items():
        rules = {kind_of(rule): rule for rule in rules_of(field) if offered(rule)}
        entries[slot] = None
        if not rules:
            continue
        current = getattr(start, slot)
        first = OFF if current is None or current.kind not in rules else current.kind
        help_text = plain(field.description or "")
        key = started(f"policy.{slot}", first)
        kind = st.selectbox(slot, [OFF, *rules], key=key, help=help_text)
        if kind == OFF:
            continue
        rule = rules[kind]
        if rule.__doc__:
            st.caption(plain(rule.__doc__))
        entries[slot] = {"kind": kind}
        for name, setting in rule.model_fields.items():
            if name != "kind":
                same = isinstance(current, rule)
                value = getattr(current, name) if same else setting.get_default()
                entries[slot][name] = _setting(f"{slot}.{name}", kind, setting, value)
    return entries


def rules_of(field: FieldInfo) -> tuple[type[BaseModel], ...]:
    """The rules that a slot takes, in the order of its union."""
    types = (part for part, _ in _alternatives(field.annotation, ()))
    return tuple(part for part in types if isinstance(part, type) and issubclass(part, BaseModel))


def kind_of(rule: type[BaseModel]) -> str:
    """The kind that names a rule in its union."""
    return str(rule.model_fields["kind"].default)


def _alternatives(annotation: Any, metadata: Sequence[Any]) -> Iterator[tuple[Any, Sequence[Any]]]:
    """The types of a union, nested ones too, each with what is annotated to it."""
    if get_origin(annotation) in (Union, UnionType):
        for part in get_args(annotation):
            yield from _alternatives(part, metadata)
    elif get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        for item in more:
            metadata = (*metadata, *(item.metadata if isinstance(item, FieldInfo) else [item]))
        yield from _alternatives(inner, metadata)
    else:
        yield annotation, metadata


def _setting(address: str, kind: str, field: FieldInfo, value: Any) -> Any:
    """One field's value, as its control says; the kind is part of the control's key, since another
    kind's field of this name may be of another type.
    """
    key, help_text = f"policy.{address}.{kind}", plain(field.description or "")
    words: list[str] = []
    number: tuple[type[int] | type[float], Sequence[Any]] | None = None
    is_optional = False
    for part, metadata in _alternatives(field.annotation, field.metadata):
        if part is bool:
            return st.checkbox(address, key=started(key, value is True), help=help_text)
        if get_origin(part) is Literal:
            words += get_args(part)
        elif part in (int, float):
            number = (part, metadata)
        elif part is type(None):
            is_optional = True
        else:
            raise TypeError(f"there is no control for {address}, a {part}")
    if number is None:
        first = value if value in words else words[0]
        return st.selectbox(address, words, key=started(key, first), help=help_text)
    if words:
        first = value if value in words else BY_VALUE
        way = st.selectbox(address, [*words, BY_VALUE], key=started(key, first), help=help_text)
        if way != BY_VALUE:
            return way
        address, key = f"{address} value", f"{key}.value"
    usual = field.examples[0] if field.examples else None
    first = value if isinstance(value, int | float) else None if is_optional else usual
    return _number(address, key, help_text, *number, first=first, is_optional=is_optional)


def _number(
    label: str,
    key: str,
    help_text: str,
    kind: type[int] | type[float],
    metadata: Sequence[Any],
    *,
    first: float | None,
    is_optional: bool,
) -> Any:
    """A slider where both ends are known, else a box; `None` where an optional box is empty."""
    low, high, step = _limits(kind, metadata)
    if first is None and not is_optional:
        first = FIRST_COUNT if kind is int else low or 1.0
    if first is not None:
        first = kind(first)
        low = low if low is None else min(low, first)
    if low is not None and high is not None and not is_optional:
        return st.slider(label, low, high, step=step, key=started(key, first), help=help_text)
    return st.number_input(
        label,
        low,
        high,
        step=step if kind is int else None,
        format=None if kind is int else "%.4g",
        key=started(key, first),
        placeholder="none",
        help=help_text,
    )


def _limits(kind: type[int] | type[float], metadata: Sequence[Any]) -> tuple[Any, Any, Any]:
    """The least and the largest value, `None` where there is no such bound, and a step.

    Where the bound itself is excluded, the end is a step away from it.
    """
    low: Any = None
    high: Any = None
    for item in metadata:
        low = item.ge if isinstance(item, Ge) else item.gt if isinstance(item, Gt) else low
        high = item.le if isinstance(item, Le) else item.lt if isinstance(item, Lt) else high
    step = 1 if kind is int else 0.01 if low is None or high is None else (high - low) / STEPS
    if any(isinstance(item, Gt) for item in metadata):
        low += step
    if any(isinstance(item, Lt) for item in metadata):
        high -= step
    return None if low is None else kind(low), None if high is None else kind(high), step


def _effect(state: ReviewState, effect: Preview) -> None:
    """Draws what a policy would change."""
    subject = state.subject
    before, after = counted(subject), effect.counts
    for note in effect.notes:
        st.warning(plain(note))
    kept = int(after["kept"].sum())
    with st.container(horizontal=True):
        st.metric("Kept", f"{kept:,}", f"{kept - int(before['kept'].sum()):+,}")
        changes = effect.why.to_pylist()
        for change in ("came", "went", "relabelled"):
            number = sum(row["count"] for row in changes if row["change"] == change)
            st.metric(change.capitalize(), f"{number:,}")
    masks = {"now": subject.kept, "with this policy": effect.selection.reason < 0}
    means = pd.DataFrame({name: _means(subject, mask) for name, mask in masks.items()})
    st.dataframe(means, alt="Cheap metrics before and with this policy")
    counts_beside(before, after, ("now", "with this policy"))
    for name, missing in effect.shortfall.items():
        st.warning(plain(f"{name} is {missing:,} short of its quota"))
    titles = {"came": "Would come", "went": "Would go", "relabelled": "Other label"}
    for change, rows in effect.examples.items():
        if rows.size:
            st.subheader(titles[change])
            labels = [subject.space.display(x) for x in effect.selection.label[rows].tolist()]
            drops = [drop_text(reason) for reason in effect.selection.reason[rows]]
            captions = [
                f"{label} {drop}".strip() for label, drop in zip(labels, drops, strict=True)
            ]
            pictures(thumbnails(subject, rows, 72), captions, 72)


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
