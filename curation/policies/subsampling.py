"""Which samples a density ratio lets pass: rejection as published, or with a stated acceptance."""

from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Float
from pydantic import Field

from cgankd.curation.policies.rule import Decision, Samples, Settings, Source


class Rejection(Settings):
    """Accepts a sample with probability r/M, where r is its density ratio and M the largest ratio
    of its label (cDR-RS, arXiv 2103.11166).
    """

    kind: Literal["rejection"] = "rejection"
    reads: ClassVar[frozenset[Source]] = frozenset({"ratio"})

    def decide(self, samples: Samples, kept: np.ndarray) -> Decision:
        """What passes; fitted is M for each group."""
        ratio, passes = samples.scores.ratio, np.ones(len(kept), bool)
        fit = samples.in_first_round & samples.scores.scored
        fitted = {}
        for group, rows in samples.groups.items():
            bound = running_bound(ratio[rows[fit[rows]]], ratio[rows], samples.in_first_round[rows])
            probability = np.divide(ratio[rows], bound, out=np.zeros(len(rows)), where=bound > 0)
            fitted[str(group)] = float(bound.max(initial=0.0))
            passes[rows] = samples.uniforms[rows] <= probability
        return Decision(passes, "ratio", {"M": fitted})


class BudgetedRejection(Settings):
    """Accepts a sample with probability min(1, c·r), where r is its density ratio and c is solved
    for each label so that the mean acceptance is `accept` (arXiv 2311.00460).
    """

    kind: Literal["budget"] = "budget"
    reads: ClassVar[frozenset[Source]] = frozenset({"ratio"})
    accept: float = Field(0.5, gt=0, le=1, description="mean acceptance")

    def decide(self, samples: Samples, kept: np.ndarray) -> Decision:
        """What passes; fitted is c for each group, null where every positive ratio passes."""
        ratio, passes = samples.scores.ratio, np.ones(len(kept), bool)
        fit = samples.in_first_round & samples.scores.scored
        fitted = {}
        for group, rows in samples.groups.items():
            factor = acceptance_factor(ratio[rows[fit[rows]]], self.accept)
            # 0 · inf where a ratio is 0 and every positive one is accepted
            with np.errstate(invalid="ignore"):
                product = np.nan_to_num(factor * ratio[rows], nan=0.0, posinf=1.0)
            fitted[str(group)] = factor if np.isfinite(factor) else None
            passes[rows] = samples.uniforms[rows] <= np.minimum(1.0, product)
        return Decision(passes, "ratio", {"c": fitted})


def running_bound(
    first: Float[np.ndarray, " m"],
    ratios: Float[np.ndarray, " n"],
    is_first: Bool[np.ndarray, " n"],
) -> Float[np.ndarray, " n"]:
    """M for each sample in key order, float `[n]`: it starts as the largest ratio of the first
    round and grows with what comes after it, revoking nothing (cDR-RS, arXiv 2103.11166).
    """
    start = first.max(initial=0.0)
    later = np.where(is_first, 0.0, np.nan_to_num(ratios))
    return np.maximum(start, np.maximum.accumulate(later))


def acceptance_factor(ratios: Float[np.ndarray, " n"], accept: float) -> float:
    """The c with mean(min(1, c·r)) = `accept`: optimal budgeted rejection (arXiv 2311.00460).

    Infinite where fewer than that share of ratios are positive: then every positive one is
    accepted.

    >>> acceptance_factor(np.array([1.0, 1.0, 2.0, 4.0]), accept=0.5)
    0.25
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
