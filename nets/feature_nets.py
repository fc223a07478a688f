"""Networks that turn images into the features on which a density ratio is fitted."""

import math
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from cgankd.nets.device import Precision, Progress, as_images, channels_last, placed, precise
from cgankd.nets.published import convolution, resnet34_body
from cgankd.shardset.errors import TrainingDiverged
from cgankd.shardset.files import derive_seed
from cgankd.shardset.labels import LabelSpace


class FeatureConfig(BaseModel):
    """The feature net: it predicts labels, and its last hidden layer describes an image."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    network: Literal["small", "resnet34", "sparse-autoencoder"] = Field(
        "small",
        description="small: any size, CPUs; resnet34: published for classes, made for 32 px; "
        "sparse-autoencoder: published for continuous labels",
    )
    width: int = Field(32, ge=8, description="channels of the first layer, except of resnet34")
    dim: int = Field(64, ge=2, description="length of a feature vector (published: 3072, 12288)")
    steps: int = Field(300, ge=1, description="training steps")
    batch: int = Field(128, ge=2, description="images in a training step")
    learning_rate: float = Field(0.05, gt=0, description="at first; falls to 0 along a cosine")
    weight_decay: float = Field(1e-3, ge=0, description="L2 penalty")
    shift: float = Field(0.06, ge=0, le=0.5, description="training shifts, in image sides")
    sparsity: float = Field(1e-3, ge=0, description="the autoencoder's weight of mean features")
    label_weight: float = Field(1.0, ge=0, description="the autoencoder's weight of the label loss")


class FeatureNet(nn.Module):
    """An image body, a feature layer and a head that predicts labels from features."""

    body: nn.Module
    feature: nn.Linear
    head: nn.Module

    def features(self, images: Tensor) -> Tensor:
        """Feature vectors `[n, dim]` of images `[n, c, h, w]` in [−1, 1]."""
        return self.feature(self.body(images).mean((2, 3)))

    def forward(self, images: Tensor) -> Tensor:
        """Predictions `[n, outputs]`: class logits, or the scaled label."""
        return self.head(self.features(images))

    def loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """The training loss, a scalar, of images with their targets `[n]`."""
        return label_loss(self(images), targets)


def label_loss(predicted: Tensor, targets: Tensor) -> Tensor:
    """The mean loss of predictions `[n, outputs]`: cross-entropy for int64 classes, squared error
    for float scaled labels.
    """
    if targets.is_floating_point():
        return F.mse_loss(predicted.float().squeeze(1), targets)
    return F.cross_entropy(predicted.float(), targets)


class SmallFeatureNet(FeatureNet):
    """A narrow convolution net that halves images down to 3–7 px; any size from 8 px up."""

    def __init__(self, outputs: int, channels: int, size: int, width: int, dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for index in range(max(1, math.ceil(math.log2(size / 7)))):
            out = width * 2 ** min(index, 2)
            layers += [*convolution(channels, out), nn.MaxPool2d(2)]
            channels = out
        self.body = nn.Sequential(*layers, *convolution(channels, 2 * channels))
        self.feature = nn.Linear(2 * channels, dim)
        self.head = nn.Sequential(nn.BatchNorm1d(dim), nn.ReLU(), nn.Linear(dim, outputs))


class ResNet34FeatureNet(FeatureNet):
    """The published feature net: a CIFAR ResNet-34 with a feature layer between pooling and head.

    cGAN-KD (ESwA 2023), section on density ratios: 512 → dim, then 1024, 256 and the outputs.
    """

    def __init__(self, outputs: int, channels: int, dim: int) -> None:
        super().__init__()
        self.body = resnet34_body(channels)
        self.feature = nn.Linear(512, dim)
        self.head = nn.Sequential(
            *(nn.BatchNorm1d(dim), nn.ReLU(), nn.Dropout(0.5), nn.Linear(dim, 1024)),
            *(nn.BatchNorm1d(1024), nn.ReLU(), nn.Dropout(0.5), nn.Linear(1024, 256)),
            *(nn.BatchNorm1d(256), nn.ReLU(), nn.Dropout(0.5), nn.Linear(256, outputs)),
        )


class SparseAutoencoder(FeatureNet):
    """The published feature net for continuous labels: features that are sparse, tell the label
    and hold enough to paint the image again.

    cGAN-KD (ESwA 2023), regression: at 64 px with width 64 and 12,288 features, eight convolutions
    down to 4 px. Without the published last ReLU of the predictor, at which it can die.
    """

    def __init__(self, config: FeatureConfig, outputs: int, channels: int, size: int) -> None:
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


def build_feature_net(
    config: FeatureConfig, *, space: LabelSpace, channels: int, size: int
) -> FeatureNet:
    """The untrained feature net of a configuration."""
    if config.network == "resnet34":
        return ResNet34FeatureNet(space.outputs, channels, config.dim)
    if config.network == "sparse-autoencoder":
        return SparseAutoencoder(config, space.outputs, channels, size)
    return SmallFeatureNet(space.outputs, channels, size, config.width, config.dim)


def train_feature_net(
    pixels: np.ndarray,
    labels: np.ndarray,
    config: FeatureConfig,
    *,
    space: LabelSpace,
    seed: int,
    device: torch.device,
    precision: Precision,
    progress: Progress = lambda done, total, values: None,
) -> FeatureNet:
    """A feature net trained to tell the labels of uint8 pixels `[n, c, h, w]`, ready for use.

    Labels are raw: int64 classes or float64 in their unit, `[n]`. Batches are shifted as one.
    `TrainingDiverged` where the loss is no longer a number.
    """
    _, channels, size, _ = pixels.shape
    draws = torch.Generator().manual_seed(derive_seed(seed, "feature batches"))
    images = torch.from_numpy(pixels).to(device)
    targets = torch.from_numpy(space.targets(labels)).to(device)
    reach = round(config.shift * size)
    if config.shift > 0:
        reach = max(reach, 1)
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "feature net"))
        net = build_feature_net(config, space=space, channels=channels, size=size)
        placed(net, device)
        optimiser = torch.optim.SGD(
            net.parameters(),
            config.learning_rate,
            momentum=0.9,
            nesterov=True,
            weight_decay=config.weight_decay,
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.steps)
        for step in range(config.steps):
            rows = torch.randint(len(images), (config.batch,), generator=draws).to(device)
            across, down = torch.randint(-reach, reach + 1, (2,), generator=draws).tolist()
            batch = _shifted(channels_last(as_images(images[rows])), across, down, reach)
            with precise(device, precision):
                loss = net.loss(batch, targets[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            if step % 50 == 0 or step + 1 == config.steps:
                value = loss.item()
                if not math.isfinite(value):
                    raise TrainingDiverged(
                        f"feature net: the loss is {value} at step {step + 1}; lower "
                        f"ratio.features.learning_rate ({config.learning_rate})"
                    )
                progress(step + 1, config.steps, {"loss": value})
    return net.eval()


def features_of(
    net: FeatureNet, pixels: np.ndarray, *, device: torch.device, precision: Precision, batch: int
) -> np.ndarray:
    """The float32 features `[n, dim]` of uint8 pixels `[n, c, h, w]`.

    Batches are padded to one size, so that a sample's features do not depend on how many came.
    """
    parts = []
    with torch.inference_mode(), precise(device, precision):
        for start in range(0, len(pixels), batch):
            images, count = padded_images(pixels[start : start + batch], batch)
            parts.append(net.features(channels_last(images.to(device)))[:count].float().cpu())
    return torch.cat(parts).numpy()


def padded_images(pixels: np.ndarray, batch: int) -> tuple[Tensor, int]:
    """Images `[batch, c, h, w]`, grey ones after those of `pixels`, and how many count."""
    count = len(pixels)
    images = as_images(pixels)
    if count < batch:
        images = torch.cat([images, images.new_zeros(batch - count, *images.shape[1:])])
    return images, count


def _shifted(images: Tensor, across: int, down: int, reach: int) -> Tensor:
    """Images moved by whole pixels, their border repeated."""
    if reach == 0:
        return images
    size = images.shape[-1]
    wide = F.pad(images, [reach] * 4, mode="replicate")
    top, left = reach - down, reach - across
    return channels_last(wide[:, :, top : top + size, left : left + size])
