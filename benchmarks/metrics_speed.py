"""FID and Vendi score against the libraries' way: `python -m benchmarks.metrics_speed`.

torch-fidelity 0.4.0 takes the eigenvalues of the product of two covariance matrices of `np.cov`,
vendi-score 0.0.3 those of scikit-learn's normalised rows; so does the other side here, as the
first of the two needs torchvision. Both sides get the same float32 features, alternate in one
process on one thread, and the least processor time of each counts.
"""

from functools import partial

import numpy as np
from scipy.linalg import eigvalsh
from sklearn.preprocessing import normalize
from threadpoolctl import threadpool_limits

from benchmarks.processor_time import least
from cgankd.curation.metrics.fidelity import frechet_distance
from cgankd.curation.metrics.metrics import vendi_score

SHAPES = ((5_000, 64), (2_000, 512), (10_000, 512))  # samples a side, numbers each
ROUNDS = 5


def features_of(samples: int, width: int, seed: int) -> np.ndarray:
    """Correlated normal features float32 `[samples, width]` whose variances span four decades."""
    random = np.random.default_rng(seed)
    mix = np.random.default_rng(0).normal(size=(width, width)) / width**0.5
    mix *= np.logspace(0, -2, width)
    return (random.normal(1 + seed / 100, size=(samples, width)) @ mix).astype(np.float32)


def fid(first: np.ndarray, second: np.ndarray) -> float:
    """The FID as torch-fidelity computes it."""
    means, covariances = zip(
        *((side.mean(0), np.cov(side, rowvar=False)) for side in (first, second)), strict=True
    )
    gap = means[0] - means[1]
    eigenvalues = np.linalg.eigvals(covariances[0].dot(covariances[1]))
    overlap = np.sqrt(eigenvalues.astype(np.complex128)).real.sum()
    return float(gap.dot(gap) + sum(map(np.trace, covariances)) - 2 * overlap)


def vendi(features: np.ndarray) -> float:
    """The Vendi score as vendi-score's `score_dual` computes it."""
    rows = normalize(features, axis=1)
    weights = eigvalsh(rows.T @ rows / len(rows))
    weights = weights[weights > 0]
    return float(np.exp(-(weights * np.log(weights)).sum()))


def main() -> None:
    """Prints both values, both times and their ratio for each metric and shape."""
    ratios: list[tuple[str, float]] = []
    with threadpool_limits(1):
        for samples, width in SHAPES:
            first, second = features_of(samples, width, 1), features_of(samples, width, 2)
            for name, ours, library in (
                ("FID", partial(frechet_distance, first, second), partial(fid, first, second)),
                ("Vendi", partial(vendi_score, first), partial(vendi, first)),
            ):
                (value, seconds), (expected, theirs) = least(ROUNDS, ours, library)
                what = f"{name} of {samples:,} × {width}"
                print(f"{what}: {value:.6g} in {1e3 * seconds:.1f} ms, the library says", end=" ")
                print(f"{expected:.6g} in {1e3 * theirs:.1f} ms")
                ratios.append((what, seconds / theirs))
    for what, ratio in ratios:
        print(f"ratio {what:24} {ratio:5.2f}  (demanded: at most 1.00)")


if __name__ == "__main__":
    main()
