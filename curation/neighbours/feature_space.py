"""The space in which images are compared: features whitened by what varies inside labels, as
vectors of small whole numbers, so that every FAISS, on every processor, finds the same products.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from cgankd.shardset.errors import BadInput

# Vectors are this long. Sums of products of whole numbers stay below 2²⁴, where float32 is exact
# whatever the order of the sum: no similarity depends on machine, threads or library.
LENGTH = 4000
ONE = LENGTH**2  # about the product of two equal vectors
ROUNDING = 5e-4  # their similarity is 1 within this
SHRINK = 0.01  # of the mean variance, added to each: the least directions are noise
REALS_PER_COMPONENT = 10  # with fewer, reals look alike in directions fitted to them alone
COMPONENTS = 128  # at most: time and memory grow with them, and features vary in fewer directions


@dataclass(frozen=True)
class FeatureSpace:
    """Features to coordinates, the same for every label but for its centre."""

    directions: np.ndarray  # float64 [d, components]

    @classmethod
    def fitted(cls, features: np.ndarray, groups: np.ndarray) -> Self:
        """The space of real features `[n, d]` in groups int64 `[n]`: their pooled covariance inside
        groups becomes the identity. `BadInput` where no two features of a group differ.
        """
        check_features(features, "the real images' features")
        inside = features.astype(np.float64)
        values = np.unique(groups)
        for group in values:
            inside[groups == group] -= inside[groups == group].mean(0)
        freedom = len(features) - len(values)
        variance, vectors = np.linalg.eigh(inside.T @ inside / max(freedom, 1))
        if not variance[-1] > 1e-12:
            raise BadInput(
                f"neighbours: the features of all {len(features):,} real images of a label are "
                "equal; the feature net has collapsed, fit the ratio anew"
            )
        keep = min(len(variance), COMPONENTS, max(freedom // REALS_PER_COMPONENT, 2))
        scale = np.sqrt(variance[-keep:] + SHRINK * variance.mean())
        return cls(vectors[:, -keep:] / scale)

    def coordinates(self, features: np.ndarray, centre: np.ndarray) -> np.ndarray:
        """Coordinates float64 `[n, components]` of features `[n, d]` about a centre `[d]`."""
        return (features.astype(np.float64) - centre) @ self.directions


def as_vectors(coordinates: np.ndarray) -> np.ndarray:
    """Float32 `[n, d]` of whole numbers, about `LENGTH` long, in the directions of coordinates."""
    length = np.linalg.norm(coordinates, axis=1, keepdims=True)
    return np.rint(coordinates * (LENGTH / np.maximum(length, 1e-12))).astype(np.float32)


def similarities(products: np.ndarray) -> np.ndarray:
    """Cosines float32 in [−1, 1] of products of vectors; of equal ones at least 1 − `ROUNDING`."""
    return np.clip(products.astype(np.float64) / ONE, -1.0, 1.0).astype(np.float32)


def check_features(features: np.ndarray, what: str) -> None:
    """Raises `BadInput` unless every feature `[n, d]` is finite."""
    wrong = np.flatnonzero(~np.isfinite(features).all(1))
    if wrong.size:
        raise BadInput(
            f"neighbours: {what} hold NaN or infinite numbers in {wrong.size:,} of "
            f"{len(features):,} rows, first in row {wrong[0]}; score again"
        )


TAIL = 0.1  # the share of the values from which the tail is read
LEAST = 5  # values, however few there are
TINY = 1e-4  # copies among the values, at 0, would make any tail endless


def lower_quantile(values: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """The values float64 that positive `values` `[n]` fall below with these probabilities.

    Inside the sample it is the quantile. Beyond the lowest tenth the tail is taken to fall as a
    power, its exponent fitted to that tenth (Hill, Annals of Statistics 1975): the nearest of
    many neighbours comes closer than the nearest of few ever did. `BadInput` without values.
    """
    if not len(values):
        raise BadInput(
            "neighbours: no label has two real training images, so nothing says how alike "
            "different images are; raise the label budget"
        )
    probability = np.asarray(probability, np.float64)
    ordered = np.sort(np.maximum(values, TINY))
    count = min(len(ordered), max(int(np.ceil(TAIL * len(ordered))), LEAST))
    share, edge = count / len(ordered), ordered[count - 1]
    inverse = np.log(edge / ordered[:count]).mean()
    beyond = edge * (np.minimum(probability, share) / share) ** inverse
    inside = np.quantile(ordered, np.clip(probability, 0, 1))
    return np.where(probability < share, beyond, inside)


def upper_quantile(values: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """The values that positive `values` `[n]` exceed with these probabilities."""
    return 1 / lower_quantile(1 / np.maximum(values, TINY), probability)
