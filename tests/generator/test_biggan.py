"""BigGAN's generator: published names and sizes, and the function that the formulas define."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from cgankd.generator import (
    PUBLISHED,
    CcGAN,
    ImageSpace,
    adopt_generator,
    build_generator,
    load_generator,
)
from cgankd.generator.residual import ResidualGenerator, bottom_and_doublings
from cgankd.shardset.errors import CheckpointError
from cgankd.shardset.files import read_json
from cgankd.shardset.labels import LabelSpace
from cgankd.shardset.testing import tiny_continuous_space, tiny_space

CPU = torch.device("cpu")
State = dict[str, torch.Tensor]


def made(
    kind: str, size: int, channels: int, space: LabelSpace, latent_dim: int = 4
) -> ResidualGenerator:
    """A generator of width 8, as its `config.json` describes it."""
    shape = {"image_size": size, "channels": channels, "space": space.model_dump()}
    generator = build_generator({"kind": kind, "width": 8, "latent_dim": latent_dim, **shape})
    assert isinstance(generator, ResidualGenerator)
    return generator


def published_names() -> set[str]:
    """The 72 names of ajbrock/BigGAN-PyTorch's generator for CIFAR."""
    spectral = ("weight", "bias", "u0", "sv0")
    names = {f"linear.{name}" for name in spectral}
    names |= {f"output_layer.2.{name}" for name in spectral}
    names |= {f"output_layer.0.{name}" for name in ("gain", "bias", "stored_mean", "stored_var")}
    for block in range(3):
        for layer in ("conv1", "conv2", "conv_sc"):
            names |= {f"blocks.{block}.0.{layer}.{name}" for name in spectral}
        for layer in ("bn1", "bn2"):
            tensors = ("stored_mean", "stored_var", "gain.weight", "bias.weight")
            names |= {f"blocks.{block}.0.{layer}.{name}" for name in tensors}
    return names


def randomised(generator: ResidualGenerator) -> ResidualGenerator:
    """The generator with every tensor random, so that none can be left out unnoticed."""
    draws = torch.Generator().manual_seed(0)
    for name, value in generator.state_dict().items():
        fresh = torch.randn(value.shape, generator=draws)
        value.copy_(fresh.abs() + 0.5 if name.endswith("stored_var") else fresh * 0.3)
    return generator.eval()


def reference(state: State, z: torch.Tensor, labels: torch.Tensor, blocks: int) -> torch.Tensor:
    """The images by the formulas alone, in plain functional calls on a published state."""

    def weight(name: str) -> torch.Tensor:
        if f"{name}.u0" not in state:
            return state[f"{name}.weight"]
        matrix = state[f"{name}.weight"].reshape(len(state[f"{name}.weight"]), -1)
        v = F.normalize(state[f"{name}.u0"] @ matrix, eps=1e-8)
        u = F.normalize(v @ matrix.T, eps=1e-8)
        return state[f"{name}.weight"] / (v @ matrix.T @ u.T).squeeze()

    def conv(x: torch.Tensor, name: str, padding: int) -> torch.Tensor:
        return F.conv2d(x, weight(name), state[f"{name}.bias"], padding=padding)

    def normal(x: torch.Tensor, name: str) -> torch.Tensor:
        mean, variance = state[f"{name}.stored_mean"], state[f"{name}.stored_var"]
        return (x - mean[:, None, None]) * torch.rsqrt(variance[:, None, None] + 1e-5)

    def conditional(x: torch.Tensor, name: str) -> torch.Tensor:
        gain = 1 + state[f"{name}.gain.weight"][labels]
        bias = state[f"{name}.bias.weight"][labels]
        return normal(x, name) * gain[:, :, None, None] + bias[:, :, None, None]

    def doubled(x: torch.Tensor) -> torch.Tensor:
        return x.repeat_interleave(2, 2).repeat_interleave(2, 3)

    def attended(x: torch.Tensor, name: str) -> torch.Tensor:
        quarter = [F.max_pool2d(conv(x, f"{name}.{part}", 0), 2) for part in ("phi", "g")]
        scores = torch.einsum("ncij,nckl->nijkl", conv(x, f"{name}.theta", 0), quarter[0])
        shares = scores.flatten(3).softmax(3).view_as(scores)
        seen = torch.einsum("nijkl,nckl->ncij", shares, quarter[1])
        return x + state[f"{name}.gamma"] * conv(seen, f"{name}.o", 0)

    h = F.linear(z, weight("linear"), state["linear.bias"])
    bottom = int((h.shape[1] / len(state["blocks.0.0.bn1.stored_mean"])) ** 0.5)
    h = h.view(len(z), -1, bottom, bottom)
    for index in range(blocks):
        block = f"blocks.{index}.0"
        inner = doubled(torch.relu(conditional(h, f"{block}.bn1")))
        inner = conv(inner, f"{block}.conv1", 1)
        inner = conv(torch.relu(conditional(inner, f"{block}.bn2")), f"{block}.conv2", 1)
        h = inner + conv(doubled(h), f"{block}.conv_sc", 0)
        if f"blocks.{index}.1.gamma" in state:
            h = attended(h, f"blocks.{index}.1")
    gain, bias = state["output_layer.0.gain"], state["output_layer.0.bias"]
    h = normal(h, "output_layer.0") * gain[:, None, None] + bias[:, None, None]
    return torch.tanh(conv(torch.relu(h), "output_layer.2", 1))


