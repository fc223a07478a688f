"""Which samples a quota keeps of each group: the lowest keys, or the most diverse."""

from collections.abc import Mapping

import numpy as np

from curation.coverage import most_diverse
from curation.neighbours import Features
from curation.policy import Policy
from shardset.errors import BadInput


def beyond_quota(
    groups: Mapping[int, np.ndarray],
    kept: np.ndarray,
    policy: Policy,
    in_first_round: np.ndarray,
    features: Features | None,
) -> tuple[np.ndarray, dict[int, int]]:
    """Bool `[n]`: which of the samples `kept` so far, bool `[n]`, are beyond the quota of their
    group; and what is missing to it, for each group that does not meet it.

    By assigned label, also where labels are replaced: all arms then have the same number. The most
    diverse are chosen among the first round's, and where those are too few the lowest keys after
    them follow, so that a top-up revokes none. `BadInput` for diversity without the features of
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
        first = own[in_first_round[own]]
        stay = own[: policy.quota]
        if policy.diversity != "none" and features is not None and len(first) > policy.quota:
            chosen = most_diverse(
                features[first], policy.quota, policy.diversity, f"label group {group}"
            )
            stay = first[chosen]
        beyond[own] = True
        beyond[stay] = False
        if len(own) < policy.quota:
            shortfall[group] = policy.quota - len(own)
    return beyond, shortfall
