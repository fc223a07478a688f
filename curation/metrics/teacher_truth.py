"""Whether the teacher agrees with labels, and whether its confidence can be believed."""

from collections.abc import Callable

import numpy as np

from cgankd.shardset.errors import BadInput


def agreement(predicted: np.ndarray, labels: np.ndarray, within: float = 0.0) -> float:
    """The share in [0, 1] of predictions `[n]` that are their label `[n]`, or no farther than
    `within` from it in its unit. `BadInput` for none, or for unequal numbers.
    """
    if predicted.shape != labels.shape or labels.size == 0:
        raise BadInput(
            f"agreement: {list(predicted.shape)} predictions for {list(labels.shape)} labels, "
            "expected one for each, and at least one"
        )
    return float((np.abs(predicted - labels) <= within).mean())


def calibration_error(logits: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """The expected calibration error in [0, 1] of logits `[n, C]` for classes `[n]`: the
    `confidence_gap` of their `confidences`.
    """
    return confidence_gap(*confidences(logits, labels), bins)


def confidences(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The largest probability float64 `[n]` that logits `[n, C]` give, and whether it is that of
    the class in `labels`, bool `[n]`. `BadInput` for logits that are not finite.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1] or not np.isfinite(logits).all():
        raise BadInput(
            f"calibration error: logits {list(logits.shape)} for labels {list(labels.shape)}, "
            "expected [n, C] and [n], all finite"
        )
    if len(labels) == 0:
        raise BadInput("calibration error: there are no samples")
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True).astype(np.float64)
    confidence = 1 / np.exp(shifted).sum(1)  # of the largest, whose shifted logit is 0
    return confidence, logits.argmax(1) == labels


def confidence_gap(confidence: np.ndarray, right: np.ndarray, bins: int = 15) -> float:
    """Mean |share right − mean confidence| over equal bins of the confidence float `[n]`, weighted
    by their samples (Guo et al., 2017, arXiv 1706.04599, eq. 3).
    """
    place = np.minimum((confidence * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(place, weights=right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(right))


# Trains a fresh network on pixels and labels; what it returns predicts the labels of pixels.
Learner = Callable[[np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]]


def learned_predictions(
    learn: Learner, pixels: np.ndarray, labels: np.ndarray, real_pixels: np.ndarray
) -> np.ndarray:
    """The labels `[m]` that a network trained on generated uint8 pixels `[n, c, h, w]` and labels
    `[n]` alone gives to real validation ones `[m, c, h, w]`.

    Their `agreement` with the true labels is the classification accuracy score (Ravuri & Vinyals,
    2019, arXiv 1905.10887); for continuous labels their `label_score` is the like. `BadInput` for
    unequal numbers or a learner that does not answer with a label an image.
    """
    if len(pixels) != len(labels) or len(pixels) == 0 or len(real_pixels) == 0:
        raise BadInput(
            f"classification accuracy score: {len(pixels):,} images, {len(labels):,} labels and "
            f"{len(real_pixels):,} validation images; each image needs a label, and neither set "
            "may be empty"
        )
    predicted = np.asarray(learn(pixels, labels)(real_pixels))
    if predicted.shape != (len(real_pixels),):
        raise BadInput(
            f"classification accuracy score: the learner answered {list(predicted.shape)} for "
            f"{len(real_pixels):,} images, expected one label for each"
        )
    return predicted
