"""The feature net published for continuous labels."""

import math
from typing import Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from cgankd.nets.feature_nets.interface import FeatureConfig, FeatureNet, label_loss
from cgankd.nets.published import convolution


class SparseAutoencoder(FeatureConfig):
    """Features that are sparse, tell the label and hold enough to paint the image again.

    cGAN-KD (ESwA 2023), regression: at 64 px with width 64 and 12,288 features, eight convolutions
    down to 4 px. Without the published last ReLU of the predictor, at which it can die.
    """

    kind: Literal["sparse-autoencoder"] = "sparse-autoencoder"
    width: int = Field(32, ge=8, description="channels of the first layer")
    sparsity: float = Field(1e-3, ge=0, description="weight of the mean feature in the loss")
    label_weight: float = Field(1.0, ge=0, description="weight of the label loss")

    def net(self, outputs: int, channels: int, size: int) -> FeatureNet:
        """The untrained net for images `[n, channels, size, size]`."""
        return AutoencoderNet(self, outputs, channels, size)


class AutoencoderNet(FeatureNet):
    """Convolutions down to features, from which one branch paints and another predicts labels."""

    def __init__(self, config: SparseAutoencoder, outputs: int, channels: int, size: int) -> None:
        super().__init__()
        self.sparsity, self.label_weight = config.sparsity, config.label_weight
        sizes = [size]
        while sizes[-1] > 4:
            sizes.append(math.ceil(sizes[-1] / 2))
        widths = [config.width * 2 ** min(index, 3) for index in range(len(sizes) - 1)]
        down: list[nn.Module] = []
        up: list[nn.Module] = []
        last = channels
        for width, before in zip(widths, sizes, strict=False):
            down += [*convolution(last, width, 2), *convolution(width, width)]
            up = [nn.Upsample(before), *convolution(width, max(last, config.width)), *up]
            last = width
        flat = last * sizes[-1] ** 2
        self.body = nn.Sequential(*down)
        self.feature = nn.Linear(flat, config.dim)
        self.decoder = nn.Sequential(
            *(nn.Linear(config.dim, flat), nn.ReLU(), nn.Unflatten(1, (last, *sizes[-1:] * 2))),
            *(*up, nn.Conv2d(config.width, channels, 3, padding=1), nn.Tanh()),
        )
        self.head = nn.Sequential(
            *(nn.Linear(config.dim, 1024), nn.ReLU(), nn.Linear(1024, 512), nn.ReLU()),
            *(nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, outputs)),
        )

    def features(self, images: Tensor) -> Tensor:
        """Feature vectors `[n, dim]`, ≥ 0, of images `[n, c, h, w]` in [−1, 1]."""
        return F.relu(self.feature(self.body(images).flatten(1)))

    def loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """Reconstruction, sparsity and label losses, weighted and summed: a scalar."""
        features = self.features(images)
        painted = F.mse_loss(self.decoder(features).float(), images)
        label_error = label_loss(self.head(features), targets)
        return painted + self.sparsity * features.float().mean() + self.label_weight * label_error
