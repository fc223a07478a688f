"""Residual networks for small images (He et al., 2016, §4.2), named as in RepDistiller."""

import torch
import torch.nn.functional as F
from torch import nn

from cgankd.nets.network import Network, conv3x3, initialise_convolutions, pooled


class BasicBlock(nn.Module):
    """Two 3×3 convolutions and a shortcut, which is a 1×1 convolution where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        shortcut = maps if self.downsample is None else self.downsample(maps)
        maps = F.relu(self.bn1(self.conv1(maps)), inplace=True)
        return F.relu(self.bn2(self.conv2(maps)) + shortcut, inplace=True)


class ResNet(Network):
    """A residual network of `depth` = 6n + 2 layers; `widths` of the stem and its 3 stages."""

    def __init__(
        self, *, depth: int, widths: tuple[int, int, int, int], outputs: int, channels: int
    ) -> None:
        super().__init__()
        blocks = (depth - 2) // 6
        stem, first, second, third = widths
        self.conv1 = conv3x3(channels, stem)
        self.bn1 = nn.BatchNorm2d(stem)
        self.layer1 = _stage(stem, first, blocks, stride=1)
        self.layer2 = _stage(first, second, blocks, stride=2)
        self.layer3 = _stage(second, third, blocks, stride=2)
        self.fc = nn.Linear(third, outputs)
        initialise_convolutions(self)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        maps = F.relu(self.bn1(self.conv1(images)), inplace=True)
        return pooled(self.layer3(self.layer2(self.layer1(maps))))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.features(images))


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(inputs, outputs, stride)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)))


class PreActivationBlock(nn.Module):
    """Normalisation and ReLU before each of two convolutions; the shortcut branches off between."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.conv2 = conv3x3(outputs, outputs)
        self.convShortcut: nn.Module | None = None
        if inputs != outputs:
            self.convShortcut = nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        activated = F.relu(self.bn1(maps), inplace=True)
        shortcut = maps if self.convShortcut is None else self.convShortcut(activated)
        return shortcut + self.conv2(F.relu(self.bn2(self.conv1(activated)), inplace=True))


class Stage(nn.Module):
    """Blocks of one width; the first one changes the size. Named `layer` as in checkpoints."""

    def __init__(self, inputs: int, outputs: int, blocks: int, stride: int) -> None:
        super().__init__()
        first = PreActivationBlock(inputs, outputs, stride)
        others = (PreActivationBlock(outputs, outputs, 1) for _ in range(blocks - 1))
        self.layer = nn.Sequential(first, *others)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return self.layer(maps)


class WideResNet(Network):
    """A wide residual network of `depth` = 6n + 4 layers, `widen` times as wide as a ResNet."""

    def __init__(self, *, depth: int, widen: int, outputs: int, channels: int) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        self.conv1 = conv3x3(channels, 16)
        self.block1 = Stage(16, 16 * widen, blocks, stride=1)
        self.block2 = Stage(16 * widen, 32 * widen, blocks, stride=2)
        self.block3 = Stage(32 * widen, 64 * widen, blocks, stride=2)
        self.bn1 = nn.BatchNorm2d(64 * widen)
        self.fc = nn.Linear(64 * widen, outputs)
        initialise_convolutions(self)
        nn.init.zeros_(self.fc.bias)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.block3(self.block2(self.block1(self.conv1(images))))
        return pooled(F.relu(self.bn1(maps), inplace=True))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.fc(self.features(images))


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut, as `BasicBlock`, under the names of feature nets."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            *convolution(channels, width, stride), *convolution(width, width)[:2]
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Maps `[n, channels, h, w]` to `[n, width, h / stride, w / stride]`."""
        return F.relu(self.convolutions(images) + self.shortcut(images))


def convolution(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    """A 3×3 convolution, batch normalisation and ReLU."""
    return [conv3x3(inputs, outputs, stride), nn.BatchNorm2d(outputs), nn.ReLU()]


def resnet34_body(channels: int) -> nn.Sequential:
    """ResNet-34 up to its feature maps `[n, 512, h / 8, w / 8]`; the stem is 3×3 and of full size.

    The weights come from PyTorch's global generator and keep its default initialisation.
    """
    layers = convolution(channels, 64)
    last = 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for _ in range(blocks):
            layers.append(ResidualBlock(last, width, stride=1 if width == last else 2))
            last = width
    return nn.Sequential(*layers)
