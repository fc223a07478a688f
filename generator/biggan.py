"""BigGAN's generator in its CIFAR form, and the same with fewer channels for small images.

Brock et al. 2019 (arXiv 1809.11096), without shared embedding, hierarchical latent or attention.
At 32 pixels, 3 channels and width 64 the parameters bear the names and shapes of
ajbrock/BigGAN-PyTorch's generator and mean the same.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generator.config import Network
from generator.spectral import SpectralConv2d, SpectralLinear

EPSILON = 1e-5


def bottom_and_doublings(image_size: int) -> tuple[int, int]:
    """Where a pyramid starts (4 to 8 pixels) and how often it doubles to reach `image_size`."""
    doublings = max(1, (image_size // 4).bit_length() - 1)
    return -(-image_size // 2**doublings), doublings


def stage_widths(network: Network, width: int, doublings: int) -> list[int]:
    """Channels of each stage, from the bottom to full resolution: `doublings + 1` numbers."""
    if network == "biggan-cifar":
        return [4 * width] * (doublings + 1)
    return [width * min(4, 2 ** (doublings - stage)) for stage in range(doublings + 1)]


class ConditionalBatchNorm(nn.Module):
    """Batch normalisation with a gain (1 + learnt) and a bias per class."""

    stored_mean: Tensor
    stored_var: Tensor

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.gain = nn.Embedding(classes, channels)
        self.bias = nn.Embedding(classes, channels)
        self.momentum = 0.1
        self.register_buffer("stored_mean", torch.zeros(channels))
        self.register_buffer("stored_var", torch.ones(channels))

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        normal = F.batch_norm(
            x, self.stored_mean, self.stored_var, None, None, self.training, self.momentum, EPSILON
        )
        gain = (1 + self.gain(labels)).to(x.dtype)[:, :, None, None]
        bias = self.bias(labels).to(x.dtype)[:, :, None, None]
        return torch.addcmul(bias, normal, gain)


class BatchNorm(nn.Module):
    """Batch normalisation with one gain and bias."""

    stored_mean: Tensor
    stored_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.momentum = 0.1
        self.register_buffer("stored_mean", torch.zeros(channels))
        self.register_buffer("stored_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(
            x,
            self.stored_mean,
            self.stored_var,
            self.gain,
            self.bias,
            self.training,
            self.momentum,
            EPSILON,
        )


class GeneratorBlock(nn.Module):
    """A residual block that doubles the resolution."""

    def __init__(self, inputs: int, outputs: int, classes: int) -> None:
        super().__init__()
        self.conv1 = SpectralConv2d(inputs, outputs)
        self.conv2 = SpectralConv2d(outputs, outputs)
        self.conv_sc = SpectralConv2d(inputs, outputs, kernel=1)
        self.bn1 = ConditionalBatchNorm(inputs, classes)
        self.bn2 = ConditionalBatchNorm(outputs, classes)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        h = self.conv1.enlarged(self.bn1(x, labels).relu_())
        h = self.conv2(self.bn2(h, labels).relu_())
        # A 1×1 kernel commutes with doubling, so it runs on a quarter of the pixels.
        return h.add_(F.interpolate(self.conv_sc(x), scale_factor=2.0))


class BigGANGenerator(nn.Module):
    """A conditional generator: `forward(z, labels)` → images.

    z `[n, latent_dim]` standard normal, labels int64 `[n]`; images float32
    `[n, channels, image_size, image_size]` in (−1, 1). The layers compute in z's dtype.
    A size that is no multiple of its doublings is cut out of the next larger one.
    """

    def __init__(
        self,
        image_size: int,
        channels: int,
        classes: int,
        width: int,
        latent_dim: int,
        network: Network = "biggan-cifar",
    ) -> None:
        super().__init__()
        self.image_size, self.latent_dim, self.classes = image_size, latent_dim, classes
        self.bottom, doublings = bottom_and_doublings(image_size)
        widths = stage_widths(network, width, doublings)
        self.linear = SpectralLinear(latent_dim, widths[0] * self.bottom**2)
        # A list of lists, as the published keys are `blocks.0.0.…`: attention was blocks.i.1.
        self.blocks = nn.ModuleList(
            nn.ModuleList([GeneratorBlock(inputs, outputs, classes)])
            for inputs, outputs in pairwise(widths)
        )
        self.output_layer = nn.Sequential(
            BatchNorm(widths[-1]), nn.ReLU(inplace=True), SpectralConv2d(widths[-1], channels)
        )

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        h = self.linear(z).view(len(z), -1, self.bottom, self.bottom)
        h = h.contiguous(memory_format=torch.channels_last)
        for block in self.blocks:
            h = cast(nn.ModuleList, block)[0](h, labels)
        images = torch.tanh(self.output_layer(h).float())
        if images.shape[2] > self.image_size:
            start = (images.shape[2] - self.image_size) // 2
            end = start + self.image_size
            images = images[:, :, start:end, start:end]
        return images


def build_generator(shape: Mapping[str, Any]) -> BigGANGenerator:
    """The generator that the `config.json` beside its weights describes, freshly initialised."""
    return BigGANGenerator(
        shape["image_size"],
        shape["channels"],
        shape["classes"],
        shape["width"],
        shape["latent_dim"],
        shape["network"],
    )
