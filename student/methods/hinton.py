"""Distillation by soft targets."""

from typing import ClassVar, Literal

import torch.nn.functional as F
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from cgankd.nets.losses import cross_entropy
from cgankd.nets.training import Need, Shapes, Step
from cgankd.shardset.errors import BadInput


class Hinton(BaseModel):
    """Soft targets: (1 − alpha) · cross-entropy + alpha · T² · KL(teacher ‖ student).

    Hinton, Vinyals and Dean (2015), eq. 1 to 4, weighted as RepDistiller's defaults.

    >>> Hinton(temperature=2.0).alpha
    0.9
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    needs: ClassVar[frozenset[Need]] = frozenset({"logits"})

    kind: Literal["hinton"] = "hinton"
    temperature: float = Field(4.0, gt=0, description="T: larger shows more of the wrong classes")
    alpha: float = Field(0.9, ge=0, le=1, description="weight of the teacher against the label")

    def build(self, student: Shapes, teacher: Shapes) -> None:
        """None: nothing is trained but the student."""

    def loss(self, step: Step) -> Float[Tensor, " b"]:
        """The weighted sum of label loss and teacher loss per sample, `[b]`."""
        from_labels = cross_entropy(step.outputs, step.batch.targets)
        from_teacher = divergence(step.outputs, step.batch.teacher_logits, self.temperature)
        return (1 - self.alpha) * from_labels + self.alpha * from_teacher


def divergence(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T² · KL(softmax(teacher / T) ‖ softmax(student / T)) per sample, `[n]` ≥ 0.

    Both logits are `[n, C]`; T² keeps the gradient's size when T changes (Hinton et al., 2015,
    §2.1). `BadInput` for other shapes.

    >>> import torch
    >>> divergence(torch.zeros(2, 3), torch.ones(2, 3), temperature=4.0)
    tensor([0., 0.])
    """
    if logits.ndim != 2 or teacher_logits.shape != logits.shape:
        raise BadInput(
            f"distillation takes two logits [n, C], got {list(logits.shape)} of the student and "
            f"{list(teacher_logits.shape)} of the teacher"
        )
    student = F.log_softmax(logits.float() / temperature, dim=1)
    teacher = F.log_softmax(teacher_logits.float() / temperature, dim=1)
    # KL(p ‖ q) = Σ p · (log p − log q) over classes, p the teacher's and q the student's.
    return temperature**2 * F.kl_div(student, teacher, reduction="none", log_target=True).sum(1)
