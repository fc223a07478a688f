"""What every feature net offers, and the settings that all kinds have."""

from abc import ABC, abstractmethod

import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn


class FeatureNet(nn.Module, ABC):
    """A network that is trained to predict labels, for the features from which it does so."""

    head: nn.Module  # features [n, dim] to predictions [n, outputs]: logits, or the scaled label

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Feature vectors `[n, dim]` of images `[n, c, h, w]` in [−1, 1]."""

    @abstractmethod
    def loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """The training loss, a scalar, of images with their targets `[n]`."""


class FeatureConfig(BaseModel, ABC):
    """What a net is called and how it is trained; a kind adds settings of its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: str
    dim: int = Field(64, ge=2, description="length of a feature vector (published: 3072, 12288)")
    steps: int = Field(300, ge=1, description="training steps")
    batch: int = Field(128, ge=2, description="images in a training step")
    learning_rate: float = Field(0.05, gt=0, description="at first; falls to 0 along a cosine")
    weight_decay: float = Field(1e-3, ge=0, description="L2 penalty")
    shift: float = Field(0.06, ge=0, le=0.5, description="training shifts, in image sides")

    @abstractmethod
    def net(self, outputs: int, channels: int, size: int) -> FeatureNet:
        """The untrained net for images `[n, channels, size, size]`.

        outputs: how many numbers it predicts, a logit for each class or one scaled label.
        """


class PooledFeatureNet(FeatureNet):
    """A body of convolutions, its maps averaged over the image, a feature layer and a head."""

    def __init__(self, body: nn.Module, feature: nn.Linear, head: nn.Module) -> None:
        super().__init__()
        self.body, self.feature, self.head = body, feature, head

    def features(self, images: Tensor) -> Tensor:
        """Feature vectors `[n, dim]` of images `[n, c, h, w]` in [−1, 1]."""
        return self.feature(self.body(images).mean((2, 3)))

    def loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """The mean label loss, a scalar, of images with their targets `[n]`."""
        return label_loss(self.head(self.features(images)), targets)


def label_loss(predicted: Tensor, targets: Tensor) -> Tensor:
    """The mean loss of predictions `[n, outputs]`: cross-entropy for int64 classes, squared error
    for float scaled labels.
    """
    if targets.is_floating_point():
        return F.mse_loss(predicted.float().squeeze(1), targets)
    return F.cross_entropy(predicted.float(), targets)
