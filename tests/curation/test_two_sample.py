"""The two-sample check on sets whose distance is known."""

import numpy as np
import pytest
from scipy.stats import norm

from cgankd.curation.metrics.two_sample import two_sample_by_label, two_sample_test
from cgankd.shardset.errors import BadInput


def gaussian(count: int, seed: int, shift: float = 0.0) -> np.ndarray:
    """Features `[count, 3]`, the first moved by `shift`."""
    return np.random.default_rng(seed).normal(size=(count, 3)) + np.eye(3)[0] * shift


def test_like_sets_cannot_be_told_apart_and_the_error_is_honest():
    """Over 60 pairs the mean AUC is about ½, and its spread is the standard error told."""
    found = [two_sample_test(gaussian(60, 2 * s), gaussian(80, 2 * s + 1)) for s in range(60)]
    aucs = np.array([f.auc for f in found])
    assert aucs.mean() == pytest.approx(0.5, abs=0.03)
    assert aucs.std() == pytest.approx(np.mean([f.auc_error for f in found]), rel=0.3)


def test_shifted_set_is_told_apart_as_the_closed_form_says():
    """Gaussians 2 apart: AUC Φ(2/√2), accuracy Φ(1), also at unequal sizes."""
    found = two_sample_test(gaussian(1_000, 0), gaussian(600, 1, shift=2))
    assert abs(found.auc - norm.cdf(2 / np.sqrt(2))) < 4 * found.auc_error
    assert found.accuracy == pytest.approx(norm.cdf(1), abs=0.04)
    assert (found.reals, found.others) == (1_000, 600)
    assert found == two_sample_test(gaussian(1_000, 0), gaussian(600, 1, shift=2))


def test_sets_are_compared_at_equal_sizes_label_by_label():
    """The worse set shows in its own label alone; small labels are left out."""
    real, groups = gaussian(400, 0), np.repeat([0, 1, 2], [200, 195, 5])
    raw = gaussian(900, 1)
    raw_groups = np.repeat([0, 1, 2], [500, 300, 100])
    raw[raw_groups == 1] += 3
    kept = gaussian(300, 2)
    sets = {"raw": (raw, raw_groups), "kept": (kept, np.repeat([0, 1], 150))}
    found = two_sample_by_label(real, groups, sets)
    assert list(found["raw"].per_label) == [0, 1]
    assert {row.others for by in found.values() for row in by.per_label.values()} == {150}
    assert found["raw"].per_label[1].auc > 0.98
    assert abs(found["raw"].per_label[0].auc - 0.5) < 0.12
    assert found["kept"].overall.auc < found["raw"].overall.auc
    weights, aucs = np.array([200, 195]) / 395, [r.auc for r in found["raw"].per_label.values()]
    assert found["raw"].overall.auc == pytest.approx(weights @ aucs)


def test_features_that_are_all_equal_tell_nothing():
    """On both sides: AUC ½, no warning and no division by 0."""
    found = two_sample_test(np.ones((20, 2)), np.ones((20, 2)))
    assert (found.auc, found.auc_error, found.accuracy) == (0.5, 0, 0.5)


def test_too_few_samples_are_refused():
    """On a side, or in every label."""
    with pytest.raises(BadInput, match=r"expected \[n ≥ 10, d\]"):
        two_sample_test(gaussian(9, 0), gaussian(30, 1))
    groups = np.arange(30)
    with pytest.raises(BadInput, match="no label has 10 samples among the reals and in each of a"):
        two_sample_by_label(gaussian(30, 0), groups, {"a": (gaussian(30, 1), groups)})
