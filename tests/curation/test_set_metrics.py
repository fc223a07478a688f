"""Metrics of sets of features on sets whose answers are known by hand or by a plain definition."""

import numpy as np
import pytest

from cgankd.curation.metrics.fidelity import (
    Overlap,
    authenticity,
    kernel_distance,
    overlap,
    squared_distances,
    squared_radii,
)
from cgankd.curation.metrics.metrics import (
    agreement,
    confidence_gap,
    confidences,
    duplicate_rate,
    effective_sample_size,
    vendi_score,
)
from cgankd.curation.neighbours import components
from cgankd.shardset.errors import BadInput


def gaussian(count: int, seed: int, width: int = 4) -> np.ndarray:
    """Features float32 `[count, width]`."""
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)


@pytest.mark.parametrize("block", [1, 30, 10_000])
def test_distances_are_the_same_in_any_block(monkeypatch, block):
    """Every row comes once, and far from the origin nothing is lost."""
    first, second = gaussian(20, 0) + 1000, gaussian(15, 1) + 1000
    monkeypatch.setattr("cgankd.curation.metrics.fidelity.BLOCK", block)
    parts = list(squared_distances(first, second))
    assert np.concatenate([rows for rows, _ in parts]).tolist() == list(range(20))
    expected = ((first[:, None].astype(float) - second[None].astype(float)) ** 2).sum(2)
    np.testing.assert_allclose(np.concatenate([d for _, d in parts]), expected, rtol=1e-9)


def test_radius_leaves_the_sample_itself_out():
    """On a line at 0, 1, 3 and 3: nearest and second nearest others, a copy at distance 0."""
    line = np.array([[0.0], [1], [3], [3]], np.float16)
    assert squared_radii(line, 1).tolist() == [1, 1, 0, 0]
    assert squared_radii(line, 2).tolist() == [9, 4, 4, 4]


def test_kernel_distance_is_the_mean_over_pairs(monkeypatch):
    """As the sum over all pairs of different samples, one by one, in small blocks."""
    first, second = gaussian(9, 0), gaussian(7, 1) + 1
    monkeypatch.setattr("cgankd.curation.metrics.fidelity.BLOCK", 20)

    def mean(a: np.ndarray, b: np.ndarray, same: bool) -> float:
        kernels = [
            (float(x.astype(float) @ y.astype(float)) / 4 + 1) ** 3
            for i, x in enumerate(a)
            for j, y in enumerate(b)
            if not (same and i == j)
        ]
        return sum(kernels) / len(kernels)

    expected = mean(first, first, True) + mean(second, second, True)
    expected -= 2 * mean(first, second, False)
    assert kernel_distance(first, second) == pytest.approx(expected, rel=1e-9)


def test_kernel_distance_of_like_sets_is_about_zero():
    """Unbiased: its mean over draws is 0 within four standard errors, at unequal sizes."""
    found = [kernel_distance(gaussian(30, 2 * s), gaussian(50, 2 * s + 1)) for s in range(60)]
    assert abs(np.mean(found)) < 4 * np.std(found) / np.sqrt(60)


def test_overlap_by_hand():
    """On a line, k = 1: real 0, 1, 10, 11 (balls of 1), generated 0.5, 0.6, 10.5, 40."""
    real = np.array([[0.0], [1], [10], [11]])
    generated = np.array([[0.5], [0.6], [10.5], [40.0]])
    # Balls of the generated: 0.1, 0.1, 9.9 and 29.5, the last two of which hold 1, 10 and 11; the
    # one of 10.5 reaches down to 0.6, so it holds 1 and not 0.
    assert overlap(generated, real, k=1) == Overlap(0.75, 0.75, 6 / 4, 1.0)


def test_collapse_shows_as_recall_and_coverage_not_as_precision():
    """One image a hundred times lies well among the real ones and covers next to none of them."""
    real = gaussian(200, 0)
    found = overlap(np.repeat(real[:1] + 0.01, 100, 0), real)
    assert found.precision == 1
    assert found.recall == 0
    assert found.coverage < 0.1


def test_real_features_that_are_all_equal_are_refused():
    """No ball has a size then."""
    with pytest.raises(BadInput, match="5 equal ones, so no ball has a size"):
        overlap(gaussian(10, 0), np.ones((10, 4)))


def test_vendi_counts_different_directions():
    """Three orthogonal directions, equally often, count as 3 at any length; one counts as 1."""
    rows = np.repeat(np.diag([1.0, 2.0, 5.0]), 4, axis=0)
    assert vendi_score(rows) == pytest.approx(3)
    assert vendi_score(rows[:4]) == pytest.approx(1)


