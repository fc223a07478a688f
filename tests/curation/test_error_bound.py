"""The terms of the error bound, by hand."""

import numpy as np
import pytest

from cgankd.curation.metrics.error_bound import bound_terms, label_loss, which_to_work_on
from cgankd.shardset.errors import BadInput
from cgankd.shardset.labels import ClassLabels, ContinuousLabels


def test_terms_by_hand():
    """A quarter real images take a quarter off the generated samples' two terms."""
    terms = bound_terms(
        "raw", disagreement=0.1, teacher_error=0.06, accuracy=0.7, generated=75, reals=25
    )
    assert terms.labels == pytest.approx(0.75 * 0.16)
    assert terms.distance == pytest.approx(0.75 * 0.4)
    assert terms.sample_size == pytest.approx(np.sqrt(np.log(40) / 200))
    assert terms.largest == "distance"
    assert terms.line() == (
        "raw: labels 0.120, distance 0.300, sample size 0.136; the largest is distance: subsample "
        "by density ratio, or train the generator longer"
    )


def test_sets_side_by_side_name_what_to_work_on():
    """Replaced labels leave the teacher's own error; the least sum wins."""
    raw = bound_terms(
        "raw", disagreement=0.2, teacher_error=0.05, accuracy=0.7, generated=40_000, reals=0
    )
    replaced = bound_terms(
        "replaced", disagreement=0, teacher_error=0.05, accuracy=0.49, generated=20_000, reals=0
    )
    assert replaced.distance == 0
    assert which_to_work_on([raw, replaced]).startswith(
        "of 2 sets replaced has the least sum; replaced: labels 0.050, distance 0.000"
    )
    assert replaced.largest == "labels"


def test_label_loss_is_a_share_for_classes_and_of_the_range_for_numbers():
    """Both in [0, 1]."""
    classes = ClassLabels(names=("a", "b"))
    assert label_loss(np.array([0, 1, 1, 1]), np.array([0, 1, 0, 1]), classes) == 0.25
    angles = ContinuousLabels(unit="degrees", low=-60, high=60)
    assert label_loss(np.array([-30.0, 200]), np.array([30.0, 0]), angles) == pytest.approx(0.75)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"accuracy": 70.0}, "accuracy is 70, expected 0 … 1"),
        ({"teacher_error": float("nan")}, "teacher_error is nan"),
        ({"generated": 0}, "expected at least 1"),
        ({"confidence": 1.0}, "below 1"),
    ],
)
def test_numbers_out_of_range_are_refused(change, message):
    """Percents for shares, most of all."""
    given = {"disagreement": 0, "teacher_error": 0, "accuracy": 0.5, "generated": 1, "reals": 0}
    with pytest.raises(BadInput, match=message):
        bound_terms("raw", **(given | change))


def test_nothing_to_compare_is_refused():
    """No set, or labels without predictions."""
    with pytest.raises(BadInput, match="no set"):
        which_to_work_on([])
    with pytest.raises(BadInput, match="expected one for each"):
        label_loss(np.zeros(1), np.zeros(2), ClassLabels(names=("a", "b")))
