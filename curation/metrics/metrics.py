"""The metrics of a set of samples, ready to be measured overall and by label."""

from dataclasses import astuple

import numpy as np

from cgankd.curation.metrics.distances import authenticity, kernel_distance, overlap
from cgankd.curation.metrics.fidelity import frechet_distance, label_score
from cgankd.curation.metrics.measured import Metric
from cgankd.curation.metrics.set_size import duplicate_rate, effective_sample_size, vendi_score
from cgankd.curation.metrics.teacher_truth import agreement, confidence_gap, confidences


def feature_metrics(generated: np.ndarray, real: np.ndarray, k: int = 5) -> tuple[Metric, ...]:
    """The metrics of features `[n, d]` against `[m, d]`: `fid`, `kid`, `precision`, `recall`,
    `density`, `coverage`, `authenticity`.

    Authenticity means copies of real images, so it wants training ones for a reference.
    """
    return (
        Metric(("fid",), lambda a, b: [frechet_distance(generated[a], real[b])], least=2),
        Metric(
            ("kid",),
            lambda a, b: [kernel_distance(generated[a], real[b])],
            least=2,
            all_pairs=True,
        ),
        Metric(
            ("precision", "recall", "density", "coverage"),
            lambda a, b: astuple(overlap(generated[a], real[b], k)),
            least=k + 1,
            all_pairs=True,
        ),
        Metric(
            ("authenticity",),
            lambda a, b: [authenticity(generated[a], real[b])],
            least=2,
            all_pairs=True,
        ),
    )


def vendi_metric(features: np.ndarray) -> Metric:
    """`vendi` of features `[n, d]` alone: it falls with the sample, so compare equal sizes."""
    return Metric(("vendi",), lambda a, _: [vendi_score(features[a])], halves=False)


def agreement_metric(
    predicted: np.ndarray, labels: np.ndarray, within: float = 0.0, name: str = "agreement"
) -> Metric:
    """The share of predictions `[n]` that are their label `[n]`: the judge's, the teacher's, or of
    a network that learned from the set (then it is the classification accuracy score).
    """
    return Metric((name,), lambda a, _: [agreement(predicted[a], labels[a], within)])


def label_score_metric(
    predicted: np.ndarray, labels: np.ndarray, name: str = "label_score"
) -> Metric:
    """The mean |prediction − label| of predictions `[n]` for continuous labels `[n]`, in their
    unit.
    """
    return Metric((name,), lambda a, _: [label_score(predicted[a], labels[a])])


def calibration_metric(
    logits: np.ndarray, labels: np.ndarray, name: str = "calibration_error"
) -> Metric:
    """The expected calibration error of logits `[n, C]` for classes `[n]`."""
    confidence, right = confidences(logits, labels)  # once, not for each half-sample
    return Metric((name,), lambda a, _: [confidence_gap(confidence[a], right[a])])


def duplicate_metric(components: np.ndarray) -> Metric:
    """`duplicate_rate` of samples with components int64 `[n]` of near-duplicates; without an
    interval, as it grows with n.
    """
    return Metric(("duplicate_rate",), lambda a, _: [duplicate_rate(components[a])], halves=False)


def effective_sample_metric(ratios: np.ndarray) -> Metric:
    """`effective_sample`: the effective size by density ratios `[n]` as a share in [0, 1] of n."""
    return Metric(("effective_sample",), lambda a, _: [effective_sample_size(ratios[a]) / len(a)])
