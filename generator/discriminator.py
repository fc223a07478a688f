"""The projection discriminator that goes with BigGAN's generator and its relatives.

Miyato & Koyama 2018 (arXiv 1802.05637): D(x, y) = ψ(φ(x)) + ⟨embedding(y), φ(x)⟩.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cgankd.generator.biggan import bottom_and_doublings, stage_widths
from cgankd.generator.config import Network
from cgankd.generator.label_embedding import EMBEDDING
from cgankd.generator.layers import SelfAttention, SpectralConv2d, SpectralEmbedding, SpectralLinear
from cgankd.shardset.labels import ContinuousLabels, LabelSpace


class DiscriminatorBlock(nn.Module):
    """A residual block, before its activation, that may halve the resolution."""

    def __init__(self, inputs: int, outputs: int, *, halve: bool, first: bool = False) -> None:
        super().__init__()
        self.halve, self.first = halve, first
        self.conv1 = SpectralConv2d(inputs, outputs)
        self.conv2 = SpectralConv2d(outputs, outputs)
        self.conv_sc = (
            SpectralConv2d(inputs, outputs, kernel=1) if halve or inputs != outputs else None
        )

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(x if self.first else F.relu(x))
        h = self.conv2.reduced(h.relu_()) if self.halve else self.conv2(h.relu_())
        # Averaging and a 1×1 kernel commute; averaged first, it runs on a quarter of the pixels.
        x = F.avg_pool2d(x, 2) if self.halve else x
        return h.add_(x if self.conv_sc is None else self.conv_sc(x))


class ProjectionDiscriminator(nn.Module):
    """`forward(images, labels)` → scores float32 `[n]`, high for real.

    images float `[n, channels, image_size, image_size]` in [−1, 1]; labels classes int64 `[n]`, or
    the generator's embeddings float32 `[n, EMBEDDING]` of continuous ones. The layers compute in
    the images' dtype.
    """

    def __init__(
        self,
        image_size: int,
        channels: int,
        space: LabelSpace,
        width: int,
        network: Network = "biggan-cifar",
    ) -> None:
        super().__init__()
        _, doublings = bottom_and_doublings(image_size)
        widths = [channels, *reversed(stage_widths(network, width, doublings))]
        # As published at 32 pixels, the CIFAR form ends in two blocks that keep the size.
        halvings = doublings - 1 if network == "biggan-cifar" else doublings
        blocks: list[nn.Module] = [
            DiscriminatorBlock(inputs, outputs, halve=index < halvings, first=index == 0)
            for index, (inputs, outputs) in enumerate(pairwise(widths))
        ]
        if network == "sagan":
            blocks.insert(1, SelfAttention(widths[1]))
        self.blocks = nn.Sequential(*blocks)
        self.linear = SpectralLinear(widths[-1], 1)
        self.embed = (
            SpectralLinear(EMBEDDING, widths[-1], bias=False)
            if isinstance(space, ContinuousLabels)
            else SpectralEmbedding(space.outputs, widths[-1])
        )

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        if images.shape[1] == 1:
            # One channel fits both memory formats; its strides tell every layer which to use.
            images = images.reshape(len(images), *images.shape[2:], 1).permute(0, 3, 1, 2)
        else:
            images = images.contiguous(memory_format=torch.channels_last)
        features = self.blocks(images).relu_().sum((2, 3), dtype=torch.float32)
        return self.linear(features)[:, 0] + (self.embed(labels) * features).sum(1)
