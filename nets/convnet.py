"""Small convolution networks that are fast on CPUs: few large maps, widths that fill vectors."""

import torch
import torch.nn.functional as F
from torch import nn

from cgankd.nets.network import Network, conv3x3, initialise_convolutions

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
