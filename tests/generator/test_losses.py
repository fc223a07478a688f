"""The two losses by hand."""

import math

import torch

from cgankd.generator.losses import (
    hinge_fake,
    hinge_generator,
    hinge_real,
    vanilla_fake,
    vanilla_real,
)


def test_hinge_values_by_hand() -> None:
    """Real images pay below 1, generated ones above −1; the generator pays its negative score."""
    scores = torch.tensor([-2.0, -0.5, 0.0, 1.0, 3.0])

    assert hinge_real(scores).tolist() == [3.0, 1.5, 1.0, 0.0, 0.0]
    assert hinge_fake(scores).tolist() == [0.0, 0.5, 1.0, 2.0, 4.0]
    assert hinge_generator(scores).tolist() == [2.0, 0.5, 0.0, -1.0, -3.0]


def test_vanilla_values_by_hand() -> None:
    """Cross-entropies of the logistic of a score; log 3 has the logistic ¾."""
    scores = torch.tensor([0.0, math.log(3)])

    torch.testing.assert_close(vanilla_real(scores), torch.tensor([2.0, 4 / 3]).log())
    torch.testing.assert_close(vanilla_fake(scores), torch.tensor([2.0, 4.0]).log())
