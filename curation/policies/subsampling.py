"""Which samples a density ratio lets pass: rejection as published, or with a stated acceptance."""

from collections.abc import Mapping

import numpy as np

from cgankd.curation.policies.policy import Policy

Fitted = dict[str, dict[str, float | None]]


def accepted(
    ratio: np.ndarray,
    uniforms: np.ndarray,
    policy: Policy,
    fit: np.ndarray,
    in_first_round: np.ndarray,
    groups: Mapping[int, np.ndarray],
) -> tuple[np.ndarray, Fitted]:
    """Bool `[n]` of ratios `[n]`, and the M or c of each group of rows that it was decided by.

    `uniforms` in (0, 1) `[n]` belong to the samples; `fit` bool `[n]` are those of the first round
    that M and c are fitted on.
    """
    passes = np.ones(len(ratio), bool)
    if policy.subsample == "none":
        return passes, {}
    fitted: dict[str, float | None] = {}
    for group, rows in groups.items():
        first = ratio[rows[fit[rows]]]
        if policy.subsample == "rejection":
            bound = running_bound(first, ratio[rows], in_first_round[rows])
            probability = np.divide(ratio[rows], bound, out=np.zeros(len(rows)), where=bound > 0)
            fitted[str(group)] = float(bound.max(initial=0.0))
        else:
            factor = acceptance_factor(first, policy.accept)
            # 0 · inf where a ratio is 0 and every positive one is accepted
            with np.errstate(invalid="ignore"):
                product = np.nan_to_num(factor * ratio[rows], nan=0.0, posinf=1.0)
            probability = np.minimum(1.0, product)
            fitted[str(group)] = factor if np.isfinite(factor) else None
        passes[rows] = uniforms[rows] <= probability
    return passes, {"M" if policy.subsample == "rejection" else "c": fitted}


def running_bound(first: np.ndarray, ratios: np.ndarray, is_first: np.ndarray) -> np.ndarray:
    """M for each sample in key order, float `[n]`: it starts as the largest ratio of the first
    round and grows with what comes after it, revoking nothing (cDR-RS, arXiv 2103.11166).
    """
    start = first.max(initial=0.0)
    later = np.where(is_first, 0.0, np.nan_to_num(ratios))
    return np.maximum(start, np.maximum.accumulate(later))


def acceptance_factor(ratios: np.ndarray, accept: float) -> float:
    """The c with mean(min(1, c·r)) = `accept`: optimal budgeted rejection (arXiv 2311.00460).

    Infinite where fewer than that share of ratios are positive: then every positive one is
    accepted.
    """
    ratios = np.sort(ratios)[::-1]
    count = len(ratios)
    if count == 0 or np.count_nonzero(ratios) <= accept * count:
        return float("inf")
    # With the k largest at 1, k + c · (sum of the others) = accept · n; c·r is then at most 1 for
    # the others and at least 1 for the k: the first k that fits is the solution.
    positive = ratios[ratios > 0]
    rest = np.cumsum(positive[::-1])[::-1]
    with np.errstate(over="ignore"):  # beside huge ratios tiny ones ask for a c beyond floats
        factors = (accept * count - np.arange(len(positive))) / rest
        fits = (factors > 0) & (factors * positive <= 1 + 1e-12)
    return float(factors[np.argmax(fits)])
