"""The one loop that fits a network: loss, gradients, optimiser step, learning rate."""

import math
from collections.abc import Callable

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from cgankd.shardset.errors import TrainingDiverged


def minimise(
    loss: Callable[[int], Tensor],
    optimiser: Optimizer,
    steps: int,
    *,
    first: int = 0,
    schedule: LRScheduler | None = None,
    after: Callable[[int, Tensor], None] = lambda step, value: None,
) -> None:
    """Nothing; takes steps first + 1 … steps, each down the gradient of the scalar `loss(step)`.

    `after(step, value)` is called at the end of each with the loss before it, a tensor `[]` on
    the network's device, since reading it makes a GPU wait.

    >>> import torch
    >>> weight = torch.nn.Parameter(torch.tensor(2.0))
    >>> minimise(lambda step: weight**2, torch.optim.SGD([weight], lr=0.25), steps=1)
    >>> weight.item()  # 2 − 0.25 · 4
    1.0
    """
    for step in range(first + 1, steps + 1):
        value = loss(step)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        if schedule is not None:
            schedule.step()
        after(step, value.detach())


def require_finite(value: float, what: str, advice: str) -> float:
    """The loss as it is; `TrainingDiverged` where it is not a number any more.

    >>> require_finite(0.5, "teacher: the loss at step 3", "lower lr")
    0.5
    """
    if not math.isfinite(value):
        raise TrainingDiverged(f"{what} became {value}; {advice}")
    return value
