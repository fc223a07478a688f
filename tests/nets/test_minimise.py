"""The one loop that fits a network."""

import numpy as np
import pytest
import torch

from cgankd.nets.minimise import minimise, require_finite
from cgankd.shardset.errors import TrainingDiverged


def test_steps_go_down_the_gradient_at_the_scheduled_rate():
    """Worked by hand: w² from 2, momentum none, rate halved after the first step."""
    weight = torch.nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
    optimiser = torch.optim.SGD([weight], lr=0.25)
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, step_size=1, gamma=0.5)
    losses = []

    minimise(
        lambda step: weight**2,
        optimiser,
        steps=3,
        schedule=schedule,
        after=lambda step, value: losses.append((step, float(value))),
    )

    by_hand = [2.0]
    for rate in (0.25, 0.125, 0.0625):
        by_hand.append(by_hand[-1] - rate * 2 * by_hand[-1])
    assert losses == [(step, by_hand[step - 1] ** 2) for step in (1, 2, 3)]
    assert weight.item() == by_hand[-1]


def test_a_training_taken_up_again_ends_where_it_would_have():
    def trained(parts: list[tuple[int, int]]) -> np.ndarray:
        torch.manual_seed(0)
        net = torch.nn.Linear(3, 1)
        optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)

        def loss(step: int) -> torch.Tensor:
            draws = torch.Generator().manual_seed(step)
            return net(torch.randn(8, 3, generator=draws)).square().mean()

        for first, steps in parts:
            minimise(loss, optimiser, steps, first=first)
        return net.weight.detach().numpy()

    assert np.array_equal(trained([(0, 7)]), trained([(0, 4), (4, 7)]))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_with_what_to_do(value):
    with pytest.raises(TrainingDiverged, match=r"net: the loss at step 3 became .*; lower lr"):
        require_finite(value, "net: the loss at step 3", "lower lr")
