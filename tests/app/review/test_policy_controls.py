"""Every rule of a policy and each of its fields has a control, made from the classes alone."""

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field
from streamlit.testing.v1 import AppTest

from cgankd.app.review.views.policy import kind_of, rules_of
from cgankd.curation.policies import Policy


class Interval(BaseModel):
    """Keeps what lies between two numbers."""

    kind: Literal["interval"] = "interval"
    low: float = Field(0.25, ge=0, lt=1, description="the *least*")
    high: float | None = Field(None, ge=0, description="the largest; null: none")
    count: int = Field(gt=0)
    both_ends: bool = True
    scale: Literal["linear", "log"] = "log"
    limit: Literal["calibrated"] | Annotated[float, Field(ge=-1, le=1)] = Field(
        "calibrated", examples=[0.5]
    )


class Nothing(BaseModel):
    """Keeps nothing."""

    kind: Literal["nothing"] = "nothing"


class TwoSlots(BaseModel):
    """A policy with rules that nobody has yet."""

    first: Annotated[Interval | Nothing, Field(discriminator="kind")] | None = Interval(count=3)
    second: Nothing | None = None


def controls(policy):
    """The controls of a policy class, drawn; `entries` is what they say."""

    def script(policy):
        import streamlit as st

        from cgankd.app.review.views.policy import slot_controls

        st.session_state["entries"] = slot_controls(policy, policy())

    page = AppTest.from_function(script, args=(policy,), default_timeout=60).run()
    assert not page.exception
    return page


def widgets(page):
    kinds = (page.selectbox, page.slider, page.number_input, page.checkbox)
    return {widget.label: widget for kind in kinds for widget in kind}


def test_a_rule_that_nobody_has_yet_is_drawn_with_type_bounds_and_description():
    page = controls(TwoSlots)
    drawn = widgets(page)

    assert page.session_state["entries"] == {
        "first": {"kind": "interval", **Interval(count=3).model_dump()},
        "second": None,
    }
    assert drawn["first"].options == ["off", "interval", "nothing"]
    low = drawn["first.low"]
    assert (low.min, low.max, low.value, low.help) == (0.0, 0.99, 0.25, "the \\*least\\*")
    assert (drawn["first.count"].min, drawn["first.count"].value) == (1, 3)
    assert drawn["first.high"].value is None
    assert drawn["first.both_ends"].value
    assert drawn["first.scale"].options == ["linear", "log"]


def test_what_the_controls_say_is_the_policy():
    page = controls(TwoSlots)
    widgets(page)["first.high"].set_value(2.5).run()
    widgets(page)["first.low"].set_value(0.5).run()
    widgets(page)["first.both_ends"].uncheck().run()
    widgets(page)["first.scale"].set_value("linear").run()
    widgets(page)["first.limit"].set_value("by value").run()
    assert widgets(page)["first.limit value"].value == 0.5
    widgets(page)["first.limit value"].set_value(-0.5).run()
    widgets(page)["second"].set_value("nothing").run()

    assert page.session_state["entries"] == {
        "first": {
            "kind": "interval", "low": 0.5, "high": 2.5, "count": 3, "both_ends": False,
            "scale": "linear", "limit": -0.5,
        },
        "second": {"kind": "nothing"},
    }  # fmt: skip
    widgets(page)["first"].set_value("off").run()
    assert page.session_state["entries"]["first"] is None


@pytest.mark.parametrize("slot", Policy.model_fields)
def test_every_rule_and_field_of_the_policy_has_a_control(slot):
    page = controls(Policy)
    rules = rules_of(Policy.model_fields[slot])
    assert rules
    for rule in rules:
        widgets(page)[slot].set_value(kind_of(rule)).run()
        assert not page.exception
        names = set(rule.model_fields) - {"kind"}
        assert {f"{slot}.{name}" for name in names} <= set(widgets(page))
        entries = page.session_state["entries"]
        assert type(getattr(Policy(**entries), slot)) is rule
