"""Networks: names of their tensors, numbers of parameters, and what they compute."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import torch
import torch.nn.functional as F

from cgankd.nets.device import as_images
from cgankd.nets.network import pooled
from cgankd.nets.networks import (
    NetworkName,
    build_network,
    fill_network,
    load_network,
    save_network,
)
from cgankd.shardset.errors import BadInput, CheckpointError

REFERENCE = json.loads((Path(__file__).parent / "reference_keys.json").read_text())


def with_random_statistics(network):
    """The network in evaluation mode, with batch-norm values that a mistake cannot hide behind."""
    random = torch.Generator().manual_seed(0)
    for name, tensor in network.state_dict().items():
        if name.endswith(("running_mean", "bias")):
            tensor.copy_(0.1 * torch.randn(tensor.shape, generator=random))
        elif name.endswith("running_var"):
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=random))
    return network.eval()


class ByName:
    """Layers computed from a state dict alone."""

    def __init__(self, network):
        self.state = network.state_dict()

    def conv(self, name, x, stride=1):
        weight = self.state[f"{name}.weight"]
        return F.conv2d(
            x, weight, self.state.get(f"{name}.bias"), stride, padding=weight.shape[2] // 2
        )

    def bn(self, name, x):
        keys = ("running_mean", "running_var", "weight", "bias")
        mean, var, weight, bias = (self.state[f"{name}.{key}"][:, None, None] for key in keys)
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    def linear(self, name, x):
        return x @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]


@pytest.mark.parametrize("name", REFERENCE)
def test_tensor_names_and_parameter_counts_are_those_of_published_checkpoints(name):
    """Names come in RepDistiller's order, so its checkpoints and optimisers' states fit."""
    with torch.device("meta"):
        network = build_network(name, outputs=100, channels=3, size=32)
    names = list(network.state_dict())
    expected = REFERENCE[name]
    assert names == expected.get("names", names)
    assert len(names) == expected["keys"]
    if expected["sha256"] is not None:
        assert hashlib.sha256("\n".join(names).encode()).hexdigest() == expected["sha256"]
    if expected["parameters"] is not None:
        assert sum(tensor.numel() for tensor in network.parameters()) == expected["parameters"]


@pytest.mark.parametrize(
    ("name", "size", "parameters"),
    [("convnet-1k", 8, 1_072), ("convnet-80k", 28, 77_482), ("convnet-700k", 28, 696_394)],
)
def test_networks_for_cpus_have_the_parameters_they_claim(name, size, parameters):
    """Counted for ten classes of grey images, as their docstrings say."""
    network = build_network(name, outputs=10, channels=1, size=size)
    assert sum(tensor.numel() for tensor in network.parameters()) == parameters


@pytest.mark.parametrize(("channels", "size", "wanted"), [(1, 8, 4), (3, 21, 1)])
@pytest.mark.parametrize("name", get_args(NetworkName))
def test_every_network_takes_small_and_odd_sizes(name, channels, size, wanted):
    """Outputs, several or one, are finite and are one linear layer over the features."""
    network = build_network(name, outputs=wanted, channels=channels, size=size).eval()
    images = torch.rand(2, channels, size, size) * 2 - 1
    with torch.inference_mode():
        outputs, features = network(images), network.features(images)
        last = [layer for layer in network.modules() if isinstance(layer, torch.nn.Linear)][-1]
        assert outputs.shape == (2, wanted)
        assert features.shape == (2, last.in_features)
        torch.testing.assert_close(last(features), outputs)
        assert outputs.isfinite().all()


def test_residual_network_computes_what_its_tensors_mean():
    """resnet8x4, layer by layer from its state dict with the original's 8×8 average pooling."""
    network = with_random_statistics(build_network("resnet8x4", outputs=5, channels=3, size=32))
    net, images = ByName(network), torch.rand(2, 3, 32, 32) * 2 - 1
    x = F.relu(net.bn("bn1", net.conv("conv1", images)))
    for layer, stride in (("layer1.0", 1), ("layer2.0", 2), ("layer3.0", 2)):
        inner = F.relu(net.bn(f"{layer}.bn1", net.conv(f"{layer}.conv1", x, stride)))
        inner = net.bn(f"{layer}.bn2", net.conv(f"{layer}.conv2", inner))
        short = net.bn(f"{layer}.downsample.1", net.conv(f"{layer}.downsample.0", x, stride))
        x = F.relu(inner + short)
    expected = net.linear("fc", F.avg_pool2d(x, 8).flatten(1))
    torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-5)


