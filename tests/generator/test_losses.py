"""The two losses by hand."""

import math

import torch

from cgankd.generator.game import LOSSES


def test_hinge_values_by_hand() -> None:
    """Real images pay below 1, generated ones above −1; the generator pays its negative score."""
    hinge, scores = LOSSES["hinge"], torch.tensor([-2.0, -0.5, 0.0, 1.0, 3.0])

    assert hinge.real(scores).tolist() == [3.0, 1.5, 1.0, 0.0, 0.0]
    assert hinge.fake(scores).tolist() == [0.0, 0.5, 1.0, 2.0, 4.0]
    assert hinge.generator(scores).tolist() == [2.0, 0.5, 0.0, -1.0, -3.0]


def test_vanilla_values_by_hand() -> None:
    """Cross-entropies of the logistic of a score; log 3 has the logistic ¾."""
    vanilla, scores = LOSSES["vanilla"], torch.tensor([0.0, math.log(3)])

    torch.testing.assert_close(vanilla.real(scores), torch.tensor([2.0, 4 / 3]).log())
    torch.testing.assert_close(vanilla.fake(scores), torch.tensor([2.0, 4.0]).log())
    assert torch.equal(vanilla.generator(scores), vanilla.real(scores))
