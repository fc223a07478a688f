"""Adam on all weights as one vector."""

import copy

import torch
from torch import nn

from cgankd.generator.flat_adam import FlatAdam
from cgankd.nets.device import placed


def test_every_weight_moves_as_by_adam_on_single_weights() -> None:
    """Over three steps; what is frozen stays, and layouts and shapes are as they were."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 2), nn.Linear(2, 2))
    placed(network, torch.device("cpu"))
    network[3].requires_grad_(False)
    other = copy.deepcopy(network)
    strides = [weight.stride() for weight in network.parameters()]
    ours = FlatAdam(network, 0.1, (0.5, 0.9))
    theirs = torch.optim.Adam(other[:3].parameters(), 0.1, (0.5, 0.9))

    for _ in range(3):
        images = torch.randn(5, 3, 4, 4)
        network(images).square().sum().backward()
        ours.update()
        theirs.zero_grad()
        other(images).square().sum().backward()
        theirs.step()

    torch.testing.assert_close(network.state_dict(), other.state_dict())
    assert [weight.stride() for weight in network.parameters()] == strides
    assert all(weight.grad is None for weight in network.parameters())
