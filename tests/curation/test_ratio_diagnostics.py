"""Every way in which a density ratio can be no good is seen and named."""

import numpy as np
import pytest

from cgankd.curation.density_ratio.judge import (
    CONSTANT_LOSS,
    RatioLimits,
    diagnose,
    judge_ratio,
)

LIMITS = RatioLimits()


def gaussians(count=4000, seed=0, labels=2):
    """The true ratio of N(1, 1) to N(0, 1), exp(x − ½), on samples of either, by label."""
    random = np.random.default_rng(seed)
    generated = np.exp(random.normal(size=count) - 0.5)
    real = np.exp(random.normal(size=count // 4) + 0.5)
    return generated, np.arange(count) % labels, real, np.arange(count // 4) % labels


def problems(generated, generated_groups, real, real_groups, raw_mean=1.0):
    diagnostics = diagnose(generated, generated_groups, real, real_groups, raw_mean=raw_mean)
    return judge_ratio(diagnostics, LIMITS, ("0", "1"))


def test_the_true_ratio_passes():
    """Nothing is said of a ratio that is right."""
    assert problems(*gaussians()) == []


def test_diagnostics_are_the_moments_of_the_true_ratio():
    """For N(1, 1) over N(0, 1): mean 1 and e, effective size 1/e, Φ(1/√2) told apart."""
    overall = diagnose(*gaussians(400_000), raw_mean=1.0).overall
    assert overall["mean_generated"] == pytest.approx(1, abs=0.02)
    assert overall["mean_real"] == pytest.approx(np.e, rel=0.03)
    assert overall["effective_sample"] == pytest.approx(1 / np.e, rel=0.1)
    assert overall["tell_apart"] == pytest.approx(0.7602, abs=0.005)
    assert overall["acceptance"] == pytest.approx(1 / overall["largest"], rel=1.0)


def test_rows_are_weighted_by_the_real_images():
    """The overall loss is that of the pooled set when labels have equal shares of both."""
    generated, generated_groups, real, real_groups = gaussians(4000)
    result = diagnose(generated, generated_groups, real, real_groups, raw_mean=1.0)
    fit = 1 / (1 + np.exp(-generated)) * generated - np.log1p(np.exp(generated))
    expected = fit.mean() - (1 / (1 + np.exp(-real))).mean()
    assert result.overall["held_out_loss"] == pytest.approx(expected)
    assert [row["label"] for row in result.per_label] == [0, 1]
    assert sum(row["generated_images"] for row in result.per_label) == 4000


def test_constant_ratio_is_refused_as_knowing_nothing():
    """Its loss is that of a constant, its gain 0."""
    generated, generated_groups, real, real_groups = gaussians()
    ones = np.ones_like(generated), generated_groups, np.ones_like(real), real_groups
    assert diagnose(*ones, raw_mean=1.0).overall["held_out_loss"] == pytest.approx(CONSTANT_LOSS)
    (line,) = problems(*ones)
    assert "no better than a constant" in line
    assert "raise the label budget" in line


def test_noise_is_refused_as_knowing_nothing():
    """A ratio that has nothing to do with what is real loses against a constant."""
    random = np.random.default_rng(3)
    generated, generated_groups, real, real_groups = gaussians()
    noise = np.exp(random.normal(size=len(real)) - 0.5)
    assert any(
        "no better than a constant" in line
        for line in problems(generated, generated_groups, noise, real_groups)
    )


def test_all_zero_ratio_is_refused_by_label():
    """A label that would lose every sample is named, with what to change."""
    generated, generated_groups, real, real_groups = gaussians()
    generated = np.where(generated_groups == 1, 0.0, generated)
    lines = problems(generated, generated_groups, real, real_groups)
    assert any(line.startswith("label 1: the ratio is 0 for every") for line in lines)
    everywhere = problems(np.zeros_like(generated), generated_groups, real * 0, real_groups, 0.0)
    assert any(line.startswith("label 0: the ratio is 0 for every") for line in everywhere)
    assert any("mean ratio over held-out generated images is 0.00" in line for line in everywhere)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["generated", "real"])
def test_ratio_that_is_no_number_is_refused(broken, where):
    """One NaN or infinity is enough, on either side."""
    generated, generated_groups, real, real_groups = gaussians()
    (generated if where == "generated" else real)[4] = broken
    with np.errstate(invalid="ignore"):
        (line,) = problems(generated, generated_groups, real, real_groups)
    assert line == "label 0: ratios are not numbers; lower ratio.learning_rate"


def test_uncalibrated_mean_is_refused():
    """A mean of 0.3 over generated samples before scaling is an overfitted ratio."""
    (line,) = problems(*gaussians(), raw_mean=0.3)
    assert "0.30, expected 1 ± 0.25" in line
    assert "ratio.penalty" in line


def test_uncalibrated_label_is_refused():
    """One label's mean may be off while the overall mean is right."""
    generated, generated_groups, real, real_groups = gaussians()
    generated = generated * np.where(generated_groups == 0, 0.5, 1.8)
    lines = problems(generated, generated_groups, real, real_groups)
    assert any(
        "label 1: the mean ratio over generated images is 1.8" in line and "1 more label" in line
        for line in lines
    )


def test_one_sample_that_dominates_is_refused():
    """It alone sets M, so rejection sampling would keep little else."""
    generated, generated_groups, real, real_groups = gaussians()
    generated[0] = 5000.0
    lines = problems(generated, generated_groups, real, real_groups)
    assert any(line.startswith("label 0: one sample's ratio, 5e+03, is") for line in lines)
    assert any("effective sample size" not in line for line in lines)


def test_few_samples_that_carry_the_ratio_are_refused():
    """Two in a hundred with all the weight: effective size and acceptance are below the floor."""
    generated, generated_groups, real, real_groups = gaussians()
    generated = np.where(np.arange(len(generated)) % 200 < 2, 100.0, 0.0)
    lines = problems(generated, generated_groups, real, real_groups)
    assert any("effective sample size is 0.01 of the samples" in line for line in lines)


def test_acceptance_below_the_floor_is_refused():
    """One sample 15 times the 99 % quantile is within the dominance limit, not the floor."""
    generated, generated_groups, real, real_groups = gaussians(40_000)
    generated[:2] = 150.0
    lines = problems(generated, generated_groups, real, real_groups)
    assert any("rejection sampling would accept 0.0067" in line for line in lines)


def test_separable_sets_are_refused():
    """All real samples above all generated ones: the ratio says who is real, not who is good."""
    generated, generated_groups, real, real_groups = gaussians()
    lines = problems(generated, generated_groups, real + generated.max(), real_groups)
    assert any(
        "outrank 100.0% of the generated ones" in line and "not augmented" in line for line in lines
    )
