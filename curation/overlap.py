"""How two sets of features overlap: fidelity and diversity apart, by balls round the samples."""

from dataclasses import dataclass

import numpy as np

from curation.distances import squared_distances, squared_radii
from curation.fidelity import check_features
from shardset.errors import BadInput


@dataclass(frozen=True)
class Overlap:
    """Shares in [0, 1], but for `density`, which is 1 where the sets agree and may be above.

    precision: generated samples in the ball of a real one. recall: real samples in the ball of a
    generated one. density: balls of real samples round a generated one, over k. coverage: real
    samples whose ball has a generated one.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def overlap(generated: np.ndarray, real: np.ndarray, k: int = 5) -> Overlap:
    """The overlap of features `[n, d]` and `[m, d]`; balls reach to a sample's k-th nearest other.

    Precision and recall by Kynkäänniemi et al. (2019, arXiv 1904.06991), density and coverage by
    Naeem et al. (2020, arXiv 2002.09797). `BadInput` for k samples or fewer, features
    that are not finite, or real features that are all equal.
    """
    check_features("precision and recall", generated, real, least=k + 1)
    real_radii, radii = squared_radii(real, k), squared_radii(generated, k)
    if not real_radii.any():
        raise BadInput(
            f"precision and recall: each of {len(real):,} real samples has {k} equal ones, so no "
            "ball has a size; look at the feature net and for copies among the real images"
        )
    balls = 0
    within = np.empty(len(generated), bool)
    recalled, covered = np.zeros(len(real), bool), np.zeros(len(real), bool)
    for rows, found in squared_distances(generated, real):
        inside = found < real_radii
        balls += int(inside.sum())
        within[rows] = inside.any(1)
        covered |= inside.any(0)
        recalled |= (found < radii[rows, None]).any(0)
    return Overlap(
        precision=float(within.mean()),
        recall=float(recalled.mean()),
        density=balls / k / len(generated),
        coverage=float(covered.mean()),
    )
