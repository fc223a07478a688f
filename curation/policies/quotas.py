"""Which samples a quota keeps of each group: the lowest keys, or the most diverse.

By assigned label, also where labels are replaced: all arms then have the same number. The most
diverse are chosen among the first round's, and where those are too few the lowest keys after them
follow, so that a top-up revokes none.

To choose them, features become whole numbers that stand for vectors of length 1. Their products and
sums are then exact in float64, in any order of summation, so that the same features give the same
choice on every machine, with any number of threads, and a tie is a tie: the lowest key has it.
"""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from cgankd.curation.policies.rule import Decision, Samples, Settings, Source
from cgankd.shardset.errors import BadInput

SIZE = "samples kept of each assigned label, or part of the range: evens the labels out"
FEATURES: frozenset[Source] = frozenset({"features"})
UNIT = 2**25  # stands for length 1: products of two vectors stay below 2⁵¹, exact below 2⁵³
FINEST = 2**20  # parts of the largest entry; float16 has 2¹¹. Squares of 8,192 of them are exact
BLOCK = 512  # rows looked at together for the next farthest ones
CHUNK = 1024  # rows assigned to centres together: bounds the memory
STEPS = 10  # of k-means; later ones move few samples
TAKEN = np.inf


class LowestKeys(Settings):
    """Keeps the lowest keys of each label."""

    kind: Literal["lowest-keys"] = "lowest-keys"
    reads: ClassVar[frozenset[Source]] = frozenset()
    size: int = Field(gt=0, description=SIZE)

    def decide(self, samples: Samples, kept: np.ndarray) -> Decision:
        """What is within the quota."""
        return _within_quota(samples, kept, self.size, None)


class Farthest(Settings):
    """Keeps of each label, again and again, the sample least like those kept (Gonzalez 1985)."""

    kind: Literal["farthest"] = "farthest"
    reads: ClassVar[frozenset[Source]] = FEATURES
    size: int = Field(gt=0, description=SIZE)

    def decide(self, samples: Samples, kept: np.ndarray) -> Decision:
        """What is within the quota; `BadInput` without the features of every sample."""
        return _within_quota(samples, kept, self.size, "farthest")


class NearestToCentres(Settings):
    """Keeps of each label the samples nearest to the centres of `size` clusters (spherical
    k-means, Dhillon & Modha 2001).
    """

    kind: Literal["kmeans"] = "kmeans"
    reads: ClassVar[frozenset[Source]] = FEATURES
    size: int = Field(gt=0, description=SIZE)

    def decide(self, samples: Samples, kept: np.ndarray) -> Decision:
        """What is within the quota; `BadInput` without the features of every sample."""
        return _within_quota(samples, kept, self.size, "kmeans")


def _within_quota(
    samples: Samples,
    kept: np.ndarray,
    size: int,
    diversity: Literal["farthest", "kmeans"] | None,
) -> Decision:
    """What of the kept is within the quota of its group, and what each group lacks.

    What is exempt counts, but is never beyond.
    """
    features = samples.features
    if diversity is not None and (features is None or len(features) != len(kept)):
        raise BadInput(
            f"policy.quota {diversity} needs the features of all {len(kept)} samples, "
            f"got {'none' if features is None else len(features)}; score the pool with features, "
            "or take policy.quota.kind lowest-keys"
        )
    passes, shortfall = np.ones(len(kept), bool), {}
    for group, rows in samples.groups.items():
        left = rows[kept[rows]]
        free = left[~samples.exempt[left]]
        room = max(size - (len(left) - len(free)), 0)
        first = free[samples.in_first_round[free]]
        stay = free[:room]
        if diversity is not None and features is not None and len(first) > room > 0:
            picked = most_diverse(features[first], room, diversity, f"label group {group}")
            stay = first[picked]
        passes[free] = False
        passes[stay] = True
        if len(left) < size:
            shortfall[group] = size - len(left)
    return Decision(passes, "quota", shortfall=shortfall)


