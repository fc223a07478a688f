"""DenseNet-121 for small images (Huang et al., 2017), named as in pytorch-cifar."""

import torch
import torch.nn.functional as F
from torch import nn

from cgankd.nets.network import Network, pooled

GROWTH = 32
BLOCKS = (6, 12, 24, 16)


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
        for index, blocks in enumerate(BLOCKS, start=1):
            layers = [Bottleneck(width + GROWTH * block) for block in range(blocks)]
            self.add_module(f"dense{index}", nn.Sequential(*layers))
            width += GROWTH * blocks
            if index < len(BLOCKS):
                self.add_module(f"trans{index}", Transition(width))
                width //= 2
        self.bn = nn.BatchNorm2d(width)
        self.linear = nn.Linear(width, outputs)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.conv1(images)
        for index in range(1, len(BLOCKS) + 1):
            maps = self.get_submodule(f"dense{index}")(maps)
            if index < len(BLOCKS):
                maps = self.get_submodule(f"trans{index}")(maps)
        return pooled(F.relu(self.bn(maps), inplace=True))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.linear(self.features(images))
