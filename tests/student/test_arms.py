"""The arms as the design names them, and the choice of steps and learning rates."""

import math

import pytest

from shardset.errors import BadInput, TrainingDiverged
from student.arms import (
    ARMS,
    choose_learning_rate,
    choose_steps,
    images_seen,
    starts_from_no_kd,
    steps_of,
)


def test_arms_are_those_of_the_comparison():
    """Each with its generated images, its reals and its loss."""
    facts = {
        name: (arm.selection, arm.reals, arm.distillation, arm.compute)
        for name, arm in ARMS.items()
    }
    assert facts == {
        "no-kd": (None, "budget", False, 1),
        "no-kd-equal-compute": (None, "budget", False, 2),
        "raw": ("raw", "budget", False, 1),
        "subsampled": ("subsampled", "budget", False, 1),
        "filtered": ("filtered", "budget", False, 1),
        "relabelled": ("relabelled", "budget", False, 1),
        "cgan-kd": ("cgan-kd", "budget", False, 1),
        "hinton": (None, "budget", True, 1),
        "raw+hinton": ("raw", "budget", True, 1),
        "cgan-kd+hinton": ("cgan-kd", "budget", True, 1),
        "all-real": (None, "all", False, 1),
    }


def test_equal_compute_sees_as_many_images_as_the_arms_that_fine_tune():
    """Twice those of no-kd; from scratch every other arm sees as many as no-kd."""
    assert images_seen("no-kd", "no-kd", 100, 8) == 800
    fine_tuned = {images_seen(name, "no-kd", 100, 8) for name in ARMS if name != "no-kd"}
    assert fine_tuned == {1600}
    scratch = {images_seen(name, "scratch", 100, 8) for name in ARMS if ARMS[name].compute == 1}
    assert scratch == {800}
    assert steps_of(ARMS["no-kd-equal-compute"], 100) == 200
    assert not starts_from_no_kd("no-kd-equal-compute", "no-kd")
    assert starts_from_no_kd("hinton", "no-kd")
    assert not starts_from_no_kd("hinton", "scratch")


def test_fewest_steps_among_the_best_are_chosen():
    """Whatever their order; a tolerance lets a cheaper one win."""
    scores = {2000: 91.0, 500: 88.0, 1000: 90.8, 4000: 91.0}
    assert choose_steps(list(scores), scores.__getitem__).value == 2000
    choice = choose_steps(list(scores), scores.__getitem__, tolerance=0.5)
    assert choice.value == 1000
    assert choice.scores == scores


def test_best_learning_rate_is_chosen_and_divergence_loses():
    """A rate that diverges scores −inf and the search goes on."""

    def validate(rate):
        if rate > 0.5:
            raise TrainingDiverged("too large")
        return {0.01: 80.0, 0.1: 90.0, 0.3: 90.0}[rate]

    choice = choose_learning_rate([1.0, 0.3, 0.1, 0.01], validate)
    assert choice.value == 0.1
    assert choice.scores[1.0] == -math.inf


def test_nothing_to_choose_from_is_refused():
    """No candidate is bad input; candidates that all diverge are a failure."""

    def diverge(rate):
        raise TrainingDiverged("too large")

    with pytest.raises(BadInput, match="at least one candidate"):
        choose_steps([], float)
    with pytest.raises(TrainingDiverged, match=r"every candidate \(0.1, 0.2\)"):
        choose_learning_rate([0.1, 0.2], diverge)
