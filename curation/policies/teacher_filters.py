"""Which samples a teacher lets pass, from its errors or from its labels; pure functions."""

import numpy as np

from cgankd.shardset.errors import BadInput


def error_limits(errors: np.ndarray, rho: float, low: float = 0.0) -> tuple[float, float]:
    """The least and the largest teacher error that pass: the `low`- and the ρ-quantile.

    errors: float `[n]`, ≥ 0, n ≥ 1, those that the limits are fitted on; 0 ≤ low < ρ ≤ 1. With
    `low` 0 nothing is too easy (the filter of cGAN-KD, arXiv 2104.03164); above it the
    trivial samples go with the wrong ones.
    """
    least = float(np.quantile(errors, low)) if low > 0 else 0.0
    return least, float(np.quantile(errors, rho))


def agrees(
    labels: np.ndarray, teacher_labels: np.ndarray, errors: np.ndarray, within: float | None
) -> np.ndarray:
    """Bool `[n]`: where the teacher tells the assigned label.

    Classes (integers) must be equal. Continuous labels agree where the teacher's error, float `[n]`
    in the label's unit, is at most `within`. Raises `BadInput` where `within` does not fit the
    task.
    """
    if np.issubdtype(labels.dtype, np.integer):
        if within is not None:
            raise BadInput(
                "policy.agreement_within is of no use to classes, whose labels agree or differ; "
                "leave it out"
            )
        return labels == teacher_labels
    if within is None:
        raise BadInput(
            "policy.filter agreement needs policy.agreement_within for continuous labels: the "
            "largest difference in the label's unit that counts as agreement"
        )
    return errors <= within
