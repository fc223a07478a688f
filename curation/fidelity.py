"""How far apart two sets of images lie, measured on features of a net that selected neither."""

from dataclasses import dataclass

import numpy as np

from shardset.errors import BadInput


@dataclass(frozen=True)
class LabelDistance:
    """The Fréchet distance of one label's samples, with the sample sizes it rests on."""

    label: int
    distance: float
    first: int
    second: int


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """The squared Fréchet distance ≥ 0 of Gaussians fitted to features `[n, d]` and `[m, d]`.

    ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2·(Σ₁Σ₂)^½) (Heusel et al., 2017, eq. 6). It shrinks as samples grow:
    compare only numbers from equal sample sizes. `BadInput` for fewer than 2 samples or features
    that are not finite.
    """
    for name, features in (("first", first), ("second", second)):
        if features.ndim != 2 or len(features) < 2 or not np.isfinite(features).all():
            raise BadInput(
                f"Fréchet distance: the {name} features are {list(features.shape)}, expected "
                "[n ≥ 2, d], all finite"
            )
    if first.shape[1] != second.shape[1]:
        raise BadInput(
            f"Fréchet distance: features of {first.shape[1]} and {second.shape[1]} numbers; take "
            "both from one net"
        )
    mean_gap = first.mean(0, dtype=np.float64) - second.mean(0, dtype=np.float64)
    factor_1, factor_2 = _scatter_root(first), _scatter_root(second)
    # tr (Σ₁Σ₂)^½ is the nuclear norm of Σ₁^½ Σ₂^½: no root of a non-symmetric matrix is needed.
    overlap = np.linalg.svd(factor_1 @ factor_2, compute_uv=False).sum()
    traces = np.sum(factor_1**2) + np.sum(factor_2**2)
    return max(float(mean_gap @ mean_gap + traces - 2 * overlap), 0.0)


def frechet_by_label(
    first: np.ndarray, first_labels: np.ndarray, second: np.ndarray, second_labels: np.ndarray
) -> tuple[LabelDistance, ...]:
    """The Fréchet distance within each label that both sets have at least 2 samples of."""
    rows = []
    for label in np.intersect1d(first_labels, second_labels).tolist():
        one, other = first[first_labels == label], second[second_labels == label]
        if len(one) >= 2 and len(other) >= 2:
            rows.append(LabelDistance(label, frechet_distance(one, other), len(one), len(other)))
    return tuple(rows)


def _scatter_root(features: np.ndarray) -> np.ndarray:
    """The symmetric root of the covariance matrix of features, float64 `[d, d]`."""
    covariance = np.atleast_2d(np.cov(features.astype(np.float64), rowvar=False))
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
