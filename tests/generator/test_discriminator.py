"""The projection discriminator against its formula in plain calls."""

import pytest
import torch
import torch.nn.functional as F
from pydantic import TypeAdapter

from cgankd.generator import GeneratorKind, ImageSpace
from cgankd.generator.interface import AdversarialGenerator, Discriminator
from cgankd.shardset.labels import LabelSpace
from cgankd.shardset.testing import tiny_continuous_space, tiny_space


def made(kind: str, size: int, channels: int, space: LabelSpace) -> Discriminator:
    """The discriminator of width 8 that goes with a kind of generator."""
    settings: GeneratorKind = TypeAdapter(GeneratorKind).validate_python({"kind": kind, "width": 8})
    generator = settings.generator(ImageSpace(size, channels, space))
    assert isinstance(generator, AdversarialGenerator)
    return generator.discriminator()


def reference(
    state: dict[str, torch.Tensor], images: torch.Tensor, labels: torch.Tensor, halvings: int
) -> torch.Tensor:
    """ψ(φ(x)) + ⟨embedding(y), φ(x)⟩ with every convolution at full resolution."""

    def weight(name: str) -> torch.Tensor:
        matrix = state[f"{name}.weight"].flatten(1)
        v = F.normalize(state[f"{name}.u0"] @ matrix)
        return state[f"{name}.weight"] / (v @ matrix.T).norm()

    def conv(x: torch.Tensor, name: str) -> torch.Tensor:
        kernel = weight(name)
        return F.conv2d(x, kernel, state[f"{name}.bias"], padding=kernel.shape[2] // 2)

    def attended(x: torch.Tensor, name: str) -> torch.Tensor:
        quarter = [F.max_pool2d(conv(x, f"{name}.{part}"), 2) for part in ("phi", "g")]
        scores = torch.einsum("ncij,nckl->nijkl", conv(x, f"{name}.theta"), quarter[0])
        shares = scores.flatten(3).softmax(3).view_as(scores)
        seen = torch.einsum("nijkl,nckl->ncij", shares, quarter[1])
        return x + state[f"{name}.gamma"] * conv(seen, f"{name}.o")

    h, first = images, True
    for index in range(len({name.split(".")[1] for name in state if name.startswith("blocks")})):
        block = f"blocks.{index}"
        if f"{block}.gamma" in state:
            h = attended(h, block)
            continue
        inner = conv(h if first else torch.relu(h), f"{block}.conv1")
        inner = conv(torch.relu(inner), f"{block}.conv2")
        h = conv(h, f"{block}.conv_sc") if f"{block}.conv_sc.weight" in state else h
        if halvings:
            inner, h = F.avg_pool2d(inner, 2), F.avg_pool2d(h, 2)
        h, first, halvings = h + inner, False, max(0, halvings - 1)
    features = torch.relu(h).sum((2, 3))
    scores = F.linear(features, weight("linear"), state["linear.bias"])[:, 0]
    continuous = labels.is_floating_point()
    vectors = labels @ weight("embed").T if continuous else weight("embed")[labels]
    return scores + (vectors * features).sum(1)


@pytest.mark.parametrize(
    ("network", "image_size", "channels", "halvings"),
    [
        ("biggan-cifar", 32, 3, 2),
        ("biggan-small", 28, 1, 2),
        ("biggan-small", 8, 1, 1),
        ("biggan-small", 9, 3, 1),
        ("sngan", 16, 3, 2),
        ("sagan", 16, 1, 2),
    ],
)
@pytest.mark.parametrize("space", [tiny_space(10), tiny_continuous_space()], ids=lambda x: x.task)
def test_scores_are_those_of_the_formula(
    network: str, image_size: int, channels: int, halvings: int, space: LabelSpace
) -> None:
    """For one channel and three, sizes that halve evenly or not, classes and embedded labels."""
    discriminator = made(network, image_size, channels, space).eval()
    images = torch.rand(5, channels, image_size, image_size) * 2 - 1
    labels = torch.tensor([0, 3, 9, 3, 5])
    if space.task == "regression":
        labels = torch.rand(5, 128)
    for name, value in discriminator.state_dict().items():
        if name.endswith("gamma"):
            value.fill_(0.7)

    with torch.no_grad():
        scores = discriminator(images, labels)
        expected = reference(discriminator.state_dict(), images, labels, halvings)

    assert scores.shape == (5,)
    torch.testing.assert_close(scores, expected, atol=1e-3, rtol=1e-3)


def test_half_precision_images_still_give_float32_scores() -> None:
    """The hinge loss is always computed in float32."""
    discriminator = made("biggan-small", 8, 1, tiny_space(3))

    scores = discriminator(torch.zeros(2, 1, 8, 8, dtype=torch.bfloat16), torch.tensor([0, 2]))

    assert scores.dtype == torch.float32
