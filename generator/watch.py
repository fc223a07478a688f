"""Whether a GAN's training makes sense, before and while it runs: images for every label; finite
losses, the game undecided, the samples varied; and a picture of samples for a person to judge.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from cgankd.shardset.errors import BadInput, TrainingDiverged
from cgankd.shardset.images import encode_png, to_pixels
from cgankd.shardset.labels import ContinuousLabels, LabelSpace

GAP = 1  # black pixels between samples
PATIENCE = 1000  # steps for which a symptom must last
SATURATED = 0.02  # hinge loss of a discriminator that has won: nothing is left to learn from it
COLLAPSED = 0.05  # spread of a label's samples as a part of its real images' spread


def spread(images: Tensor, labels: Tensor) -> float:
    """The pixels' standard deviation within each label, averaged; images float `[n, c, h, w]`.

    Labels with one image have no deviation and are left out; NaN where all are.
    """
    groups = [images[labels == label] for label in labels.unique()]
    spreads = [group.std(0).mean() for group in groups if len(group) > 1]
    return float(torch.stack(spreads).mean()) if spreads else math.nan


def variety(samples: Tensor, labels: Tensor, real_spread: float) -> float:
    """The `spread` of samples over that of real images; 1 where one of them has none."""
    # One image per class has no spread to compare with: then any variety will do.
    share = spread(samples, labels) / (real_spread or math.nan)
    return 1.0 if math.isnan(share) else share


def check_health(rows: Sequence[Mapping[str, float]]) -> None:
    """Raises `TrainingDiverged` for the latest of the rows of metrics.jsonl, naming its step.

    A row holds step, loss_d, loss_g and variety (`spread` over the real images' spread).
    """
    step = int(rows[-1]["step"])
    for name in ("loss_d", "loss_g"):
        if not math.isfinite(rows[-1][name]):
            raise TrainingDiverged(
                f"generator training: {name} is {rows[-1][name]} at step {step}; "
                "lower lr_g and lr_d, or use precision float32"
            )
    if _lasts(rows, "loss_d", SATURATED):
        raise TrainingDiverged(
            f"generator training: at step {step} the discriminator has told real from generated "
            f"without error for {PATIENCE} steps (loss_d < {SATURATED}); lower lr_d or d_steps, "
            "or add augmentation (colour, translation, cutout)"
        )
    if _lasts(rows, "variety", COLLAPSED):
        raise TrainingDiverged(
            f"generator training: at step {step} the samples of a label have hardly differed for "
            f"{PATIENCE} steps (variety < {COLLAPSED} of the real images'); lower lr_g, raise "
            "d_steps or batch, or give more images"
        )


def _lasts(rows: Sequence[Mapping[str, float]], name: str, threshold: float) -> bool:
    """Whether a value has stayed below its threshold for the last PATIENCE steps."""
    start = rows[-1]["step"] - PATIENCE
    return start >= 0 and all(row[name] < threshold for row in rows if row["step"] >= start)


def check_images(pixels: np.ndarray, labels: np.ndarray, space: LabelSpace) -> None:
    """Raises `BadInput` for images or labels that no generator can be trained on."""
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[2] != pixels.shape[3]:
        raise BadInput(
            f"the generator needs square uint8 images [n, c, s, s], got {pixels.dtype} "
            f"{list(pixels.shape)}"
        )
    space.check(labels, "the generator's images")
    if labels.shape != (len(pixels),):
        raise BadInput(
            f"the generator needs a label for each of {len(pixels)} images, got "
            f"{list(labels.shape)}"
        )
    if isinstance(space, ContinuousLabels):
        if len(np.unique(labels)) < 2:
            raise BadInput(
                "the generator's images have fewer than 2 different labels; give images of more "
                "labels, or use task classification"
            )
        return
    missing = sorted(set(range(space.outputs)) - set(labels.tolist()))
    if missing:
        raise BadInput(
            f"class {missing[0]} of {space.outputs} has no images to train the generator on"
        )


def grid_png(images: torch.Tensor, columns: int) -> bytes:
    """The PNG of images float `[n, c, h, w]` in rows of `columns`, n a multiple of it."""
    pixels = np.pad(to_pixels(images), ((0, 0), (0, 0), (0, GAP), (0, GAP)))
    count, channels, height, width = pixels.shape
    rows = pixels.reshape(count // columns, columns, channels, height, width)
    tiled = rows.transpose(2, 0, 3, 1, 4).reshape(channels, -1, columns * width)
    return encode_png(np.ascontiguousarray(tiled[:, :-GAP, :-GAP]))
