"""The residual networks of BigGAN and its relatives: a generator and a projection discriminator.

Brock et al. 2019 (arXiv 1809.11096) for the blocks; Miyato & Koyama 2018 (arXiv 1802.05637) for
the projection: D(x, y) = ψ(φ(x)) + ⟨embedding(y), φ(x)⟩.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from cgankd.generator.interface import AdversarialGenerator, Discriminator, ImageSpace
from cgankd.generator.label_embedding import EMBEDDING, LabelEmbedding
from cgankd.generator.layers import (
    Conv2d,
    Linear,
    SelfAttention,
    SpectralEmbedding,
    normalise,
    spectral_layers,
)
from cgankd.shardset.identity import latents
from cgankd.shardset.labels import ContinuousLabels, LabelSpace


def bottom_and_doublings(image_size: int) -> tuple[int, int]:
    """Where a pyramid starts (4 to 8 pixels) and how often it doubles to reach `image_size`."""
    doublings = max(1, (image_size // 4).bit_length() - 1)
    return -(-image_size // 2**doublings), doublings


def growing_widths(width: int, image_size: int, most: int) -> list[int]:
    """Channels of each stage, from the bottom to full resolution: `width` at full resolution,
    doubled at each half, at most `most · width`.
    """
    _, doublings = bottom_and_doublings(image_size)
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
        self.register_buffer("stored_mean", torch.zeros(channels))
        self.register_buffer("stored_var", torch.ones(channels))

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        normal = F.batch_norm(x, self.stored_mean, self.stored_var, training=self.training)
        gain = (1 + self.gain(labels)).to(x.dtype)[:, :, None, None]
        bias = self.bias(labels).to(x.dtype)[:, :, None, None]
        # Not addcmul, whose backward pass multiplies by its factor 1.
        return (normal * gain).add_(bias)


class BatchNorm(nn.Module):
    """Batch normalisation with one gain and bias."""

    stored_mean: Tensor
    stored_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("stored_mean", torch.zeros(channels))
        self.register_buffer("stored_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(
            x, self.stored_mean, self.stored_var, self.gain, self.bias, self.training
        )


class GeneratorBlock(nn.Module):
    """A residual block that doubles the resolution."""

    def __init__(self, inputs: int, outputs: int, space: LabelSpace, spectral: bool) -> None:
        super().__init__()
        self.conv1 = Conv2d(inputs, outputs, spectral=spectral)
        self.conv2 = Conv2d(outputs, outputs, spectral=spectral)
        self.conv_sc = Conv2d(inputs, outputs, kernel=1, spectral=spectral)
        self.bn1 = ConditionalBatchNorm(inputs, space)
        self.bn2 = ConditionalBatchNorm(outputs, space)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        h = self.conv1.enlarged(self.bn1(x, labels).relu_())
        h = self.conv2(self.bn2(h, labels).relu_())
        # A 1×1 kernel commutes with doubling, so it runs on a quarter of the pixels.
        return h.add_(F.interpolate(self.conv_sc(x), scale_factor=2.0))


class ResidualGenerator(AdversarialGenerator):
    """A conditional generator: `sample(z, targets)` → images.

    z `[n, latent_dim]` standard normal, targets as the label space gives them: classes int64 `[n]`
    or labels float32 `[n]` scaled to [0, 1]; images float32
    `[n, channels, image_size, image_size]` in (−1, 1). The layers compute in z's dtype.
    A size that is no multiple of its doublings is cut out of the next larger one. `widths` are the
    channels of each stage, from the bottom to full resolution; the discriminator has the same, and
    its last `keep` blocks keep the size.
    """

    def __init__(
        self,
        images: ImageSpace,
        widths: Sequence[int],
        latent_dim: int,
        *,
        spectral: bool = True,
        attention: bool = False,
        keep: int = 1,
    ) -> None:
        super().__init__()
        self._opponent = images, tuple(widths), keep, attention
        self.image_size, self.latent_dim, self.space = images.size, latent_dim, images.space
        self.bottom, doublings = bottom_and_doublings(images.size)
        self.linear = Linear(latent_dim, widths[0] * self.bottom**2, spectral=spectral)
        # A list of lists, as the published keys are `blocks.0.0.…`: attention is blocks.i.1.
        self.blocks = nn.ModuleList(
            nn.ModuleList([GeneratorBlock(inputs, outputs, self.space, spectral)])
            for inputs, outputs in pairwise(widths)
        )
        if attention and doublings > 1:
            cast(nn.ModuleList, self.blocks[-2]).append(SelfAttention(widths[-2]))
        self.output_layer = nn.Sequential(
            BatchNorm(widths[-1]),
            nn.ReLU(inplace=True),
            Conv2d(widths[-1], images.channels, spectral=spectral),
        )
        # Frozen while the networks train; classes need none.
        self.embedding: nn.Module = (
            LabelEmbedding().requires_grad_(False)
            if isinstance(self.space, ContinuousLabels)
            else nn.Identity()
        )
        self.spectral_layers = spectral_layers(self)

    def discriminator(self) -> "ProjectionDiscriminator":
        """A discriminator of the same widths, with attention where the generator has it."""
        return ProjectionDiscriminator(*self._opponent)

    def draws(self, seed: int, keys: range) -> np.ndarray:
        """The latents of some keys, standard normal float32 `[n, latent_dim]`."""
        return latents(seed, keys.start, len(keys), self.latent_dim)

    def sample(
        self, draws: Float[Tensor, "n latent"], conditions: Shaped[Tensor, " n"]
    ) -> Float[Tensor, "n c h w"]:
        """Images float32 `[n, c, h, w]` of latents `[n, latent_dim]` and targets `[n]`."""
        normalise(self.spectral_layers)
        labels = self.embedding(conditions)
        h = self.linear(draws).view(len(draws), -1, self.bottom, self.bottom)
        h = h.contiguous(memory_format=torch.channels_last)
        for stage in self.blocks:
            block, *attention = cast(nn.ModuleList, stage)
            h = block(h, labels)
            for layer in attention:
                h = layer(h)
        images = torch.tanh(self.output_layer(h).float())
        start = (images.shape[2] - self.image_size) // 2
        end = start + self.image_size
        return images[:, :, start:end, start:end]


class DiscriminatorBlock(nn.Module):
    """A residual block, before its activation, that may halve the resolution."""

    def __init__(self, inputs: int, outputs: int, *, halve: bool, first: bool = False) -> None:
        super().__init__()
        self.halve, self.first = halve, first
        self.conv1 = Conv2d(inputs, outputs)
        self.conv2 = Conv2d(outputs, outputs)
        self.conv_sc = Conv2d(inputs, outputs, kernel=1) if halve or inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(x if self.first else F.relu(x))
        h = self.conv2.reduced(h.relu_()) if self.halve else self.conv2(h.relu_())
        # Averaging and a 1×1 kernel commute; averaged first, it runs on a quarter of the pixels.
        x = F.avg_pool2d(x, 2) if self.halve else x
        return h.add_(x if self.conv_sc is None else self.conv_sc(x))


class ProjectionDiscriminator(Discriminator):
    """`forward(images, conditions)` → scores float32 `[n]`, high for real.

    `widths` as the generator's, from the bottom up; all blocks but the last `keep` halve the size.
    Conditions are classes int64 `[n]`, or the embeddings float32 `[n, EMBEDDING]` of continuous
    labels.
    """

    def __init__(
        self, images: ImageSpace, widths: Sequence[int], keep: int = 1, attention: bool = False
    ) -> None:
        super().__init__()
        halvings = len(widths) - keep
        widths = [images.channels, *reversed(widths)]
        blocks: list[nn.Module] = [
            DiscriminatorBlock(inputs, outputs, halve=index < halvings, first=index == 0)
            for index, (inputs, outputs) in enumerate(pairwise(widths))
        ]
        if attention:
            blocks.insert(1, SelfAttention(widths[1]))
        self.blocks = nn.Sequential(*blocks)
        self.linear = Linear(widths[-1], 1)
        self.embed = (
            Linear(EMBEDDING, widths[-1], bias=False)
            if isinstance(images.space, ContinuousLabels)
            else SpectralEmbedding(images.space.outputs, widths[-1])
        )
        self.spectral_layers = spectral_layers(self)

    def forward(
        self, images: Float[Tensor, "n c h w"], conditions: Shaped[Tensor, "n ..."]
    ) -> Float[Tensor, " n"]:
        normalise(self.spectral_layers)
        if images.shape[1] == 1:
            # One channel fits both memory formats; its strides tell every layer which to use.
            images = images.reshape(len(images), *images.shape[2:], 1).permute(0, 3, 1, 2)
        else:
            images = images.contiguous(memory_format=torch.channels_last)
        features = self.blocks(images).relu_().sum((2, 3), dtype=torch.float32)
        return self.linear(features)[:, 0] + (self.embed(conditions) * features).sum(1)
