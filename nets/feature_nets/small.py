"""A narrow feature net that a CPU trains in seconds."""

import math
from typing import Literal

from pydantic import Field
from torch import nn

from cgankd.nets.feature_nets.interface import FeatureConfig, FeatureNet, PooledFeatureNet
from cgankd.nets.published import convolution


class Small(FeatureConfig):
    """A narrow convolution net that halves images down to 3–7 px; any size from 8 px up.

    >>> Small(width=8, dim=12).net(outputs=4, channels=1, size=28).feature
    Linear(in_features=32, out_features=12, bias=True)
    """

    kind: Literal["small"] = "small"
    width: int = Field(32, ge=8, description="channels of the first layer")

    def net(self, outputs: int, channels: int, size: int) -> FeatureNet:
        """The untrained net for images `[n, channels, size, size]`."""
        layers: list[nn.Module] = []
        for index in range(max(1, math.ceil(math.log2(size / 7)))):
            out = self.width * 2 ** min(index, 2)
            layers += [*convolution(channels, out), nn.MaxPool2d(2)]
            channels = out
        body = nn.Sequential(*layers, *convolution(channels, 2 * channels))
        feature = nn.Linear(2 * channels, self.dim)
        head = nn.Sequential(nn.BatchNorm1d(self.dim), nn.ReLU(), nn.Linear(self.dim, outputs))
        return PooledFeatureNet(body, feature, head)
