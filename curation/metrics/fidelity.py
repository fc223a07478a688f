"""How far apart two sets of images lie, measured on features of a net that selected neither, and
how true generated images are to their labels; Euclidean distances a block at a time.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from cgankd.shardset.errors import BadInput

BLOCK = 4_000_000  # distances held at once: 32 MB


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """The squared Fréchet distance ≥ 0 of Gaussians fitted to features `[n, d]` and `[m, d]`.

    ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2·(Σ₁Σ₂)^½) (Heusel et al., 2017, eq. 6). It shrinks as samples grow:
    compare only numbers from equal sample sizes. `BadInput` for fewer than 2 samples or features
    that are not finite.

    >>> features = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> round(frechet_distance(features, features + 2), 6)
    8.0
    """
    check_features("Fréchet distance", first, second, least=2)
    (mean_1, covariance_1), (mean_2, covariance_2) = _moments(first), _moments(second)
    mean_gap = mean_1 - mean_2
    # With Σ₁ = RRᵀ the eigenvalues of Σ₁Σ₂, whose roots make the trace, are those of the symmetric
    # RᵀΣ₂R: they cost a fifth of those of the product, and nothing of its root is needed.
    root = _root(covariance_1)
    eigenvalues = np.linalg.eigvalsh(root.T @ covariance_2 @ root)
    overlap = np.sqrt(eigenvalues.clip(min=0)).sum()
    traces = np.trace(covariance_1) + np.trace(covariance_2)
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
    """The Label Score of the CcGAN papers: mean |prediction − assigned label|, in their unit.

    >>> label_score(np.array([10.0, 20.0]), np.array([12.0, 20.0]))
    1.0
    """
    return float(np.abs(predicted - labels).mean())


def _moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean `[d]` and the covariance matrix `[d, d]` of features `[n, d]`, float64."""
    centred = features.astype(np.float64)
    mean = centred.mean(0)
    centred -= mean
    # NumPy sees that a product with itself is symmetric, and does half the work of np.cov.
    return mean, centred.T @ centred / (len(centred) - 1)


def _root(covariance: np.ndarray) -> np.ndarray:
    """An R `[d, d]` with R Rᵀ = the covariance matrix."""
    try:
        return np.linalg.cholesky(covariance)
    except np.linalg.LinAlgError:  # singular, as of fewer samples than features
        values, vectors = np.linalg.eigh(covariance)
        return vectors * np.sqrt(values.clip(min=0))


def squared_distances(
    first: np.ndarray, second: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows int64 `[b]` of `first` `[n, d]` with their squared distances float64 `[b, m]` to all of
    `second` `[m, d]`, until every row was given; memory does not grow with n.
    """
    # About the common mean, |x|² + |y|² − 2xy loses the fewest digits; what is then within rounding
    # of 0 is a copy, and must not count as a distance.
    centre = second.mean(0, dtype=np.float64)
    one, other = first - centre, second - centre
    one_squares, other_squares = np.sum(one**2, 1), np.sum(other**2, 1)
    rounding = 1e-13 * max(one_squares.max(), other_squares.max())
    step = max(1, BLOCK // len(other))
    for start in range(0, len(one), step):
        rows = np.arange(start, min(start + step, len(one)))
        distances = one[rows] @ other.T
        distances *= -2
        distances += one_squares[rows, None]
        distances += other_squares
        distances[distances < rounding] = 0.0
        yield rows, distances


def squared_radii(features: np.ndarray, k: int) -> np.ndarray:
    """The squared distance float64 `[n]` of every row of `[n > k, d]` to its k-th nearest other."""
    radii = np.empty(len(features))
    for rows, distances in squared_distances(features, features):
        distances[np.arange(len(rows)), rows] = np.inf
        radii[rows] = np.partition(distances, k - 1, axis=1)[:, k - 1]
    return radii


def kernel_distance(generated: np.ndarray, real: np.ndarray) -> float:
    """The unbiased squared MMD of features `[n, d]` and `[m, d]`: about 0, or below, for like ones.

    Kernel (x·y/d + 1)³ over all pairs (Bińkowski et al., 2018, arXiv 1801.01401), where the
    usual tools average over random subsets. `BadInput` for fewer than 2 samples or features that
    are not finite.
    """
    check_features("kernel distance", generated, real, least=2)
    generated, real = generated.astype(np.float64), real.astype(np.float64)
    between = _sum(generated, real) / len(generated) / len(real)
    return _mean_within(generated) + _mean_within(real) - 2 * between


def _mean_within(features: np.ndarray) -> float:
    """The kernel's mean over pairs of different samples."""
    count, width = features.shape
    itself = ((np.sum(features**2, 1) / width + 1) ** 3).sum()
    return float(_sum(features, features) - itself) / (count * (count - 1))


def _sum(first: np.ndarray, second: np.ndarray) -> float:
    """The kernel's sum over all pairs, a block of rows at a time."""
    total, step = 0.0, max(1, BLOCK // len(second))
    for start in range(0, len(first), step):
        kernel = first[start : start + step] @ second.T
        kernel /= first.shape[1]
        kernel += 1
        total += float(np.einsum("ij,ij,ij->", kernel, kernel, kernel))
    return total


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
    for rows, distances in squared_distances(generated, real):
        inside = distances < real_radii
        balls += int(inside.sum())
        within[rows] = inside.any(1)
        covered |= inside.any(0)
        recalled |= (distances < radii[rows, None]).any(0)
    return Overlap(
        precision=float(within.mean()),
        recall=float(recalled.mean()),
        density=balls / k / len(generated),
        coverage=float(covered.mean()),
    )


def authenticity(generated: np.ndarray, real: np.ndarray) -> float:
    """The share in [0, 1] of generated `[n, d]` that lie farther from their nearest real one of
    `[m, d]` than this lies from its own nearest other (Alaa et al., 2022, arXiv 2102.08921).

    `real` are the generator's training images: about ½ for fresh samples of their distribution, 0
    for copies. `BadInput` for fewer than 2 samples or features that are not finite.
    """
    check_features("authenticity", generated, real, least=2)
    real_radii = squared_radii(real, 1)
    authentic = 0
    for _, distances in squared_distances(generated, real):
        authentic += int((distances.min(1) > real_radii[distances.argmin(1)]).sum())
    return authentic / len(generated)
