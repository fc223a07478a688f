"""What a network says about images, and how good that is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

from cgankd.nets.device import Precision, as_images, precise
from cgankd.shardset.errors import BadInput
from cgankd.shardset.labels import LabelSpace

CPU = torch.device("cpu")


def outputs_of(
    module: Callable[[torch.Tensor], torch.Tensor],
    pixels: np.ndarray,
    batch: int = 500,
    device: torch.device = CPU,
    precision: Precision = "float32",
) -> np.ndarray:
    """The float32 outputs `[n, C]` of a network or teacher for uint8 pixels `[n, c, h, w]`.

    A network is evaluated with its running statistics and left in the mode it was in.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or len(pixels) == 0:
        raise BadInput(
            f"evaluation takes at least one image as uint8 [n, c, h, w], got {pixels.dtype} "
            f"{list(pixels.shape)}"
        )
    parts = []
    with _evaluating(module), torch.inference_mode(), precise(device, precision):
        for start in range(0, len(pixels), batch):
            chunk = torch.tensor(pixels[start : start + batch], device=device)
            parts.append(module(as_images(chunk, torch.channels_last)).float())
    return torch.cat(parts).cpu().numpy()


def predictions(outputs: np.ndarray, space: LabelSpace) -> np.ndarray:
    """What `outputs` `[n, space.outputs]` say the labels `[n]` are.

    int64 classes, or float64 values in the label's unit, within its range.
    """
    if outputs.ndim != 2 or outputs.shape[1] != space.outputs:
        raise BadInput(
            f"outputs [n, {space.outputs}] are needed for these labels, got {list(outputs.shape)}"
        )
    return space.unscaled(outputs[:, 0]) if space.task == "regression" else outputs.argmax(1)


def measures(outputs: np.ndarray, labels: np.ndarray, space: LabelSpace) -> dict[str, float]:
    """How good `outputs` `[n, space.outputs]` are for raw labels `[n]`.

    `accuracy` in percent and `cross_entropy` in nats for classes; `mae` and `rmse`, the mean
    absolute and the root mean squared error in the label's unit, for continuous labels.
    """
    _check(outputs, labels)
    if space.task == "classification":
        return {
            "accuracy": accuracy(outputs, labels),
            "cross_entropy": mean_cross_entropy(outputs, labels),
        }
    error = predictions(outputs, space) - labels
    return {"mae": float(np.abs(error).mean()), "rmse": float(np.sqrt(np.mean(error**2)))}


def accuracy(outputs: np.ndarray, labels: np.ndarray) -> float:
    """The percentage of samples whose largest of `outputs` `[n, C]` is at their label `[n]`.

    >>> accuracy(np.array([[2.0, 1.0], [0.0, 3.0]]), np.array([0, 0]))
    50.0
    """
    _check(outputs, labels)
    return 100 * float((outputs.argmax(1) == labels).mean())


def mean_cross_entropy(outputs: np.ndarray, labels: np.ndarray) -> float:
    """The mean of −log softmax(outputs)[label] over samples, in nats.

    >>> round(mean_cross_entropy(np.zeros((1, 4)), np.array([2])), 4)  # log 4
    1.3863
    """
    _check(outputs, labels)
    # −log softmax(z)[y] = log Σ exp(z − max z) − (z_y − max z): nothing overflows.
    shifted = outputs.astype(np.float64) - outputs.max(1, keepdims=True)
    log_sums = np.log(np.exp(shifted).sum(1))
    return float((log_sums - shifted[np.arange(len(labels)), labels]).mean())


def _check(outputs: np.ndarray, labels: np.ndarray) -> None:
    if outputs.ndim != 2 or labels.shape != outputs.shape[:1] or len(labels) == 0:
        raise BadInput(
            f"outputs [n, C] and labels [n] with n ≥ 1 are needed, got {list(outputs.shape)} and "
            f"{list(labels.shape)}"
        )


@contextmanager
def _evaluating(module: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    if not isinstance(module, torch.nn.Module) or not module.training:
        yield
        return
    module.eval()
    try:
        yield
    finally:
        module.train()
