"""The density ratio of continuous labels where the truth is known: the benchmark in short."""

import numpy as np
import pytest

from benchmarks.circle_of_gaussians import (
    BETWEEN,
    generated,
    measure,
    real,
    true_log_ratio,
    wasserstein,
)
from cgankd.curation.density_ratio import RatioConfig


def test_ratio_ranks_as_the_truth_and_subsampling_moves_towards_it():
    """At held-out labels: rank correlation of at least 0.9, 2-Wasserstein distance 30 % lower."""
    found = measure(RatioConfig(steps=300), 0, judged=BETWEEN[::8])
    assert found.problems == []
    assert found.rank_correlation > 0.9
    assert found.pooled_rank_correlation > 0.9
    assert found.kept_distance < 0.7 * found.raw_distance


def test_the_true_ratio_has_mean_one_over_generated_points():
    """And its inverse over real ones: both densities are those that are drawn from."""
    random = np.random.default_rng(0)
    labels = np.full(200_000, 0.3)
    assert np.exp(true_log_ratio(generated(labels, random), labels)).mean() == pytest.approx(
        1, abs=0.02
    )
    assert np.exp(-true_log_ratio(real(labels, random), labels)).mean() == pytest.approx(
        1, abs=0.02
    )


def test_distance_of_a_shifted_sample_is_the_shift():
    """In any order of the points."""
    points = np.random.default_rng(0).normal(size=(20, 2))
    assert wasserstein(points, points[::-1] + np.array([0.3, 0.4])) == pytest.approx(0.5)
