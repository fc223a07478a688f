"""BigGAN's generator in its CIFAR form, and its relatives with other widths.

Brock et al. 2019 (arXiv 1809.11096), without shared embedding or hierarchical latent. At 32
pixels, 3 channels and width 64 the parameters of the CIFAR form bear the names and shapes of
ajbrock/BigGAN-PyTorch's generator and mean the same. `sngan` and `sagan` are the bodies of CcGAN
(arXiv 2011.07379): the same residual blocks, up to 16·width channels, without spectral
normalisation or with it and self-attention at half the resolution.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, cast

import torch
import torch.nn.functional as F
from pydantic import TypeAdapter
from torch import Tensor, nn

from cgankd.generator.config import Network
from cgankd.generator.label_embedding import EMBEDDING, LabelEmbedding
from cgankd.generator.layers import Conv2d, Linear, SelfAttention, SpectralConv2d, SpectralLinear
from cgankd.shardset.labels import ContinuousLabels, LabelSpace

EPSILON = 1e-5


def bottom_and_doublings(image_size: int) -> tuple[int, int]:
    """Where a pyramid starts (4 to 8 pixels) and how often it doubles to reach `image_size`."""
    doublings = max(1, (image_size // 4).bit_length() - 1)
    return -(-image_size // 2**doublings), doublings


def stage_widths(network: Network, width: int, doublings: int) -> list[int]:
    """Channels of each stage, from the bottom to full resolution: `doublings + 1` numbers."""
    if network == "biggan-cifar":
        return [4 * width] * (doublings + 1)
    most = 4 if network == "biggan-small" else 16
    return [width * min(most, 2 ** (doublings - stage)) for stage in range(doublings + 1)]


def label_layer(space: LabelSpace, size: int) -> nn.Module:
    """A learnt vector `[n, size]` for each class, or a linear map of a label's embedding."""
    if isinstance(space, ContinuousLabels):
        return nn.Linear(EMBEDDING, size, bias=False)
    return nn.Embedding(space.outputs, size)


class ConditionalBatchNorm(nn.Module):
    """Batch normalisation with a gain (1 + learnt) and a bias that the label decides."""

    stored_mean: Tensor
    stored_var: Tensor

    def __init__(self, channels: int, space: LabelSpace) -> None:
        super().__init__()
        self.gain = label_layer(space, channels)
        self.bias = label_layer(space, channels)
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

    def __init__(self, inputs: int, outputs: int, space: LabelSpace, conv: type[Conv2d]) -> None:
        super().__init__()
        self.conv1 = conv(inputs, outputs)
        self.conv2 = conv(outputs, outputs)
        self.conv_sc = conv(inputs, outputs, kernel=1)
        self.bn1 = ConditionalBatchNorm(inputs, space)
        self.bn2 = ConditionalBatchNorm(outputs, space)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        h = self.conv1.enlarged(self.bn1(x, labels).relu_())
        h = self.conv2(self.bn2(h, labels).relu_())
        # A 1×1 kernel commutes with doubling, so it runs on a quarter of the pixels.
        return h.add_(F.interpolate(self.conv_sc(x), scale_factor=2.0))


class BigGANGenerator(nn.Module):
    """A conditional generator: `forward(z, targets)` → images.

    z `[n, latent_dim]` standard normal, targets as the label space gives them: classes int64 `[n]`
    or labels float32 `[n]` scaled to [0, 1]; images float32
    `[n, channels, image_size, image_size]` in (−1, 1). The layers compute in z's dtype.
    A size that is no multiple of its doublings is cut out of the next larger one.
    """

    def __init__(
        self,
        image_size: int,
        channels: int,
        space: LabelSpace,
        width: int,
        latent_dim: int,
        network: Network = "biggan-cifar",
    ) -> None:
        super().__init__()
        self.image_size, self.latent_dim, self.space = image_size, latent_dim, space
        self.bottom, doublings = bottom_and_doublings(image_size)
        widths = stage_widths(network, width, doublings)
        conv = Conv2d if network == "sngan" else SpectralConv2d
        linear = Linear if network == "sngan" else SpectralLinear
        self.linear = linear(latent_dim, widths[0] * self.bottom**2)
        # A list of lists, as the published keys are `blocks.0.0.…`: attention is blocks.i.1.
        self.blocks = nn.ModuleList(
            nn.ModuleList([GeneratorBlock(inputs, outputs, space, conv)])
            for inputs, outputs in pairwise(widths)
        )
        if network == "sagan" and doublings > 1:
            cast(nn.ModuleList, self.blocks[-2]).append(SelfAttention(widths[-2]))
        self.output_layer = nn.Sequential(
            BatchNorm(widths[-1]), nn.ReLU(inplace=True), conv(widths[-1], channels)
        )
        # Frozen while the networks train; classes are told as they are.
        self.embedding: nn.Module = (
            LabelEmbedding().requires_grad_(False)
            if isinstance(space, ContinuousLabels)
            else nn.Identity()
        )

    def forward(self, z: Tensor, targets: Tensor) -> Tensor:
        labels = self.embedding(targets)
        h = self.linear(z).view(len(z), -1, self.bottom, self.bottom)
        h = h.contiguous(memory_format=torch.channels_last)
        for stage in self.blocks:
            block, *attention = cast(nn.ModuleList, stage)
            h = block(h, labels)
            for layer in attention:
                h = layer(h)
        images = torch.tanh(self.output_layer(h).float())
        if images.shape[2] > self.image_size:
            start = (images.shape[2] - self.image_size) // 2
            end = start + self.image_size
            images = images[:, :, start:end, start:end]
        return images


def build_generator(shape: Mapping[str, Any]) -> BigGANGenerator:
    """The generator that the `config.json` beside its weights describes, freshly initialised."""
    space: LabelSpace = TypeAdapter(LabelSpace).validate_python(shape["space"])
    return BigGANGenerator(
        shape["image_size"],
        shape["channels"],
        space,
        shape["width"],
        shape["latent_dim"],
        shape["network"],
    )
