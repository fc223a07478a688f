"""What changed between two selections, against dictionaries made by hand."""

import numpy as np
import pytest

from cgankd.curation.difference import changes_per_group, difference, kept_per_group, why
from cgankd.curation.policies.selection import KEPT, REASONS, Selection
from cgankd.shardset.errors import BadInput
from cgankd.shardset.labels import ClassLabels, ContinuousLabels

SPACE = ClassLabels(names=("cat", "dog"))


def selection(reasons, original, label=None, first=0):
    """The table of a selection with these reasons, None for kept."""
    codes = [KEPT if reason is None else REASONS.index(reason) for reason in reasons]
    original = np.array(original)
    return Selection(
        key=np.arange(first, first + len(reasons)),
        reason=np.array(codes, np.int8),
        label=original if label is None else np.array(label),
        original_label=original,
        group=original.astype(np.int64),
        fitted={},
        shortfall={},
    ).table()


BEFORE = selection([None, "ratio", None, None, "teacher", "ratio"], [0, 0, 1, 1, 1, 0])
AFTER = selection(
    [None, None, "duplicate", None, "ratio", None], [0, 0, 1, 1, 1, 0], label=[0, 1, 1, 0, 1, 0]
)


def test_each_changed_key_is_told_with_both_reasons():
    """Came, went or another label; a key dropped for another reason than before is no change."""
    assert difference(BEFORE, AFTER).to_pylist() == [
        dict(zip(ROW, values, strict=True))
        for values in (
            (1, "came", "ratio", None, 0, 1, 0),
            (2, "went", None, "duplicate", 1, 1, 1),
            (3, "relabelled", None, None, 1, 0, 1),
            (5, "came", "ratio", None, 0, 0, 0),
        )
    ]


ROW = (
    "key",
    "change",
    "reason_before",
    "reason_after",
    "label_before",
    "label_after",
    "original_label",
)


def test_the_other_way_round_what_came_has_gone():
    """Swapping the selections swaps the changes and the reasons."""
    one, other = difference(BEFORE, AFTER).to_pylist(), difference(AFTER, BEFORE).to_pylist()
    swapped = {"came": "went", "went": "came", "relabelled": "relabelled"}
    for a, b in zip(one, other, strict=True):
        assert (b["key"], b["change"]) == (a["key"], swapped[a["change"]])
        assert (b["reason_before"], b["reason_after"]) == (a["reason_after"], a["reason_before"])


def test_a_selection_does_not_differ_from_itself():
    """No rows, and no groups with changes."""
    changes = difference(BEFORE, BEFORE)
    assert changes.num_rows == why(changes).num_rows == 0
    assert changes_per_group(changes, SPACE).to_pylist() == []


def test_changes_are_counted_by_reason_and_by_group():
    """The most frequent pair of reasons first; groups by assigned label with their names."""
    changes = difference(BEFORE, AFTER)
    assert [tuple(row.values()) for row in why(changes).to_pylist()] == [
        ("came", "ratio", None, 2),
        ("relabelled", None, None, 1),
        ("went", None, "duplicate", 1),
    ]
    assert changes_per_group(changes, SPACE).to_pylist() == [
        {"group": 0, "name": "cat", "came": 2, "went": 0, "relabelled": 0},
        {"group": 1, "name": "dog", "came": 0, "went": 1, "relabelled": 1},
    ]


def test_a_topped_up_pool_has_keys_that_were_not_there():
    """They come without a reason or a label before; dropped ones are no change."""
    more = selection(
        [None, "ratio", None, None, "teacher", "ratio", None, "ratio"], [0, 0, *[1] * 6]
    )
    (row,) = difference(BEFORE.slice(0, 5), more).to_pylist()
    assert (row["key"], row["change"], row["reason_before"], row["label_before"]) == (
        6,
        "came",
        None,
        None,
    )


def test_continuous_labels_are_compared_and_grouped_alike():
    """A teacher's value in place of the assigned one is another label, counted by its part."""
    space = ContinuousLabels(unit="degrees", low=0, high=10, groups=2)
    before = selection([None, None], [1.5, 7.0])
    after = selection([None, "teacher"], [1.5, 7.0], label=[1.75, 7.0])
    changes = difference(before, after)
    assert changes["label_after"].to_pylist() == [1.75, 7.0]
    assert [tuple(row.values()) for row in changes_per_group(changes, space).to_pylist()] == [
        (0, "0 … 5", 0, 0, 1),
        (1, "5 … 10", 0, 1, 0),
    ]


def test_selections_of_different_pools_are_refused():
    """A key whose assigned label differs cannot be the same sample."""
    with pytest.raises(BadInput, match="key 1 is labelled 0 in one selection and 1 in the other"):
        difference(selection([None, None], [0, 0]), selection([None, None], [0, 1]))


def test_what_is_kept_is_counted_by_the_labels_given():
    """Not by those assigned; a group without any is there with none."""
    assert kept_per_group(BEFORE, SPACE) == {"cat": 1, "dog": 2}
    assert kept_per_group(AFTER, SPACE) == {"cat": 3, "dog": 1}
    space = ContinuousLabels(unit="degrees", low=0, high=10, groups=2)
    assert kept_per_group(selection([None, None], [1.5, 2.0], [7.0, 10.0]), space) == {
        "0 … 5": 0,
        "5 … 10": 2,
    }
