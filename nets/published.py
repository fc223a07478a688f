"""The published networks for small images: ResNet, WideResNet, VGG and DenseNet-121.

Residual networks are those of He et al. (2016, §4.2), named as in RepDistiller; VGG networks have
batch normalisation and are named as there; DenseNet-121 (Huang et al., 2017) as in pytorch-cifar.
"""

import torch
import torch.nn.functional as F
from torch import nn

from cgankd.nets.network import Network, conv3x3, initialise_convolutions, pooled

VGG_WIDTHS = (64, 128, 256, 512, 512)
VGG_LARGE = 64  # from this size on, a fourth pooling keeps the last block as cheap as at 32 px
GROWTH = 32
DENSE_BLOCKS = (6, 12, 24, 16)


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


class VGG(Network):
    """Five blocks with as many convolutions as `convolutions` says, halved in size between."""

    def __init__(self, *, convolutions: tuple[int, ...], outputs: int, channels: int) -> None:
        super().__init__()
        inputs = (channels, *VGG_WIDTHS)
        for index, (width, count) in enumerate(zip(VGG_WIDTHS, convolutions, strict=True)):
            self.add_module(f"block{index}", _vgg_block(inputs[index], width, count))
        self.classifier = nn.Linear(VGG_WIDTHS[-1], outputs)
        initialise_convolutions(self)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        halvings = 4 if images.shape[2] >= VGG_LARGE else 3
        maps = images
        for index in range(len(VGG_WIDTHS)):
            maps = F.relu(self.get_submodule(f"block{index}")(maps), inplace=True)
            if index < halvings:
                maps = F.max_pool2d(maps, 2)
        return pooled(maps)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(images))


def _vgg_block(inputs: int, outputs: int, convolutions: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for index in range(convolutions):
        layers += [nn.Conv2d(outputs if index else inputs, outputs, kernel_size=3, padding=1)]
        layers += [nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])  # the caller applies the last ReLU


class Bottleneck(nn.Module):
    """Puts `GROWTH` new feature maps in front of those it is given."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, 4 * GROWTH, kernel_size=1, bias=False)
        self.bn2 = nn.BatchNorm2d(4 * GROWTH)
        self.conv2 = nn.Conv2d(4 * GROWTH, GROWTH, kernel_size=3, padding=1, bias=False)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        new = self.conv1(F.relu(self.bn1(maps), inplace=True))
        new = self.conv2(F.relu(self.bn2(new), inplace=True))
        return torch.cat([new, maps], 1)


class Transition(nn.Module):
    """Halves the number of feature maps and their size."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(inputs)
        self.conv = nn.Conv2d(inputs, inputs // 2, kernel_size=1, bias=False)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(self.conv(F.relu(self.bn(maps), inplace=True)), 2)


class DenseNet121(Network):
    """Four dense blocks with three transitions between them; 7.0 million parameters."""

    def __init__(self, *, outputs: int, channels: int) -> None:
        super().__init__()
        width = 2 * GROWTH
        self.conv1 = nn.Conv2d(channels, width, kernel_size=3, padding=1, bias=False)
        for index, blocks in enumerate(DENSE_BLOCKS, start=1):
            layers = [Bottleneck(width + GROWTH * block) for block in range(blocks)]
            self.add_module(f"dense{index}", nn.Sequential(*layers))
            width += GROWTH * blocks
            if index < len(DENSE_BLOCKS):
                self.add_module(f"trans{index}", Transition(width))
                width //= 2
        self.bn = nn.BatchNorm2d(width)
        self.linear = nn.Linear(width, outputs)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.conv1(images)
        for index in range(1, len(DENSE_BLOCKS) + 1):
            maps = self.get_submodule(f"dense{index}")(maps)
            if index < len(DENSE_BLOCKS):
                maps = self.get_submodule(f"trans{index}")(maps)
        return pooled(F.relu(self.bn(maps), inplace=True))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.linear(self.features(images))
