"""Which samples a quota keeps of each group: the lowest keys, or the most diverse.

By assigned label, also where labels are replaced: all arms then have the same number. The most
diverse are chosen among the first round's, and where those are too few the lowest keys after them
follow, so that a top-up revokes none.
"""

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from cgankd.curation.policies.coverage import most_diverse
from cgankd.curation.policies.rule import Decision, Samples, Settings, Source
from cgankd.shardset.errors import BadInput

SIZE = "samples kept of each assigned label, or part of the range: evens the labels out"
FEATURES: frozenset[Source] = frozenset({"features"})


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
