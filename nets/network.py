"""What every network here is: one linear layer over features, and how it is initialised.

And the moving average of any module.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

SomeModule = TypeVar("SomeModule", bound=nn.Module)


class Network(nn.Module, ABC):
    """A network whose outputs are one linear layer over its features."""

    @abstractmethod
    def features(self, images: torch.Tensor) -> torch.Tensor:
        """The penultimate activations `[n, d]` of images `[n, c, h, w]` in [−1, 1]."""

    @abstractmethod
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The outputs `[n, outputs]` of images `[n, c, h, w]` in [−1, 1]: logits or values."""


class WithoutValues(TorchFunctionMode):
    """A context in which modules are made with shapes alone, for weights that replace theirs.

    They lie on the meta device, where normal numbers are drawn by Python code that first imports
    SymPy, for as long as a whole small pool takes to score: none are drawn.
    """

    def __enter__(self) -> "WithoutValues":
        self._device = torch.device("meta")
        self._device.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._device.__exit__(*error)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.normal_, nn.init.normal_, nn.init.kaiming_normal_):
            return kwargs["tensor"] if kwargs and "tensor" in kwargs else args[0]
        return func(*args, **(kwargs or {}))


def pooled(maps: torch.Tensor) -> torch.Tensor:
    """The mean `[n, c]` over the height and width of feature maps `[n, c, h, w]`."""
    # On a CPU the gradient of mean((2, 3)) reaches a channels_last map in the wrong layout, and
    # every layer below pays for it (6× for 256 maps of 8×8); as a [n, h·w, c] view it does not.
    if maps.is_contiguous(memory_format=torch.channels_last):
        return maps.permute(0, 2, 3, 1).flatten(1, 2).mean(1)
    return maps.mean((2, 3))


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """A 3×3 convolution without bias that keeps the size at stride 1."""
    return nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)


def initialise_convolutions(network: nn.Module) -> None:
    """Sets every convolution's weights to He's normal distribution over the outputs, bias to 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class MovingAverage(Generic[SomeModule]):
    """A copy of a module, `module`, whose tensors follow the module's own with a lag.

    Statistics are averaged as well as weights, as in BigGAN: those of the latest network do not
    fit averaged weights. Counts are those of the latest network.

    >>> network = nn.Linear(1, 1)
    >>> average = MovingAverage(network)
    >>> average.update(decay=0.99)
    >>> average.module.training
    False
    """

    def __init__(self, module: SomeModule) -> None:
        self.module: SomeModule = copy.deepcopy(module).eval().requires_grad_(False)
        pairs = list(zip(_tensors(self.module), _tensors(module), strict=True))
        averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        self._counts = [pair for pair in pairs if not pair[0].is_floating_point()]
        self._followers = [follower for follower, _ in averaged]
        self._leaders = [leader for _, leader in averaged]

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """Moves every tensor to decay · average + (1 − decay) · module, all at once."""
        if decay == 0:
            torch._foreach_copy_(self._followers, self._leaders)
        else:
            torch._foreach_lerp_(self._followers, self._leaders, 1 - decay)
        for follower, leader in self._counts:
            follower.copy_(leader)


def _tensors(module: nn.Module) -> Iterable[Tensor]:
    return (tensor.detach() for tensor in (*module.parameters(), *module.buffers()))
