"""The family of feature nets, which turn images into the features of a density ratio.

One class in one file each, and here their union by `kind`. A class's fields are its settings, in a
recipe under `ratio.features`; its `net(…)` builds the network. To add a kind, write its file and
name it in `FeatureKind`.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BeforeValidator, Field
from torch import Tensor

from cgankd.nets.device import Precision, Progress, as_images, channels_last, placed, precise
from cgankd.nets.feature_nets.interface import FeatureConfig, FeatureNet
from cgankd.nets.feature_nets.resnet34 import ResNet34
from cgankd.nets.feature_nets.small import Small
from cgankd.nets.feature_nets.sparse_autoencoder import SparseAutoencoder
from cgankd.nets.minimise import minimise, require_finite
from cgankd.shardset.files import derive_seed
from cgankd.shardset.labels import LabelSpace

DEFAULT_KIND = "small"
READ_EVERY = 50  # steps between readings of the loss
# Until 0.1 one record had the settings of all kinds, and every recipe that was run names them.
OLD_SETTINGS = {
    "small": {"width"},
    "resnet34": set(),
    "sparse-autoencoder": {"width", "sparsity", "label_weight"},
}


def with_kind(settings: Any) -> Any:
    """Settings as they are written now: `kind`, which was once called `network` and has a default.

    Old settings named those of every kind; what the net does not have is left out.

    >>> with_kind({"network": "resnet34", "width": 32, "dim": 64})
    {'kind': 'resnet34', 'dim': 64}
    """
    if not isinstance(settings, Mapping):
        return settings
    if "network" not in settings:
        return {"kind": DEFAULT_KIND, **settings}
    settings = dict(settings)
    kind = settings.pop("network")
    idle = set().union(*OLD_SETTINGS.values()) - OLD_SETTINGS.get(kind, set())
    kept = {name: value for name, value in settings.items() if name not in {"kind", *idle}}
    return {"kind": kind, **kept}


FeatureKind = Annotated[
    Small | ResNet34 | SparseAutoencoder, Field(discriminator="kind"), BeforeValidator(with_kind)
]


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
        net = placed(config.net(space.outputs, channels, size), device)
        optimiser = torch.optim.SGD(
            net.parameters(),
            config.learning_rate,
            momentum=0.9,
            nesterov=True,
            weight_decay=config.weight_decay,
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.steps)

        def loss(step: int) -> Tensor:
            rows = torch.randint(len(images), (config.batch,), generator=draws).to(device)
            across, down = torch.randint(-reach, reach + 1, (2,), generator=draws).tolist()
            batch = _shifted(channels_last(as_images(images[rows])), across, down, reach)
            with precise(device, precision):
                return net.loss(batch, targets[rows])

        def after(step: int, value: Tensor) -> None:
            if step % READ_EVERY == 1 or step == config.steps:
                finite = require_finite(
                    value.item(),
                    f"feature net: the loss at step {step}",
                    f"lower ratio.features.learning_rate ({config.learning_rate})",
                )
                progress(step, config.steps, {"loss": finite})

        minimise(loss, optimiser, config.steps, schedule=schedule, after=after)
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
