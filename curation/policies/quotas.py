"""Which samples a quota keeps of each group: the lowest keys, or the most diverse."""

from collections.abc import Mapping

import numpy as np

from cgankd.curation.neighbours.find import Features
from cgankd.curation.policies.coverage import most_diverse
from cgankd.curation.policies.policy import Policy
from cgankd.shardset.errors import BadInput


def beyond_quota(
    groups: Mapping[int, np.ndarray],
    kept: np.ndarray,
    policy: Policy,
    in_first_round: np.ndarray,
    features: Features | None,
    exempt: np.ndarray,
) -> tuple[np.ndarray, dict[int, int]]:
    """Bool `[n]`: which of the samples `kept` so far, bool `[n]`, are beyond the quota of their
    group; and what is missing to it, for each group that does not meet it.

    By assigned label, also where labels are replaced: all arms then have the same number. The most
    diverse are chosen among the first round's, and where those are too few the lowest keys after
    them follow, so that a top-up revokes none. What is `exempt`, bool `[n]`, counts but is never
    beyond: a reviewer accepted it. `BadInput` for diversity without the features of
    every sample.
    """
    beyond = np.zeros(len(kept), bool)
    shortfall: dict[int, int] = {}
    if policy.quota is None:
        return beyond, shortfall
    if policy.diversity != "none" and (features is None or len(features) != len(kept)):
        raise BadInput(
            f"policy.diversity {policy.diversity} needs the features of all {len(kept)} samples, "
            f"got {'none' if features is None else len(features)}; score the pool with features, "
            "or take policy.diversity none"
        )
    for group, rows in groups.items():
        own = rows[kept[rows]]
        free = own[~exempt[own]]
        room = max(policy.quota - (len(own) - len(free)), 0)
        first = free[in_first_round[free]]
        stay = free[:room]
        if policy.diversity != "none" and features is not None and len(first) > room > 0:
            chosen = most_diverse(features[first], room, policy.diversity, f"label group {group}")
            stay = first[chosen]
        beyond[free] = True
        beyond[stay] = False
        if len(own) < policy.quota:
            shortfall[group] = policy.quota - len(own)
    return beyond, shortfall