def test_wide_residual_network_computes_what_its_tensors_mean():
    """wrn_16_2, with the shortcut taken after the first normalisation where the width changes."""
    network = with_random_statistics(build_network("wrn_16_2", outputs=5, channels=1, size=32))
    net, images = ByName(network), torch.rand(2, 1, 32, 32) * 2 - 1
    x = net.conv("conv1", images)
    for block, stride in (("block1", 1), ("block2", 2), ("block3", 2)):
        for index in range(2):
            layer, step = f"{block}.layer.{index}", stride if index == 0 else 1
            first = F.relu(net.bn(f"{layer}.bn1", x))
            second = F.relu(net.bn(f"{layer}.bn2", net.conv(f"{layer}.conv1", first, step)))
            short = net.conv(f"{layer}.convShortcut", first, step) if index == 0 else x
            x = short + net.conv(f"{layer}.conv2", second)
    expected = net.linear("fc", F.avg_pool2d(F.relu(net.bn("bn1", x)), 8).flatten(1))
    torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "size", "halvings", "convolutions"),
    [
        ("vgg8", 32, 3, (1, 1, 1, 1, 1)),
        ("vgg8", 64, 4, (1, 1, 1, 1, 1)),
        ("vgg11", 32, 3, (1, 1, 2, 2, 2)),
        ("vgg19", 32, 3, (2, 2, 4, 4, 4)),
    ],
)
def test_vgg_computes_what_its_tensors_mean(name, size, halvings, convolutions):
    """It pools three times at 32 px and a fourth time from 64 px on, as the original does."""
    network = with_random_statistics(build_network(name, outputs=5, channels=3, size=size))
    net, x = ByName(network), torch.rand(2, 3, size, size) * 2 - 1
    outputs = network(x)
    for index, count in enumerate(convolutions):
        for at in range(0, 3 * count, 3):
            x = F.relu(net.bn(f"block{index}.{at + 1}", net.conv(f"block{index}.{at}", x)))
        x = F.max_pool2d(x, 2) if index < halvings else x
    torch.testing.assert_close(
        outputs, net.linear("classifier", x.mean((2, 3))), rtol=1e-4, atol=1e-5
    )


def test_dense_bottleneck_puts_new_maps_first():
    """The order decides which weights of the next layer meet which maps."""
    network = with_random_statistics(build_network("densenet121", outputs=5, channels=1, size=8))
    block = network.get_submodule("dense1.0")
    net, x = ByName(block), torch.randn(2, 64, 4, 4)
    new = net.conv("conv2", F.relu(net.bn("bn2", net.conv("conv1", F.relu(net.bn("bn1", x))))))
    torch.testing.assert_close(block(x), torch.cat([new, x], 1), rtol=1e-4, atol=1e-5)


def test_pooling_does_not_depend_on_the_layout():
    """Both layouts give the mean over height and width."""
    maps = torch.randn(3, 5, 4, 4)
    expected = maps.flatten(2).mean(2)
    torch.testing.assert_close(pooled(maps), expected)
    torch.testing.assert_close(pooled(maps.contiguous(memory_format=torch.channels_last)), expected)


def test_features_do_not_depend_on_the_layout():
    """A network trained in one layout means the same in the other."""
    network = build_network("convnet-80k", outputs=3, channels=3, size=28).eval()
    images = torch.randn(2, 3, 28, 28)
    last = images.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(network.features(last), network.features(images))


def test_images_reach_from_minus_one_to_one():
    """Pixel 0 is −1, pixel 255 is 1, and the values lie channels last even with one channel."""
    images = as_images(
        torch.tensor([[[[0, 255], [51, 102]]]], dtype=torch.uint8), torch.channels_last
    )
    torch.testing.assert_close(images, torch.tensor([[[[-1.0, 1.0], [-0.6, -0.2]]]]))
    assert images.stride() == (4, 1, 2, 1)


def test_saved_network_comes_back(tmp_path):
    """The folder alone is enough to build the network again, with the facts it was given."""
    network = build_network("convnet-1k", outputs=3, channels=1, size=8).eval()
    save_network(
        tmp_path, network, name="convnet-1k", outputs=3, channels=1, size=8, facts={"seed": 4}
    )
    again, config = load_network(tmp_path)
    images = torch.randn(2, 1, 8, 8)
    assert torch.equal(again(images), network(images))
    assert not again.training
    assert config == {"network": "convnet-1k", "outputs": 3, "channels": 1, "size": 8, "seed": 4}


def test_folder_of_something_else_is_refused(tmp_path):
    """A config without the network's name is named as such."""
    from cgankd.shardset.weights import save_weights

    save_weights(tmp_path, torch.nn.Linear(2, 2), {"outputs": 2})
    with pytest.raises(CheckpointError, match="lacks channels, network, size"):
        load_network(tmp_path)


def test_state_of_another_network_is_refused():
    """The first tensor that does not fit is named with both shapes."""
    network = build_network("convnet-1k", outputs=3, channels=1, size=8)
    other = build_network("convnet-1k", outputs=4, channels=1, size=8).state_dict()
    with pytest.raises(
        CheckpointError, match=r"2 of 4 tensors .* fc.bias is \(4,\), expected \(3,"
    ):
        fill_network(network, other, where="student")


def test_unknown_network_and_too_small_images_are_refused():
    """Both name what would do."""
    with pytest.raises(BadInput, match=r"'resnet9' is unknown; use one of convnet-1k"):
        build_network("resnet9", outputs=3, channels=1, size=8)
    with pytest.raises(BadInput, match="at least 8 px, got 7 px"):
        build_network("resnet8", outputs=3, channels=1, size=7)


def test_loading_a_network_imports_no_sympy(tmp_path):
    """Its weights replace the initial ones, of which only the shapes are made."""
    shape = {"outputs": 3, "channels": 1, "size": 8}
    save_network(tmp_path, build_network("convnet-80k", **shape), name="convnet-80k", **shape)
    script = (
        "import sys, pathlib, torch\n"
        "from cgankd.nets.network import WithoutValues\n"
        "from cgankd.nets.networks import load_network\n"
        "load_network(pathlib.Path(sys.argv[1]))\n"
        "with WithoutValues():\n"
        "    assert torch.nn.Embedding(3, 4).weight.is_meta\n"
        "assert 'sympy' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
