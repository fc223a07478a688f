"""Losses of single samples, unreduced; the training loop takes their mean."""

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field

from cgankd.shardset.errors import BadInput

RegressionLoss = Literal["mse", "l1", "huber"]
HUBER = 0.1  # of the label range: up to here an error counts squared, beyond it by its size


class Hinton(BaseModel):
    """Soft targets: (1 − alpha) · cross-entropy + alpha · T² · KL(teacher ‖ student).

    Hinton, Vinyals and Dean (2015), eq. 1 to 4, weighted as RepDistiller's defaults.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    temperature: float = Field(4.0, gt=0, description="T: larger shows more of the wrong classes")
    alpha: float = Field(0.9, ge=0, le=1, description="weight of the teacher against the label")


Distillation = Hinton  # later methods join here as a union


def cross_entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """−log softmax(logits)[label] per sample, `[n]` ≥ 0, from logits `[n, C]` and int64 `[n]`.

    `BadInput` for other shapes.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise BadInput(
            f"cross-entropy takes logits [n, C] and labels [n], got {list(logits.shape)} and "
            f"{list(labels.shape)}"
        )
    return F.cross_entropy(logits.float(), labels, reduction="none")


def regression_loss(
    values: torch.Tensor, targets: torch.Tensor, kind: RegressionLoss
) -> torch.Tensor:
    """The error of scaled labels per sample, `[n]` ≥ 0, from values `[n, 1]` and targets `[n]`.

    With e = value − target: `mse` is e², `l1` |e|, and `huber` e²/2 up to a tenth of the label
    range and a straight line beyond (Huber, 1964). `BadInput` for other shapes.
    """
    if values.ndim != 2 or values.shape[1] != 1 or targets.shape != values.shape[:1]:
        raise BadInput(
            f"a regression loss takes values [n, 1] and targets [n], got {list(values.shape)} and "
            f"{list(targets.shape)}"
        )
    own = values.float()[:, 0]
    if kind == "mse":
        return F.mse_loss(own, targets, reduction="none")
    if kind == "l1":
        return F.l1_loss(own, targets, reduction="none")
    return F.huber_loss(own, targets, reduction="none", delta=HUBER)


def hinton(logits: torch.Tensor, teacher_logits: torch.Tensor, temperature: float) -> torch.Tensor:
    """T² · KL(softmax(teacher / T) ‖ softmax(student / T)) per sample, `[n]` ≥ 0.

    Both logits are `[n, C]`; T² keeps the gradient's size when T changes (Hinton et al., 2015,
    §2.1). `BadInput` for other shapes.
    """
    if logits.ndim != 2 or teacher_logits.shape != logits.shape:
        raise BadInput(
            f"distillation takes two logits [n, C], got {list(logits.shape)} of the student and "
            f"{list(teacher_logits.shape)} of the teacher"
        )
    student = F.log_softmax(logits.float() / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits.float() / temperature, dim=1)
    divergence = F.kl_div(student, teacher, reduction="none", log_target=True).sum(1)
    return temperature**2 * divergence


def distilled(
    method: Distillation, logits: torch.Tensor, labels: torch.Tensor, teacher_logits: torch.Tensor
) -> torch.Tensor:
    """The method's weighted sum of label loss and teacher loss per sample, `[n]`."""
    from_labels = cross_entropy(logits, labels)
    from_teacher = hinton(logits, teacher_logits, method.temperature)
    return (1 - method.alpha) * from_labels + method.alpha * from_teacher
