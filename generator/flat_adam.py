"""Adam on all weights of a network at once: what small networks cost is calls."""

import torch
from torch import Tensor, nn


class FlatAdam(torch.optim.Adam):
    """Adam whose one parameter is the vector of all weights that a network trains.

    The network's weights become views of it, in the order and layout in which they lie; each
    number is updated as by Adam on the single weights.
    """

    def __init__(self, network: nn.Module, lr: float, betas: tuple[float, float]) -> None:
        self._trained = [weight for weight in network.parameters() if weight.requires_grad]
        vector = nn.Parameter(torch.cat([_as_it_lies(weight.data) for weight in self._trained]))
        parts = vector.data.split([weight.numel() for weight in self._trained])
        for weight, part in zip(self._trained, parts, strict=True):
            weight.data = part.as_strided(weight.shape, weight.stride())
        super().__init__([vector], lr, betas, fused=True)
        self._vector = vector

    def update(self) -> None:
        """One step by the gradients of the network's weights, which are then forgotten."""
        # A gradient lies as its weight does: that is autograd's contract for dense weights.
        gradients = [weight.grad for weight in self._trained]
        self._vector.grad = torch.cat([_as_it_lies(g) for g in gradients if g is not None])
        self.step()
        for weight in self._trained:
            weight.grad = None


def _as_it_lies(tensor: Tensor) -> Tensor:
    """A dense tensor's numbers `[n]` in the order of memory."""
    return tensor.as_strided((tensor.numel(),), (1,))
