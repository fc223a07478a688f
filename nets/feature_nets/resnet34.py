"""The feature net published for classes."""

from typing import Literal

from torch import nn

from cgankd.nets.feature_nets.interface import FeatureConfig, FeatureNet, PooledFeatureNet
from cgankd.nets.published import resnet34_body


class ResNet34(FeatureConfig):
    """A CIFAR ResNet-34, made for 32 px, with a feature layer between pooling and head.

    cGAN-KD (ESwA 2023), section on density ratios: 512 → dim, then 1024, 256 and the outputs.
    """

    kind: Literal["resnet34"] = "resnet34"

    def net(self, outputs: int, channels: int, size: int) -> FeatureNet:
        """The untrained net for images `[n, channels, size, size]`."""
        body = resnet34_body(channels)
        feature = nn.Linear(512, self.dim)
        head = nn.Sequential(
            *(nn.BatchNorm1d(self.dim), nn.ReLU(), nn.Dropout(0.5), nn.Linear(self.dim, 1024)),
            *(nn.BatchNorm1d(1024), nn.ReLU(), nn.Dropout(0.5), nn.Linear(1024, 256)),
            *(nn.BatchNorm1d(256), nn.ReLU(), nn.Dropout(0.5), nn.Linear(256, outputs)),
        )
        return PooledFeatureNet(body, feature, head)
