"""Every network by its name, for teachers and students alike, and their folders on disk."""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from cgankd.nets.convnet import convnet_1k, convnet_11k, convnet_80k, convnet_700k
from cgankd.nets.network import Network
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
    network: torch.nn.Module,
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
    missing = {"network", "outputs", "channels", "size"} - set(config)
    if missing:
        raise CheckpointError(
            f"{folder / 'config.json'} lacks {', '.join(sorted(missing))}: not a network of ours"
        )
    with torch.device("meta"):  # no time for weights that are replaced at once
        network = build_network(
            config["network"],
            outputs=config["outputs"],
            channels=config["channels"],
            size=config["size"],
        )
    fill_network(network, state, where=str(folder))
    return network.eval(), config


def fill_network(network: torch.nn.Module, state: Mapping[str, Any], *, where: str) -> None:
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
