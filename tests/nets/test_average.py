"""The moving average of weights and statistics."""

import torch
from torch import nn

from cgankd.generator.residual import BatchNorm
from cgankd.nets.network import MovingAverage


def test_weights_and_statistics_follow_with_the_stated_lag() -> None:
    """Both move to decay · average + (1 − decay) · module: parameters and buffers."""
    module = BatchNorm(2)
    average = MovingAverage(module)
    with torch.no_grad():
        module.gain.fill_(3.0)
        module.stored_mean.fill_(2.0)

    average.update(0.75)

    assert average.module.gain.tolist() == [1.5, 1.5]
    assert average.module.stored_mean.tolist() == [0.5, 0.5]


def test_without_decay_the_average_is_the_module() -> None:
    """Before the average starts it is a copy, and never the module itself."""
    module = nn.Linear(2, 2)
    average = MovingAverage(module)
    with torch.no_grad():
        module.weight.add_(1.0)
    average.update(0.0)
    kept = average.module.weight.clone()
    with torch.no_grad():
        module.weight.add_(1.0)

    torch.testing.assert_close(average.module.weight, module.weight - 1.0)
    assert torch.equal(kept, average.module.weight)


def test_the_average_never_trains() -> None:
    """It is in evaluation mode and its weights need no gradient."""
    average = MovingAverage(nn.Linear(2, 2))

    assert not average.module.training
    assert not any(parameter.requires_grad for parameter in average.module.parameters())
