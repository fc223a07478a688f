"""Losses of labels, per sample: cross-entropy of classes, and the errors of scaled numbers."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from cgankd.shardset.errors import BadInput

RegressionLoss = Literal["mse", "l1", "huber"]
HUBER = 0.1  # of the label range: up to here an error counts squared, beyond it by its size


def label_loss(outputs: Tensor, targets: Tensor, kind: RegressionLoss) -> Tensor:
    """The loss `[n]` of outputs `[n, outputs]`: cross-entropy for int64 classes, for float scaled
    labels the regression loss of this kind.
    """
    if targets.is_floating_point():
        return regression_loss(outputs, targets, kind)
    return cross_entropy(outputs, targets)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """−log softmax(logits)[label] per sample, `[n]` ≥ 0, from logits `[n, C]` and int64 `[n]`.

    `BadInput` for other shapes.

    >>> import torch
    >>> cross_entropy(torch.zeros(1, 4), torch.tensor([2]))  # log 4
    tensor([1.3863])
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise BadInput(
            f"cross-entropy takes logits [n, C] and labels [n], got {list(logits.shape)} and "
            f"{list(labels.shape)}"
        )
    return F.cross_entropy(logits.float(), labels, reduction="none")


def regression_loss(values: Tensor, targets: Tensor, kind: RegressionLoss) -> Tensor:
    """The error of scaled labels per sample, `[n]` ≥ 0, from values `[n, 1]` and targets `[n]`.

    With e = value − target: `mse` is e², `l1` |e|, and `huber` e²/2 up to a tenth of the label
    range and a straight line beyond (Huber, 1964). `BadInput` for other shapes.

    >>> import torch
    >>> regression_loss(torch.tensor([[0.5]]), torch.tensor([0.25]), "mse")
    tensor([0.0625])
    """
    if values.ndim != 2 or values.shape[1] != 1 or targets.shape != values.shape[:1]:
        raise BadInput(
            f"a regression loss takes values [n, 1] and targets [n], got {list(values.shape)} and "
            f"{list(targets.shape)}"
        )
    predicted = values.float()[:, 0]
    if kind == "mse":
        return F.mse_loss(predicted, targets, reduction="none")
    if kind == "l1":
        return F.l1_loss(predicted, targets, reduction="none")
    return F.huber_loss(predicted, targets, reduction="none", delta=HUBER)
