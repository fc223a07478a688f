"""How far apart two sets of images lie, measured on features of a net that selected neither, and
how true generated images are to their labels.
"""

import numpy as np

from cgankd.shardset.errors import BadInput


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """The squared Fréchet distance ≥ 0 of Gaussians fitted to features `[n, d]` and `[m, d]`.

    ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2·(Σ₁Σ₂)^½) (Heusel et al., 2017, eq. 6). It shrinks as samples grow:
    compare only numbers from equal sample sizes. `BadInput` for fewer than 2 samples or features
    that are not finite.
    """
    check_features("Fréchet distance", first, second, least=2)
    mean_gap = first.mean(0, dtype=np.float64) - second.mean(0, dtype=np.float64)
    factor_1, factor_2 = _scatter_root(first), _scatter_root(second)
    # tr (Σ₁Σ₂)^½ is the nuclear norm of Σ₁^½ Σ₂^½: no root of a non-symmetric matrix is needed.
    overlap = np.linalg.svd(factor_1 @ factor_2, compute_uv=False).sum()
    traces = np.sum(factor_1**2) + np.sum(factor_2**2)
    return max(float(mean_gap @ mean_gap + traces - 2 * overlap), 0.0)


def check_features(metric: str, first: np.ndarray, second: np.ndarray, *, least: int) -> None:
    """Raises `BadInput` unless both are finite `[n ≥ least, d]` with the same d."""
    for name, features in (("first", first), ("second", second)):
        if features.ndim != 2 or len(features) < least or not np.isfinite(features).all():
            raise BadInput(
                f"{metric}: the {name} features are {list(features.shape)}, expected "
                f"[n ≥ {least}, d], all finite"
            )
    if first.shape[1] != second.shape[1]:
        raise BadInput(
            f"{metric}: features of {first.shape[1]} and {second.shape[1]} numbers; take "
            "both from one net"
        )


def label_score(predicted: np.ndarray, labels: np.ndarray) -> float:
    """The Label Score of the CcGAN papers: mean |prediction − assigned label|, in their unit."""
    return float(np.abs(predicted - labels).mean())


def _scatter_root(features: np.ndarray) -> np.ndarray:
    """The symmetric root of the covariance matrix of features, float64 `[d, d]`."""
    covariance = np.atleast_2d(np.cov(features.astype(np.float64), rowvar=False))
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
