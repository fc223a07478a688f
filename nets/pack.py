"""Packs: small networks of one kind as one network with a leading axis, and their optimiser.

A step of `convnet-1k` costs more in calls of operators than in arithmetic; a pack makes each call
once for all its members. What a member computes depends neither on the others nor on its place:
every operator works on a member alone, the same way at every place, and a member's weights begin
at a cache line.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cgankd.nets.device import placed
from cgankd.nets.network import Network
from cgankd.nets.networks import ConvNet, NetworkName, fill_network
from cgankd.shardset.errors import BadInput

# The networks that train faster in packs, and up to what size of images in px. Larger ones gain
# nothing: of the 2.7 ms that forward and backward of convnet-11k take (16 px, batch 64), the calls
# of operators are a twentieth, and at 28 px convnet-1k takes 1.6 ms either way.
PACKED: Mapping[NetworkName, int] = MappingProxyType({"convnet-1k": 16})
MEMBERS = 8  # of every pack; 16 are hardly faster each, and fill less often
LINE = 16  # floats in a cache line of 64 bytes


class Pack(nn.Module):
    """Networks of one kind, a convolution and a linear layer each, that compute side by side.

    They take images of `shape` [c, h, w], h = w. `weights` is float `[members, n]`, one row a
    network.
    """

    _patches: Tensor

    def __init__(self, networks: Sequence[Network], shape: tuple[int, ...]) -> None:
        super().__init__()
        first = networks[0]
        if not isinstance(first, ConvNet) or not isinstance(first.layers[0], nn.Conv2d):
            raise BadInput(f"a {type(first).__name__} cannot be a member of a pack")
        self._shapes = [tensor.shape for tensor in first.parameters()]
        # Every tensor is followed by what is missing to whole cache lines.
        self._sizes = [
            size for shape in self._shapes for size in (shape.numel(), -shape.numel() % LINE)
        ]
        # In a tuple, so that its own weights are not the pack's.
        self._example = (copy.deepcopy(first).eval().requires_grad_(False),)
        self._grid = first.grid
        self._side, self._patch, patches = _patches(first.layers[0], shape)
        self.register_buffer("_patches", patches, persistent=False)
        self.weights = nn.Parameter(torch.stack([self._row(network) for network in networks]))

    def forward(self, images: Tensor) -> Tensor:
        """The outputs `[members, b, outputs]` of images `[members, b, c, h, w]` in [−1, 1]."""
        members, batch = images.shape[:2]
        kernels, biases, linear, shifts = self.weights.split(self._sizes, 1)[::2]
        # The images need no gradient, so that a convolution is one product with their patches.
        # Picked by number: a strided copy of so small pieces takes five times as long.
        pixels = F.pad(images.flatten(0, 1).flatten(1), (1, 0))
        patches = pixels.index_select(1, self._patches).view(members, -1, self._patch)
        kernels = kernels.unflatten(1, (-1, self._patch))
        maps = torch.baddbmm(biases[:, None], patches, kernels.mT).relu()
        side, width = self._side, maps.shape[2]
        if side != self._grid:
            maps = maps.view(-1, side, side, width).permute(0, 3, 1, 2)
            maps = F.adaptive_avg_pool2d(maps, self._grid).permute(0, 2, 3, 1)
        features = maps.reshape(members, batch, -1)
        linear = linear.unflatten(1, (-1, features.shape[2]))
        return torch.baddbmm(shifts[:, None], features, linear.mT)

    def member(self, place: int) -> Network:
        """A network of its own, in evaluation mode, that is the member at this place."""
        network = copy.deepcopy(self._example[0])
        parts = self.weights[place].detach().split(self._sizes)[::2]
        names = (name for name, _ in network.named_parameters())
        fill_network(
            network,
            {
                name: part.view(shape)
                for name, part, shape in zip(names, parts, self._shapes, strict=True)
            },
            where="a pack",
        )
        return placed(network, self.weights.device)

    def _row(self, network: Network) -> Tensor:
        flat = [
            F.pad(tensor.detach().flatten(), (0, -tensor.numel() % LINE))
            for tensor in network.parameters()
        ]
        return torch.cat(flat)


def _patches(convolution: nn.Conv2d, shape: tuple[int, ...]) -> tuple[int, int, Tensor]:
    """The side of the maps, the numbers in a patch, and for each place of the maps, row by row,
    which of an image's numbers, counted from 1, are its patch; 0 is the margin.
    """
    numbers = torch.arange(1.0, math.prod(shape) + 1).view(1, *shape)
    side, margin, stride = convolution.kernel_size, convolution.padding, convolution.stride
    assert not isinstance(margin, str)
    columns = F.unfold(numbers, side, padding=margin, stride=stride)
    _, patch, places = columns.shape
    return math.isqrt(places), patch, columns[0].T.flatten().long()


class PackOptimiser(torch.optim.Optimizer):
    """SGD or AdamW as PyTorch's, for weights `[members, n]` of which each row has its own rate.

    The first moments are `moments["mean"]`, in Adam the second are `moments["square"]`. `rates`
    `[members, 1]` is to be set before each step, and `step_number` says which is next, from 1.
    """

    def __init__(
        self, weights: nn.Parameter, *, adam: bool, momentum: float, weight_decay: float
    ) -> None:
        super().__init__([weights], {})
        self.rates = torch.zeros(len(weights), 1, device=weights.device)
        self.step_number = 1
        names = ("mean", "square") if adam else ("mean",)
        self.moments = {name: torch.zeros_like(weights, requires_grad=False) for name in names}
        self._weights, self._momentum, self._decay = weights, momentum, weight_decay

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Moves the weights down their gradient."""
        weights, mean, gradient = self._weights, self.moments["mean"], self._weights.grad
        assert gradient is not None
        if "square" not in self.moments:
            mean.mul_(self._momentum).add_(gradient.add_(weights, alpha=self._decay))
            weights.addcmul_(mean, self.rates, value=-1)
            return
        square, slow = self.moments["square"], 0.999
        weights.mul_(1 - self.rates * self._decay)
        mean.lerp_(gradient, 1 - self._momentum)
        square.mul_(slow).addcmul_(gradient, gradient, value=1 - slow)
        size = (square / (1 - slow**self.step_number)).sqrt_().add_(1e-8)
        share = 1 - self._momentum**self.step_number  # of the mean that is not its start at zero
        weights.addcmul_(mean / size, self.rates, value=-1 / share)
