"""Networks that turn images into the features a density ratio is fitted on."""

import math
from collections.abc import Callable, Mapping
from typing import Literal

import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

Precision = Literal["float32", "bfloat16"]
Progress = Callable[[int, int, Mapping[str, float]], None]


def no_progress(done: int, total: int, values: Mapping[str, float]) -> None:
    """Reports nothing."""


class FeatureConfig(BaseModel):
    """The feature net: a classifier whose last hidden layer describes an image."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    network: Literal["small", "resnet34"] = Field(
        "small", description="`small` for any size; `resnet34` is the published net, made for 32 px"
    )
    width: int = Field(32, ge=8, description="channels of the small net's first layer")
    dim: int = Field(64, ge=2, description="length of a feature vector (published: 3072)")
    steps: int = Field(600, ge=1, description="training steps")
    batch: int = Field(128, ge=2, description="images per training step")
    learning_rate: float = Field(0.05, gt=0, description="at the start; falls to 0 as a cosine")
    weight_decay: float = Field(1e-3, ge=0, description="L2 penalty on the weights")
    shift: float = Field(
        0.06, ge=0, le=0.5, description="random shift while training, in image sides"
    )


class SmallFeatureNet(nn.Module):
    """A narrow convolution net that halves an image down to 4–7 px; any size from 8 px up."""

    def __init__(self, classes: int, channels: int, size: int, width: int, dim: int) -> None:
        super().__init__()
        halvings = max(1, math.ceil(math.log2(size / 7)))
        layers: list[nn.Module] = []
        last = channels
        for index in range(halvings):
            out = width * 2 ** min(index, 2)
            layers += [nn.Conv2d(last, out, 3, padding=1, bias=False), nn.BatchNorm2d(out)]
            layers += [nn.ReLU(), nn.MaxPool2d(2)]
            last = out
        self.body = nn.Sequential(
            *layers, nn.Conv2d(last, 2 * last, 3, padding=1, bias=False), nn.BatchNorm2d(2 * last)
        )
        self.feature = nn.Linear(2 * last, dim)
        self.head = nn.Sequential(nn.BatchNorm1d(dim), nn.ReLU(), nn.Linear(dim, classes))

    def features(self, images: Tensor) -> Tensor:
        """Feature vectors `[n, dim]` of images `[n, c, h, w]` in [−1, 1]."""
        return self.feature(F.relu(self.body(images)).mean((2, 3)))

    def forward(self, images: Tensor) -> Tensor:
        """Class logits `[n, classes]`."""
        return self.head(self.features(images))
