"""The label space: scaling there and back, groups, and what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cgankd.shardset.errors import BadInput
from cgankd.shardset.labels import ClassLabels, ContinuousLabels
from cgankd.shardset.sources.listing import snapped

numbers = st.floats(-1e6, 1e6, allow_nan=False)


@given(numbers, st.floats(1e-3, 1e6), st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_scaling_there_and_back_neither_rounds_nor_leaves_the_range(low, span, places):
    """A label comes back to within float error of the range, and stays inside."""
    space = ContinuousLabels(unit="bar", low=low, high=low + span, groups=1)
    labels = np.clip(low + np.array(places) * span, space.low, space.high)
    back = space.unscaled(space.scaled(labels))

    np.testing.assert_allclose(back, labels, atol=1e-9 * max(abs(low), abs(low + span)))
    assert (back >= space.low).all()
    assert (back <= space.high).all()


def test_integer_ages_stay_what_they_are():
    """No truncation: 31 of 1 … 60 comes back as 31, and 31.5 as 31.5."""
    space = ContinuousLabels(unit="years", low=1, high=60)

    np.testing.assert_allclose(space.unscaled(space.scaled(np.array([31.0, 31.5]))), [31.0, 31.5])


def test_groups_are_equal_parts_and_the_last_one_has_its_end():
    """Four parts of 0 … 8: limits belong to the part above them, 8 to the last."""
    space = ContinuousLabels(unit="bar", low=0, high=8, groups=4)

    assert space.group_of(np.array([0.0, 1.9, 2.0, 5.0, 7.9, 8.0])).tolist() == [0, 0, 1, 2, 3, 3]
    assert space.group_names == ("0 … 2", "2 … 4", "4 … 6", "6 … 8")


def test_parts_of_a_narrow_range_far_from_zero_have_names_of_their_own():
    """Six digits would not tell them apart."""
    space = ContinuousLabels(unit="bar", low=1e6, high=1e6 + 1, groups=4)

    assert len(set(space.group_names)) == 4


@pytest.mark.parametrize(
    ("unit", "low", "high"),
    [("degrees", 0, 360), ("deg", -180, 180), ("rad", 0, 2 * np.pi), ("degrees", -360, 360)],
)
def test_whole_turns_are_circular_and_refused(unit, low, high):
    """Their two ends are one label."""
    with pytest.raises(ValidationError, match="circular"):
        ContinuousLabels(unit=unit, low=low, high=high)


def test_a_steering_wheel_may_turn_further_than_once():
    """Its ends are different labels."""
    assert ContinuousLabels(unit="degrees", low=-500, high=500).span == 1000


@pytest.mark.parametrize("interval", [(1, 1), (2, 1), (0, float("inf")), (float("nan"), 1)])
def test_what_is_no_interval_is_refused(interval):
    """Low < high, both finite."""
    with pytest.raises(ValidationError):
        ContinuousLabels(unit="bar", low=interval[0], high=interval[1])


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (np.array([1.0, 11.0]), "11 of sample 1"),
        (np.array([np.nan]), "nan"),
        (np.array([1, 2]), "float64"),
        (np.ones((2, 3)), "several numbers"),
    ],
)
def test_labels_that_are_none_are_named(labels, says):
    """What, where and what to do."""
    with pytest.raises(BadInput, match=says):
        ContinuousLabels(unit="bar", low=0, high=10).check(labels, "somewhere")


def test_float32_labels_at_the_end_of_the_range_are_inside():
    """0.1 as a float32 is a little above 0.1; what is further off stays where it is."""
    space = ContinuousLabels(unit="bar", low=0, high=0.1)
    labels = np.array([0.1, 0.05, 0.11], np.float32).astype(np.float64)

    assert snapped(space, labels)[0] == 0.1
    np.testing.assert_array_equal(snapped(space, labels)[1:], labels[1:])


def test_a_class_is_its_own_group_and_target():
    """What goes by group goes by class."""
    space = ClassLabels(names=("ant", "bee", "cow"))
    labels = np.array([2, 0, 1])

    np.testing.assert_array_equal(space.group_of(labels), labels)
    np.testing.assert_array_equal(space.targets(labels), labels)
    assert space.outputs == 3