@pytest.mark.parametrize(("classes", "parameters"), [(10, 4_304_387), (100, 4_580_867)])
def test_the_cifar_form_has_the_published_names_and_number_of_parameters(
    classes: int, parameters: int
) -> None:
    """72 keys, and as many parameters as counted on the published code."""
    generator = PUBLISHED.generator(ImageSpace(32, 3, tiny_space(classes)))

    assert published_names() == set(generator.state_dict())
    assert parameters == sum(parameter.numel() for parameter in generator.parameters())


@pytest.mark.parametrize(
    ("network", "image_size", "channels", "blocks"),
    [
        ("biggan-cifar", 32, 3, 3),
        ("biggan-small", 28, 1, 2),
        ("biggan-small", 8, 1, 1),
        ("sngan", 16, 3, 2),
        ("sagan", 16, 3, 2),
    ],
)
def test_images_are_those_of_the_formulas(
    network: str, image_size: int, channels: int, blocks: int
) -> None:
    """The fused layers compute what plain layers on doubled pixels compute."""
    generator = randomised(made(network, image_size, channels, tiny_space(10), 16))
    z = torch.randn(6, 16, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([0, 3, 9, 3, 5, 1])

    with torch.no_grad():
        images = generator.sample(z, labels)
        expected = reference(generator.state_dict(), z, labels, blocks)

    assert images.shape == (6, channels, image_size, image_size)
    torch.testing.assert_close(images, expected, atol=5e-5, rtol=0)


def test_ccgan_s_bodies_have_the_published_widths() -> None:
    """At 64 pixels and width 64: from 1024 channels at 4 pixels to 64 at 64."""
    assert bottom_and_doublings(64) == (4, 4)
    assert CcGAN(kind="sngan", width=64).widths(64) == [1024, 512, 256, 128, 64]
    assert CcGAN(kind="sagan", width=64).widths(64) == [1024, 512, 256, 128, 64]


@pytest.mark.parametrize("network", ["biggan-small", "biggan-cifar", "sngan", "sagan"])
def test_a_continuous_label_acts_as_a_class_with_the_map_of_its_embedding(network: str) -> None:
    """Three values make the images of a class-conditional twin whose three vectors are theirs."""
    values = torch.tensor([0.0, 0.4, 1.0])
    generator = randomised(made(network, 16, 1, tiny_continuous_space()))
    twin = made(network, 16, 1, tiny_space(3)).eval()
    z = torch.randn(3, 4)

    with torch.no_grad():
        embedded = generator.embedding(values)
        state = {
            name: embedded @ value.T if name.endswith(("gain.weight", "bias.weight")) else value
            for name, value in generator.state_dict().items()
            if not name.startswith("embedding.")
        }
        twin.load_state_dict(state)

        torch.testing.assert_close(
            generator.sample(z, values), twin.sample(z, torch.tensor([0, 1, 2]))
        )


def test_evaluation_moves_no_buffer() -> None:
    """σ comes from one power iteration that is not kept, so the same images come every time."""
    generator = randomised(made("biggan-cifar", 8, 1, tiny_space(3)))
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    z, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 1, 0])

    with torch.no_grad():
        first, second = generator.sample(z, labels), generator.sample(z, labels)

    assert torch.equal(first, second)
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())


