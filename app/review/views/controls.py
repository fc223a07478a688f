"""Controls of a policy, made from the fields of its rules: a new rule or field has its own at once.

A control is called like the field in a recipe, `filter.rho`, and explained by its description.
"""

from collections.abc import Callable, Iterator, Sequence
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import streamlit as st
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from cgankd.app.review.views.shared import plain, started

OFF = "off"
BY_VALUE = "by value"
STEPS = 100  # from one end of a slider to the other
FIRST_COUNT = 100  # what a whole number that must be given begins with


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
        kind = _one_of(slot, [OFF, *rules], first, f"policy.{slot}", help_text)
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
        return _one_of(address, words, value if value in words else words[0], key, help_text)
    if words:
        first = value if value in words else BY_VALUE
        way = _one_of(address, [*words, BY_VALUE], first, key, help_text)
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


def _one_of(label: str, names: Sequence[str], first: str, key: str, help_text: str) -> str:
    """The one of some names that is picked."""
    return st.selectbox(label, names, key=started(key, first), help=help_text)
