"""The arms as the design names them, and the choice of steps and learning rates."""

import math

import pytest

from cgankd.shardset.errors import TrainingDiverged
from cgankd.student.arms import (
    ARMS,
    arms_of,
    choose,
    images_seen,
    promising,
    starts_from_no_kd,
    steps_of,
)


def test_arms_are_those_of_the_comparison():
    """Each with its generated images, its reals and its loss."""
    facts = {
        name: (arm.selection, arm.reals, arm.method, arm.compute) for name, arm in ARMS.items()
    }
    assert facts == {
        "no-kd": (None, "budget", None, 1),
        "no-kd-equal-compute": (None, "budget", None, 2),
        "raw": ("raw", "budget", None, 1),
        "subsampled": ("subsampled", "budget", None, 1),
        "filtered": ("filtered", "budget", None, 1),
        "relabelled": ("relabelled", "budget", None, 1),
        "cgan-kd": ("cgan-kd", "budget", None, 1),
        "hinton": (None, "budget", "hinton", 1),
        "raw+hinton": ("raw", "budget", "hinton", 1),
        "cgan-kd+hinton": ("cgan-kd", "budget", "hinton", 1),
        "all-real": (None, "all", None, 1),
    }


def test_equal_compute_sees_as_many_images_as_the_arms_that_fine_tune():
    """Twice those of no-kd; from scratch every other arm sees as many as no-kd."""
    assert images_seen(ARMS["no-kd"], "no-kd", 100, 8) == 800
    fine_tuned = {
        images_seen(arm, "no-kd", 100, 8) for name, arm in ARMS.items() if name != "no-kd"
    }
    assert fine_tuned == {1600}
    scratch = {images_seen(arm, "scratch", 100, 8) for arm in ARMS.values() if arm.compute == 1}
    assert scratch == {800}
    assert steps_of(ARMS["no-kd-equal-compute"], 100) == 200
    assert not starts_from_no_kd(ARMS["no-kd-equal-compute"], "no-kd")
    assert starts_from_no_kd(ARMS["hinton"], "no-kd")
    assert not starts_from_no_kd(ARMS["hinton"], "scratch")


def test_continuous_labels_have_no_arms_that_distil():
    """There are no logits to follow; all other arms are those of the classes, in their order."""
    assert arms_of("classification") == tuple(ARMS)
    distilled = {"hinton", "raw+hinton", "cgan-kd+hinton"}
    assert arms_of("regression") == tuple(name for name in ARMS if name not in distilled)


def figures(*accuracies, loss=1.0):
    """One validation row per seed; None for a training that diverged."""
    return [a if a is None else {"accuracy": a, "cross_entropy": loss} for a in accuracies]


def test_the_best_mean_accuracy_over_seeds_is_chosen():
    """A lucky seed does not outweigh an unlucky one."""
    assert choose({0.1: figures(90, 80), 0.3: figures(86, 86), 1.0: figures(85, 85)}) == 0.3


def test_cross_entropy_breaks_a_tie():
    """Few validation images often give equal accuracies."""
    tied = {(100, 0.1): figures(90, loss=0.4), (200, 0.1): figures(90, loss=0.3)}

    assert choose(tied) == (200, 0.1)


def test_the_smallest_mean_error_is_chosen_and_rmse_breaks_a_tie():
    """For continuous labels less is better."""
    rows = {
        name: [{"mae": error, "rmse": square} for error, square in pairs]
        for name, pairs in {
            "lucky": [(1.0, 2.0), (4.0, 5.0)],
            "even": [(2.0, 3.0), (2.0, 3.0)],
            "even, fewer outliers": [(1.0, 2.5), (3.0, 3.0)],
        }.items()
    }
    assert choose(rows) == "even, fewer outliers"


def test_a_setting_that_diverged_for_one_seed_is_ruled_out():
    """However good its other seeds were."""
    assert choose({0.1: figures(80, 80), 0.3: figures(99, None)}) == 0.1


def test_nothing_but_divergence_is_an_error_with_advice():
    """The message names what was tried."""
    with pytest.raises(TrainingDiverged, match=r"0\.1, 0\.3.*smaller learning rates"):
        choose({0.1: figures(None), 0.3: figures(90, None)})


def test_the_better_half_goes_on_and_what_is_as_good():
    """Half of three is two; among 100 images a quarter of an error at 90 % is 0.75 points."""
    rates = {0.1: figures(90), 0.3: figures(80), 1.0: figures(89)}
    assert promising(rates, images=100) == [0.1, 1.0]
    assert promising({0.1: figures(90), 1.0: figures(89)}, images=100) == [0.1]
    assert promising({0.1: figures(90), 1.0: figures(89.3)}, images=100) == [0.1, 1.0]
    assert promising({0.1: figures(90), 1.0: figures(89.3)}, images=400) == [0.1]


def test_errors_halve_likewise_and_what_diverged_is_out():
    """The error of a mean error is the spread of errors: 3 of √(5² − 4²), by ten for 100 images."""
    rows = {error: [{"mae": error, "rmse": math.hypot(error, 3.0)}] for error in (4.0, 4.05, 4.1)}
    assert promising({e: rows[e] for e in (4.0, 4.05)}, images=100) == [4.0, 4.05]
    assert promising({e: rows[e] for e in (4.0, 4.1)}, images=100) == [4.0]
    assert promising({0.1: figures(None), 0.3: figures(50)}, images=100) == [0.3]
    assert promising({0.1: figures(None), 0.3: figures(None)}, images=100) == [0.1, 0.3]