def test_vendi_of_half_the_digits_is_the_same():
    """float32 features give what float64 ones do, and those what singular values do."""
    features = np.random.default_rng(1).normal(size=(200, 32)) * np.logspace(0, -2, 32)
    rows = features / np.linalg.norm(features, axis=1, keepdims=True)
    weights = np.linalg.svd(rows, compute_uv=False) ** 2 / len(rows)
    expected = np.exp(-(weights * np.log(weights)).sum())
    assert vendi_score(features) == pytest.approx(expected, rel=1e-9)
    assert vendi_score(features.astype(np.float32)) == pytest.approx(expected, rel=1e-5)


def test_vendi_refuses_features_without_a_direction():
    """A row of zeros has no length to divide by."""
    with pytest.raises(BadInput, match="of 1 of 2 samples are all 0"):
        vendi_score(np.array([[0.0, 0.0], [1.0, 0.0]]))


def test_authenticity_is_its_plain_definition():
    """Farther from the nearest real one than this from its nearest other, one by one."""
    generated, real = gaussian(80, 0), gaussian(60, 1)
    authentic = 0
    for sample in generated:
        gaps = np.linalg.norm(real - sample, axis=1)
        nearest = gaps.argmin()
        others = np.linalg.norm(np.delete(real, nearest, 0) - real[nearest], axis=1)
        authentic += gaps[nearest] > others.min()
    assert authenticity(generated, real) == authentic / 80
    assert 0.3 < authentic / 80 < 0.8


def test_copies_of_real_images_are_not_authentic():
    """Also where the real image itself is there twice."""
    real = gaussian(20, 3)
    assert authenticity(real[:5], np.concatenate([real, real[:1]])) == 0


def test_calibration_error_by_hand():
    """Two sure answers of which one is wrong, and two at ¾ that are right."""
    sure, three_quarters = [100.0, 0.0], [np.log(3), 0.0]
    logits = np.array([sure, sure, three_quarters, three_quarters])
    found = confidence_gap(*confidences(logits, np.array([0, 1, 0, 0])))
    assert found == pytest.approx(0.5 * 0.5 + 0.5 * 0.25)


def test_agreement_is_exact_for_classes_and_within_reach_for_numbers():
    """A half of the classes; two of three numbers within 1."""
    assert agreement(np.array([0, 1]), np.array([0, 2])) == 0.5
    assert agreement(np.array([0.0, 5, 9]), np.array([1.0, 5, 7]), within=1) == pytest.approx(2 / 3)


def test_duplicate_rate_counts_one_of_each_connected_group():
    """0-1-2 are one picture and 3-4 another, also where the 1 that connects 0 with 2 is gone."""
    groups = components(np.array([0, 1, 3]), np.array([1, 2, 4]), 6)
    assert duplicate_rate(groups) == pytest.approx(1 - 3 / 6)
    assert duplicate_rate(groups[[0, 2]]) == pytest.approx(1 / 2)
    assert duplicate_rate(groups[[0, 3, 5]]) == 0


def test_effective_size_runs_from_one_to_all():
    """Equal ratios count all, one that dominates counts 1, and tiny ones do not underflow."""
    assert effective_sample_size(np.full(7, 1e-300)) == pytest.approx(7)
    assert effective_sample_size(np.array([1e300, 0, 0])) == pytest.approx(1)
    assert effective_sample_size(np.array([1.0, 3.0])) == pytest.approx(16 / 10)
    assert effective_sample_size(np.zeros(3)) == 0


@pytest.mark.parametrize("metric", [kernel_distance, overlap, authenticity])
def test_features_that_are_not_numbers_are_refused(metric):
    """The message names the metric's side and what is expected."""
    with pytest.raises(BadInput, match=r"the second features are .* all finite"):
        metric(gaussian(10, 0), np.full((10, 4), np.nan))


def test_numbers_that_do_not_fit_are_refused():
    """Ratios that are no numbers, no samples, labels without predictions."""
    with pytest.raises(BadInput, match="leave out samples that failed"):
        effective_sample_size(np.array([1.0, np.nan]))
    with pytest.raises(BadInput, match="no samples"):
        duplicate_rate(np.empty(0, np.int64))
    with pytest.raises(BadInput, match="expected one for each"):
        agreement(np.zeros(2), np.zeros(3))
    with pytest.raises(BadInput, match="all finite"):
        confidence_gap(*confidences(np.full((2, 3), np.nan), np.zeros(2, int)))