def test_training_moves_statistics_by_the_published_momentum() -> None:
    """stored_mean ← 0.9 · stored_mean + 0.1 · batch mean, as batch normalisation does."""
    generator = made("biggan-cifar", 8, 1, tiny_space(3)).train()
    seen: list[torch.Tensor] = []
    norm = generator.output_layer[0]
    norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach().clone()))

    generator.sample(torch.randn(5, 4), torch.tensor([0, 1, 2, 1, 0]))

    torch.testing.assert_close(norm.stored_mean, 0.1 * seen[0].mean((0, 2, 3)))


@pytest.mark.parametrize("image_size", [8, 9, 12, 16, 20, 27, 28, 31, 32, 33, 64])
def test_any_size_from_eight_pixels_comes_out_as_asked(image_size: int) -> None:
    """Sizes that do not halve evenly are cut from the next larger ones; 4 to 8 px at the bottom."""
    bottom, doublings = bottom_and_doublings(image_size)
    generator = made("biggan-small", image_size, 3, tiny_space(2)).eval()

    images = generator.sample(torch.randn(2, 4), torch.tensor([0, 1]))

    assert images.shape == (2, 3, image_size, image_size)
    assert 4 <= bottom <= 8
    assert image_size <= bottom * 2**doublings < image_size + 2**doublings


def test_bfloat16_stays_close_to_float32() -> None:
    """The layers compute in z's dtype; the images are float32 either way."""
    generator = randomised(made("biggan-cifar", 8, 1, tiny_space(3)))
    z, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 1, 0])

    with torch.no_grad():
        fine, coarse = generator.sample(z, labels), generator.sample(z.bfloat16(), labels)

    assert coarse.dtype == torch.float32
    torch.testing.assert_close(coarse, fine, atol=0.05, rtol=0)


def test_a_published_checkpoint_gives_the_same_images_here(tmp_path: Path) -> None:
    """A `G_ema.pth`, wrapped by data-parallel training, loads by its published names."""
    source = randomised(PUBLISHED.generator(ImageSpace(32, 3, tiny_space(10))))
    state = source.state_dict()
    torch.save({f"module.{name}": value for name, value in state.items()}, tmp_path / "G_ema.pth")
    z, labels = torch.randn(2, 128), torch.tensor([3, 7])

    adopt_generator(
        tmp_path / "G_ema.pth", tmp_path / "generator", ImageSpace(32, 3, tiny_space(10))
    )
    generator = load_generator(tmp_path / "generator", CPU)
    with torch.no_grad():
        images = generator.sample(z, labels)

    assert read_json(tmp_path / "generator" / "config.json")["kind"] == "biggan-cifar"
    torch.testing.assert_close(images, reference(state, z, labels, 3), atol=2e-5, rtol=0)


def test_a_checkpoint_of_another_network_is_named_and_not_taken(tmp_path: Path) -> None:
    """A generator for 100 classes does not pass for one of 10; nothing is written."""
    torch.save(
        PUBLISHED.generator(ImageSpace(32, 3, tiny_space(100))).state_dict(), tmp_path / "G_ema.pth"
    )

    with pytest.raises(CheckpointError, match=r"gain\.weight"):
        adopt_generator(
            tmp_path / "G_ema.pth", tmp_path / "generator", ImageSpace(32, 3, tiny_space(10))
        )

    assert not (tmp_path / "generator").exists()
