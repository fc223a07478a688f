"""The metrics of a set of samples, ready to be measured overall and by label: distances, how many
samples it is worth, whether the teacher agrees with its labels.
"""

from collections.abc import Callable
from dataclasses import astuple

import numpy as np

from cgankd.curation.metrics import Metric
from cgankd.curation.metrics.fidelity import (
    authenticity,
    check_features,
    frechet_distance,
    kernel_distance,
    overlap,
)
from cgankd.shardset.errors import BadInput


def feature_metrics(generated: np.ndarray, real: np.ndarray, k: int = 5) -> tuple[Metric, ...]:
    """The metrics of features `[n, d]` against `[m, d]`: `fid`, `kid`, `precision`, `recall`,
    `density`, `coverage`, `authenticity`.

    Authenticity means copies of real images, so it wants training ones for a reference.
    """

    def compared(
        name: str, distance: Callable[[np.ndarray, np.ndarray], float], all_pairs: bool = True
    ) -> Metric:
        return Metric((name,), lambda a, b: [distance(generated[a], real[b])], 2, all_pairs)

    return (
        compared("fid", frechet_distance, all_pairs=False),
        compared("kid", kernel_distance),
        Metric(
            ("precision", "recall", "density", "coverage"),
            lambda a, b: astuple(overlap(generated[a], real[b], k)),
            least=k + 1,
            all_pairs=True,
        ),
        compared("authenticity", authenticity),
    )


def duplicate_rate(components: np.ndarray) -> float:
    """The share in [0, 1) of samples that could go without losing a picture; near-duplicates have
    one of the `components` int64 `[n]` in common. `BadInput` for no samples.

    >>> duplicate_rate(np.array([0, 0, 1, 2]))
    0.25
    """
    if len(components) == 0:
        raise BadInput("duplicate rate: there are no samples")
    return 1 - len(np.unique(components)) / len(components)


def effective_sample_size(ratios: np.ndarray) -> float:
    """(Σr)²/Σr² of density ratios `[n]` ≥ 0: from 1 (one dominates) to n (all equal), 0 where all
    are 0 (Kish, 1965). `BadInput` for ratios that are not finite or below 0.

    >>> effective_sample_size(np.array([1.0, 1.0, 0.0, 0.0]))
    2.0
    """
    if not np.isfinite(ratios).all() or (ratios < 0).any():
        raise BadInput(
            "effective sample size: ratios must be finite and ≥ 0; leave out samples that failed"
        )
    largest = ratios.max(initial=0.0)
    if largest == 0:
        return 0.0
    weights = ratios / largest  # squares of huge or tiny ratios would leave the floats
    return float(weights.sum() ** 2 / (weights**2).sum())


def effective_sample_share(ratios: np.ndarray) -> float:
    """The `effective_sample_size` of ratios `[n]` as a share in [0, 1] of n."""
    return effective_sample_size(ratios) / len(ratios)


def vendi_score(features: np.ndarray) -> float:
    """The effective number of different samples among `[n, d]`, from 1 (all alike) to min(n, d).

    The exponential of the entropy of the eigenvalues of XᵀX/n, rows of X at unit length: the
    covariance form, which costs n·d² where the kernel form costs n³ (Friedman & Dieng, 2023, arXiv
    2210.02410). In the features' precision: float32 agrees with float64 to 3 · 10⁻⁵. `BadInput` for
    features that are not finite or all 0.
    """
    from scipy.linalg import eigvalsh  # NumPy's takes float32 for float64

    check_features("Vendi score", features, features[:1], least=1)
    rows = np.asarray(features, np.result_type(features, np.float32))
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
    if not lengths.all():
        raise BadInput(
            f"Vendi score: the features of {int((lengths == 0).sum()):,} of {len(rows):,} samples "
            "are all 0 and point nowhere; take another feature net"
        )
    rows = rows / lengths
    weights = eigvalsh(rows.T @ rows / len(rows))
    weights = weights[weights > 0].astype(np.float64)
    return float(np.exp(-(weights * np.log(weights)).sum()))


def agreement(predicted: np.ndarray, labels: np.ndarray, within: float = 0.0) -> float:
    """The share in [0, 1] of predictions `[n]` that are their label `[n]`, or no farther than
    `within` from it in its unit. `BadInput` for none, or for unequal numbers.

    >>> agreement(np.array([0, 1, 2, 2]), np.array([0, 1, 2, 1]))
    0.75
    """
    if predicted.shape != labels.shape or labels.size == 0:
        raise BadInput(
            f"agreement: {list(predicted.shape)} predictions for {list(labels.shape)} labels, "
            "expected one for each, and at least one"
        )
    return float((np.abs(predicted - labels) <= within).mean())


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
    """The expected calibration error in [0, 1] of `confidences`, float and bool `[n]`.

    Mean |share right − mean confidence| over equal bins of the confidence, weighted by their
    samples (Guo et al., 2017, arXiv 1706.04599, eq. 3).
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
