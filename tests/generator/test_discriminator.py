"""The projection discriminator against its formula in plain calls."""

import pytest
import torch
import torch.nn.functional as F

from generator.discriminator import ProjectionDiscriminator


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

    h = images
    for index in range(len({name.split(".")[1] for name in state if name.startswith("blocks")})):
        block = f"blocks.{index}"
        inner = conv(h if index == 0 else torch.relu(h), f"{block}.conv1")
        inner = conv(torch.relu(inner), f"{block}.conv2")
        h = conv(h, f"{block}.conv_sc") if f"{block}.conv_sc.weight" in state else h
        if index < halvings:
            inner, h = F.avg_pool2d(inner, 2), F.avg_pool2d(h, 2)
        h = h + inner
    features = torch.relu(h).sum((2, 3))
    scores = F.linear(features, weight("linear"), state["linear.bias"])[:, 0]
    return scores + (weight("embed")[labels] * features).sum(1)


@pytest.mark.parametrize(
    ("network", "image_size", "channels", "halvings"),
    [
        ("biggan-cifar", 32, 3, 2),
        ("biggan-small", 28, 1, 2),
        ("biggan-small", 8, 1, 1),
        ("biggan-small", 9, 3, 1),
    ],
)
def test_scores_are_those_of_the_formula(
    network: str, image_size: int, channels: int, halvings: int
) -> None:
    """For one channel and three, sizes that halve evenly and those that do not."""
    discriminator = ProjectionDiscriminator(
        image_size,
        channels,
        10,
        8,
        network=network,  # type: ignore[arg-type]
    ).eval()
    images = torch.rand(5, channels, image_size, image_size) * 2 - 1
    labels = torch.tensor([0, 3, 9, 3, 5])

    with torch.no_grad():
        scores = discriminator(images, labels)
        expected = reference(discriminator.state_dict(), images, labels, halvings)

    assert scores.shape == (5,)
    torch.testing.assert_close(scores, expected, atol=1e-3, rtol=1e-3)


def test_half_precision_images_still_give_float32_scores() -> None:
    """The hinge loss is always computed in float32."""
    discriminator = ProjectionDiscriminator(8, 1, 3, 8, network="biggan-small")

    scores = discriminator(torch.zeros(2, 1, 8, 8, dtype=torch.bfloat16), torch.tensor([0, 2]))

    assert scores.dtype == torch.float32
