"""Fréchet distances against closed forms and another way of computing them."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from cgankd.curation.metrics.fidelity import frechet_distance, label_score
from cgankd.shardset.errors import BadInput


def test_distance_of_shifted_and_scaled_samples_is_the_closed_form():
    """Moving by m and scaling by s gives |m|² + Σ (s − 1)²·variance."""
    features = np.random.default_rng(0).normal(size=(500, 4))
    other = 3 * features + np.array([1.0, 0, 2, 0]) - 2 * features.mean(0)
    expected = 5 + 4 * features.var(0, ddof=1).sum()
    assert frechet_distance(features, other) == pytest.approx(expected)


def test_distance_agrees_with_the_matrix_root():
    """As with scipy's general matrix square root, on correlated features of unequal sizes."""
    random = np.random.default_rng(1)
    first = random.normal(size=(300, 6)) @ random.normal(size=(6, 6))
    second = random.normal(size=(200, 6)) @ random.normal(size=(6, 6)) + 0.5
    c1, c2 = np.cov(first.T), np.cov(second.T)
    gap = first.mean(0) - second.mean(0)
    expected = gap @ gap + np.trace(c1 + c2 - 2 * sqrtm(c1 @ c2).real)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance(second, first) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize("samples", [30, 400])
def test_distance_of_singular_covariances_is_that_of_singular_values(samples):
    """Fewer samples than features, or features of one value: tr (Σ₁Σ₂)^½ is then computed as the
    nuclear norm of the product of two centred sample matrices.
    """
    random = np.random.default_rng(3)
    first = random.normal(size=(samples, 40)) * np.r_[np.ones(30), np.zeros(10)]
    second = random.normal(size=(25, 40)) + 0.1
    one, other = first - first.mean(0), second - second.mean(0)
    gap = first.mean(0) - second.mean(0)
    traces = np.sum(one**2) / (samples - 1) + np.sum(other**2) / 24
    overlap = np.linalg.svd(one @ other.T, compute_uv=False).sum() / ((samples - 1) * 24) ** 0.5
    expected = gap @ gap + traces - 2 * overlap
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-6)


def test_distance_to_itself_is_zero():
    """Also where there are fewer samples than features."""
    features = np.random.default_rng(2).normal(size=(5, 20)).astype(np.float32)
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    "features", [np.zeros((1, 3)), np.zeros(3), np.full((4, 3), np.nan)], ids=["1", "flat", "nan"]
)
def test_unusable_features_are_refused(features):
    """One sample, no matrix, or not numbers."""
    with pytest.raises(BadInput, match="the second features are"):
        frechet_distance(np.zeros((4, 3)), features)


def test_features_of_two_nets_are_refused():
    """They have different lengths."""
    with pytest.raises(BadInput, match="from one net"):
        frechet_distance(np.zeros((4, 3)), np.zeros((4, 2)))


def test_label_score_is_the_mean_difference():
    """In the unit of the labels."""
    labels, predicted = np.array([10.0, 20, 21]), np.array([13.0, 18, 21])
    assert label_score(predicted, labels) == pytest.approx(5 / 3)
