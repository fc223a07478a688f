"""The widths of vicinities against the published runs of CcGAN."""

import numpy as np
import pytest

from cgankd.generator.config import Vicinity
from cgankd.generator.game import kernel_sigma, reach, vicinity_kappa

AGES = np.arange(1, 61) / 60  # UTKFace
ANGLES = np.arange(1, 900, 2) / 10 / 90  # RC-49: 0.1, 0.3, … 89.9 degrees


def test_rc_49_has_the_published_sigma() -> None:
    """25 images of each of 450 angles. (UTKFace's σ needs its histogram of ages.)"""
    assert kernel_sigma(np.repeat(ANGLES, 25)) == pytest.approx(0.04736784919541229, rel=1e-12)


@pytest.mark.parametrize(
    ("labels", "factor", "kind", "expected"),
    [
        (AGES, -1, "soft", 3600),
        (AGES, -2, "hard", 1 / 30),
        (ANGLES, -2, "hard", 0.4 / 90),
        (ANGLES, -2, "soft", 50625),
        (np.array([0.5, 0.1, 0.1, 0.2]), -1, "hard", 0.3),
        (AGES, 1000.0, "soft", 1000.0),
    ],
)
def test_kappa_is_that_of_the_published_runs(
    labels: np.ndarray, factor: float, kind: Vicinity, expected: float
) -> None:
    """−m is m times the largest gap, one over its square if soft; a positive one is taken."""
    assert vicinity_kappa(labels, factor, kind) == pytest.approx(expected)


def test_a_vicinity_reaches_as_far_as_its_weights() -> None:
    """A hard one to κ; a soft one to where exp(−κ d²) is 0.001."""
    assert reach(0.05, "hard") == 0.05
    assert np.exp(-3600 * reach(3600, "soft") ** 2) == pytest.approx(1e-3)
