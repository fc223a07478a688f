"""Whether a GAN's training still makes sense: finite, the game undecided, the samples varied."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from cgankd.shardset.errors import TrainingDiverged

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