def most_diverse(
    features: np.ndarray,
    count: int,
    method: Literal["farthest", "kmeans"],
    where: str = "the group",
) -> np.ndarray:
    """The rows int64 `[count]`, ascending, of the samples that cover the others best.

    features: float `[n, d]`, in key order, count ≤ n; compared by cosine similarity. `farthest`:
    the sample most like the mean, then again and again the one least like all that are chosen
    (Gonzalez 1985). `kmeans`: `count` clusters by spherical k-means (Dhillon & Modha 2001), of each
    the sample nearest to its centre. Raises `BadInput`, which names the group by `where`, for NaN
    and infinite features, and where all are equal.

    >>> most_diverse(np.array([[1.0, 0], [1, 0.1], [0, 1], [1, 0.2]]), 2, "farthest").tolist()
    [2, 3]
    """
    wrong = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if wrong.size:
        raise BadInput(
            f"{where}: features of {wrong.size} of {len(features)} samples are not finite, first "
            f"of sample {wrong[0]}; score the pool again, or take policy.quota.kind lowest-keys"
        )
    if count >= len(features):
        return np.arange(len(features))
    if (features == features[0]).all():
        raise BadInput(
            f"{where}: features of all {len(features)} samples are equal, so that no choice is "
            "more diverse than another; look at the samples, or take policy.quota.kind lowest-keys"
        )
    points = _directions(features)
    rows = _farthest(points, count) if method == "farthest" else _central(points, count)
    return np.sort(rows)


def _directions(vectors: np.ndarray) -> np.ndarray:
    """Whole numbers float64 `[n, d]`, each row `UNIT` long but for rounding; zeros stay zeros.

    Every step is exact or correctly rounded, so the result is the same everywhere.
    """
    vectors = vectors.astype(np.float64)
    largest = np.abs(vectors).max(axis=1, keepdims=True)
    vectors /= np.where(largest > 0, largest, 1.0)
    whole = np.rint(vectors * FINEST)
    length = np.sqrt(np.einsum("nd,nd->n", whole, whole))[:, None]
    return np.rint(whole / np.where(length > 0, length, 1.0) * UNIT)


def _farthest(points: np.ndarray, count: int) -> np.ndarray:
    """The rows int64 `[count]` of farthest-first traversal, in the order of choice."""
    middle = _directions(points.sum(axis=0, keepdims=True))[0]
    picked = [int(np.argmax(points @ middle))]
    # The similarity to the most similar of the picks. It only ever grows: as long as a row of the
    # block is less similar than every row outside was at first, it is the least similar of all.
    closest = points @ points[picked[0]]
    closest[picked[0]] = TAKEN
    while len(picked) < count:
        order = np.argsort(closest, kind="stable")
        block = np.sort(order[:BLOCK])
        outside = closest[order[BLOCK]] if len(order) > BLOCK else TAKEN
        inner = points[block] @ points[block].T
        similarity = closest[block]
        new: list[int] = []
        while len(picked) + len(new) < count:
            pick = int(np.argmin(similarity))
            # The first pick of a block is the lowest key of all ties; a later tie with a row
            # outside may not be.
            if new and similarity[pick] >= outside:
                break
            new.append(int(block[pick]))
            similarity = np.maximum(similarity, inner[pick])
            similarity[pick] = TAKEN
        picked += new
        closest = np.maximum(closest, (points @ points[new].T).max(axis=1))
        closest[new] = TAKEN
    return np.array(picked)


def _central(points: np.ndarray, count: int) -> np.ndarray:
    """The rows int64 `[count]` nearest to the centres of as many clusters."""
    centres = points[:count]
    cluster = np.full(len(points), -1)
    for _ in range(STEPS):
        before, (cluster, similarity) = cluster, _nearest_centre(points, centres)
        if np.array_equal(cluster, before):
            break
        filled = np.unique(cluster)  # the centre of an emptied cluster stays where it was
        order = np.argsort(cluster, kind="stable")
        starts = np.searchsorted(cluster[order], filled)
        centres = centres.copy()
        centres[filled] = _directions(np.add.reduceat(points[order], starts, axis=0))
    cluster, similarity = _nearest_centre(points, centres)
    # One of each cluster, then a second of each for those that are empty, and so on.
    order = np.lexsort((-similarity, cluster))
    first = np.searchsorted(cluster[order], cluster[order])
    turn = np.arange(len(order)) - first
    return order[np.argsort(turn, kind="stable")][:count]


def _nearest_centre(points: np.ndarray, centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The most similar centre int64 `[n]`, the first of ties, and that similarity float64 `[n]`."""
    cluster, similarity = np.empty(len(points), np.int64), np.empty(len(points))
    for start in range(0, len(points), CHUNK):
        part = slice(start, start + CHUNK)
        all_of_them = points[part] @ centres.T
        cluster[part] = all_of_them.argmax(axis=1)
        similarity[part] = all_of_them.max(axis=1)
    return cluster, similarity
