"""What is chosen among checkpoints and strengths."""

import numpy as np
import pytest

from cgankd.curation.density_ratio.judge import (
    CONSTANT_LOSS,
    HeldOut,
    RatioLimits,
    Snapshot,
    choose,
    held_out_loss,
    log_means,
    scaled_by_other_half,
)

LIMITS = RatioLimits()
STRENGTHS = (0.5, 1.0, 2.0)


@pytest.fixture
def held():
    return HeldOut(
        generated_groups=np.arange(6000) % 2,
        real_groups=np.arange(1000) % 2,
        member=np.arange(1000) // 2 % 2,
        groups=2,
    )


def gaussian_snapshot(step=10, power=1.0, shift=0.0, seed=0):
    """Two nets that say (the true ratio of N(1, 1) to N(0, 1))^power · exp(shift)."""
    random = np.random.default_rng(seed)
    generated = random.normal(size=6000) - 0.5
    real = random.normal(size=1000) + 0.5
    return Snapshot(step, np.stack([generated, generated]) * power + shift, real * power + shift)


def test_true_ratio_is_taken_as_it_is(held):
    """Of powers ½, 1 and 2 of the true ratio, 1 has the least held-out loss."""
    chosen = choose([gaussian_snapshot()], STRENGTHS, held, LIMITS)
    assert chosen.strength == 1.0
    assert chosen.loss < CONSTANT_LOSS


def test_too_strong_a_ratio_is_weakened(held):
    """A net that answers with r² is brought back to r."""
    snapshot = gaussian_snapshot(power=2.0, shift=-1.0)  # exp(2x − 2) has mean 1
    wide = RatioLimits(effective_sample=0.0, acceptance=0.0, mean_tolerance=0.9)
    chosen = choose([snapshot], STRENGTHS, held, wide)
    assert chosen.strength == 0.5


def test_least_loss_wins_among_calibrated_checkpoints_only(held):
    """The better ratio is passed over when its mean over generated samples is far from 1."""
    good, off = gaussian_snapshot(step=5, power=0.3), gaussian_snapshot(step=50, shift=-1.0)
    assert held_out_loss(off, 1.0, held) < held_out_loss(good, 2.0, held)
    assert choose([good, off], STRENGTHS, held, LIMITS).snapshot.step == 5


def test_constant_wins_where_nothing_is_better(held):
    """Noise gains nothing: the strength is 0."""
    random = np.random.default_rng(1)
    noise = Snapshot(7, random.normal(size=(2, 6000)) * 0.3, random.normal(size=1000) * 0.3)
    chosen = choose([noise], STRENGTHS, held, LIMITS)
    assert (chosen.strength, chosen.loss) == (0.0, CONSTANT_LOSS)


def test_strength_that_leaves_too_few_samples_is_passed_over(held):
    """With a floor of 0.5 on the effective sample size, r (1/e) is too strong and √r is taken."""
    chosen = choose([gaussian_snapshot()], STRENGTHS, held, RatioLimits(effective_sample=0.5))
    assert chosen.strength == 0.5


def test_label_without_a_positive_ratio_is_passed_over(held):
    """A checkpoint at which a label has died cannot be chosen."""
    snapshot = gaussian_snapshot()
    snapshot.generated[:, held.generated_groups == 1] = -np.inf
    wide = RatioLimits(mean_tolerance=0.9)
    assert choose([snapshot], STRENGTHS, held, wide).strength == 0.0


def test_log_means_are_logs_of_means():
    """By label, computed the plain way; 0 where a label is empty or all its ratios are 0."""
    random = np.random.default_rng(0)
    labels = np.array([0, 0, 2, 2, 2, 3])
    logs = random.normal(size=(2, 6))
    logs[:, 5] = -np.inf
    expected = [np.log(np.exp(logs[:, :2]).mean(1)), [0, 0], np.log(np.exp(logs[:, 2:5]).mean(1))]
    assert log_means(logs, labels, 4) == pytest.approx(np.stack([*expected, [0, 0]], axis=1))


def test_halves_scale_each_other():
    """Four samples 1, 2, 3, 4 of a label: 1 and 3 over the mean of 2 and 4, and the reverse."""
    held = HeldOut(np.zeros(4, int), np.zeros(1, int), np.zeros(1, int), 1)
    scaled = scaled_by_other_half(np.log([1.0, 2.0, 3.0, 4.0]), held)
    assert np.exp(scaled) == pytest.approx([1 / 3, 2 / 2, 3 / 3, 4 / 2])


def test_generated_samples_weigh_as_the_reals_do():
    """Three quarters of the reals have label 1, so its single generated sample weighs ¾."""
    held = HeldOut(np.array([0, 0, 1]), np.array([0, 1, 1, 1]), np.zeros(4, int), 2)
    assert held.weights == pytest.approx([0.125, 0.125, 0.75])
