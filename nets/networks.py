"""Every network by its name, for teachers and students alike, and their folders on disk.

The small networks are here too. They are fast on CPUs: few large maps, widths that fill vectors.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import nn

from cgankd.nets.network import Network, WithoutValues, conv3x3, initialise_convolutions
from cgankd.nets.published import VGG, DenseNet121, ResNet, WideResNet
from cgankd.shardset.errors import BadInput, CheckpointError
from cgankd.shardset.weights import load_weights, save_weights

NetworkName = Literal[
    "convnet-1k", "convnet-11k", "convnet-80k", "convnet-700k",
    "resnet8", "resnet20", "resnet32", "resnet56", "resnet110", "resnet8x4", "resnet32x4",
    "wrn_16_1", "wrn_16_2", "wrn_40_1", "wrn_40_2",
    "vgg8", "vgg11", "vgg13", "vgg16", "vgg19", "densenet121",
]  # fmt: skip
SMALLEST = 8  # px
SHAPE = ("outputs", "channels", "size")  # of a network, as its config.json has them
SMALL = 24  # px; below this size the stem does not halve, or 8×8 digits would be pooled away
GRID = 4  # the last feature maps are pooled to at most GRID × GRID and keep their positions


class ConvNet(Network):
    """Layers whose last maps of `width` channels, pooled to `grid` × `grid`, are the features."""

    def __init__(self, layers: nn.Sequential, *, width: int, grid: int, outputs: int) -> None:
        super().__init__()
        self.layers = layers
        self.grid = grid
        self.fc = nn.Linear(width * grid**2, outputs)
        initialise_convolutions(self)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.layers(images)
        if maps.shape[2] != self.grid:
            maps = F.adaptive_avg_pool2d(maps, self.grid)
        # Channels go last: for a channels_last map this is a view, forward and backward.
        return maps.permute(0, 2, 3, 1).flatten(1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.features(images))


class Residual(nn.Module):
    """Two 3×3 convolutions of one width around a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = _activated(conv3x3(width, width))
        self.second = conv3x3(width, width)
        self.bn = nn.BatchNorm2d(width)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return F.relu(maps + self.bn(self.second(self.first(maps))), inplace=True)


def convnet_1k(*, outputs: int, channels: int, size: int) -> ConvNet:
    """One convolution and one linear layer: 1,072 parameters for ten classes of grey images.

    A second convolution gains half a percent on all of the digits and doubles the time of a step;
    batch normalisation gains nothing.
    """
    stem = nn.Conv2d(channels, 6, kernel_size=4, stride=2, padding=1)
    return ConvNet(nn.Sequential(stem, nn.ReLU(inplace=True)), width=6, grid=GRID, outputs=outputs)


def convnet_11k(*, outputs: int, channels: int, size: int) -> ConvNet:
    """Three convolutions without batch normalisation: 11,097 parameters for one number of grey
    16×16 images.

    For numbers normalisation gains nothing, and without it a step is faster.
    """
    layers = nn.Sequential(
        *(nn.Conv2d(channels, 16, 3, stride=2, padding=1), nn.ReLU(inplace=True)),
        *(nn.Conv2d(16, 24, 3, padding=1), nn.ReLU(inplace=True)),
        *(nn.Conv2d(24, 32, 3, stride=2, padding=1), nn.ReLU(inplace=True)),
    )
    return ConvNet(layers, width=32, grid=_grid(size), outputs=outputs)


def convnet_80k(*, outputs: int, channels: int, size: int) -> ConvNet:
    """Four convolutions: 77,482 parameters for ten classes of grey 28×28 images."""
    layers = nn.Sequential(
        _activated(conv3x3(channels, 32, stride=_stem_stride(size))),
        _activated(conv3x3(32, 48, stride=2)),
        _activated(conv3x3(48, 64)),
        _activated(conv3x3(64, 48, stride=2)),
    )
    return ConvNet(layers, width=48, grid=_grid(size), outputs=outputs)


def convnet_700k(*, outputs: int, channels: int, size: int) -> ConvNet:
    """Seven convolutions, two pairs of them residual: 696,394 parameters, a teacher for CPUs."""
    layers = nn.Sequential(
        _activated(conv3x3(channels, 64, stride=_stem_stride(size))),
        Residual(64),
        _activated(conv3x3(64, 128, stride=2)),
        Residual(128),
        _activated(conv3x3(128, 192, stride=2)),
    )
    return ConvNet(layers, width=192, grid=_grid(size), outputs=outputs)


