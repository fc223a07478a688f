"""The moving average of a generator: weights and batch-norm statistics alike."""

import copy
from collections.abc import Iterable
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


class MovingAverage(Generic[Network]):
    """A copy of a module whose tensors follow the module's own with a lag.

    Statistics are averaged as well as weights, as in BigGAN: those of the latest network do not
    fit averaged weights.
    """

    def __init__(self, module: Network) -> None:
        self.module: Network = copy.deepcopy(module).eval().requires_grad_(False)
        self._followers = list(_tensors(self.module))
        self._leaders = list(_tensors(module))

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """Moves every tensor to decay · average + (1 − decay) · module, all at once."""
        if decay == 0:
            torch._foreach_copy_(self._followers, self._leaders)
        else:
            torch._foreach_lerp_(self._followers, self._leaders, 1 - decay)


def _tensors(module: nn.Module) -> Iterable[Tensor]:
    return (tensor.detach() for tensor in (*module.parameters(), *module.buffers()))