def _activated(convolution: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(
        convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU(inplace=True)
    )


def _stem_stride(size: int) -> int:
    return 1 if size < SMALL else 2


def _grid(size: int) -> int:
    reduction = 4 * _stem_stride(size)
    return min(GRID, -(-size // reduction))


_NARROW = (16, 16, 32, 64)
_WIDE = (32, 64, 128, 256)
_FOR_CPUS: dict[str, Callable[..., Network]] = {
    "convnet-1k": convnet_1k,
    "convnet-11k": convnet_11k,
    "convnet-80k": convnet_80k,
    "convnet-700k": convnet_700k,
}
_PUBLISHED: dict[str, Callable[..., Network]] = {
    "resnet8": partial(ResNet, depth=8, widths=_NARROW),
    "resnet20": partial(ResNet, depth=20, widths=_NARROW),
    "resnet32": partial(ResNet, depth=32, widths=_NARROW),
    "resnet56": partial(ResNet, depth=56, widths=_NARROW),
    "resnet110": partial(ResNet, depth=110, widths=_NARROW),
    "resnet8x4": partial(ResNet, depth=8, widths=_WIDE),
    "resnet32x4": partial(ResNet, depth=32, widths=_WIDE),
    "wrn_16_1": partial(WideResNet, depth=16, widen=1),
    "wrn_16_2": partial(WideResNet, depth=16, widen=2),
    "wrn_40_1": partial(WideResNet, depth=40, widen=1),
    "wrn_40_2": partial(WideResNet, depth=40, widen=2),
    "vgg8": partial(VGG, convolutions=(1, 1, 1, 1, 1)),
    "vgg11": partial(VGG, convolutions=(1, 1, 2, 2, 2)),
    "vgg13": partial(VGG, convolutions=(2, 2, 2, 2, 2)),
    "vgg16": partial(VGG, convolutions=(2, 2, 3, 3, 3)),
    "vgg19": partial(VGG, convolutions=(2, 2, 4, 4, 4)),
    "densenet121": DenseNet121,
}


def build_network(name: str, *, outputs: int, channels: int, size: int) -> Network:
    """A freshly initialised network for `channels` × `size` × `size` images in [−1, 1].

    The weights come from PyTorch's global generator. `BadInput` for an unknown name or a size
    below 8 px.

    >>> network = build_network("convnet-1k", outputs=10, channels=1, size=8)
    >>> network(torch.zeros(2, 1, 8, 8)).shape
    torch.Size([2, 10])
    """
    if name not in get_args(NetworkName):
        raise BadInput(
            f"network {name!r} is unknown; use one of {', '.join(get_args(NetworkName))}"
        )
    if size < SMALLEST:
        raise BadInput(f"network {name} needs images of at least {SMALLEST} px, got {size} px")
    if name in _FOR_CPUS:
        return _FOR_CPUS[name](outputs=outputs, channels=channels, size=size)
    return _PUBLISHED[name](outputs=outputs, channels=channels)


def save_network(
    folder: Path,
    network: nn.Module,
    *,
    name: str,
    outputs: int,
    channels: int,
    size: int,
    facts: Mapping[str, Any] | None = None,
) -> str:
    """The sha256 of the weights written to `folder` with what `load_network` needs to know.

    `facts` are further entries of `config.json`.
    """
    known = {"network": name, "outputs": outputs, "channels": channels, "size": size}
    return save_weights(folder, network, {**(facts or {}), **known})


def load_network(folder: Path) -> tuple[Network, dict[str, Any]]:
    """The network that `save_network` wrote to `folder`, in evaluation mode, and its config."""
    state, config = load_weights(folder)
    if missing := {"network", *SHAPE} - set(config):
        raise CheckpointError(
            f"{folder / 'config.json'} lacks {', '.join(sorted(missing))}: not a network of ours"
        )
    with WithoutValues():  # no time for weights that are replaced at once
        network = build_network(config["network"], **{name: config[name] for name in SHAPE})
    fill_network(network, state, where=str(folder))
    return network.eval(), config


def fill_network(network: nn.Module, state: Mapping[str, Any], *, where: str) -> None:
    """Gives a network the values of `state`; `CheckpointError` names the first that do not fit."""
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in state.items()}
    wrong = sorted(
        name for name in expected.keys() | given.keys() if expected.get(name) != given.get(name)
    )
    if wrong:
        first = wrong[0]
        raise CheckpointError(
            f"{where}: {len(wrong)} of {len(expected)} tensors do not fit the network; {first} is "
            f"{given.get(first, 'missing')}, expected {expected.get(first, 'none')}"
        )
    # Copied, so that training leaves the given tensors alone; into a meta network nothing can be.
    network.load_state_dict(state, assign=any(tensor.is_meta for tensor in network.parameters()))
