"""How long a density ratio may learn and how strongly its answer counts: held-out loss among
calibrated candidates. Loss alone was seen to fall while calibration got worse.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cgankd.curation.density_ratio.diagnostics import (
    CONSTANT_LOSS,
    RatioLimits,
    fit_terms,
    real_terms,
)


@dataclass(frozen=True)
class HeldOut:
    """Which samples no ratio net was fitted on, or, for real ones, which net left them out."""

    generated_groups: np.ndarray  # int64 [m]
    real_groups: np.ndarray  # int64 [n]
    member: np.ndarray  # int64 [n]
    groups: int

    @property
    def weights(self) -> np.ndarray:
        """Float `[m]`, sum 1: generated samples weighted to the groups' shares of the reals."""
        reals = np.bincount(self.real_groups, minlength=self.groups) / len(self.real_groups)
        generated = np.bincount(self.generated_groups, minlength=self.groups)
        return reals[self.generated_groups] / generated[self.generated_groups]


@dataclass(frozen=True)
class Snapshot:
    """What the nets said of held-out samples after so many steps: log ratios, −∞ for 0."""

    step: int
    generated: np.ndarray  # float64 [members, m]
    real: np.ndarray  # float64 [n], each by the member that left it out

    def raw_mean(self, held: HeldOut) -> float:
        """The mean ratio over generated samples, as fitted."""
        return float(np.exp(self.generated).mean(0) @ held.weights)


@dataclass(frozen=True)
class Candidate:
    """A snapshot, the power its ratios are raised to, and its held-out loss."""

    snapshot: Snapshot
    strength: float
    loss: float


def choose(
    snapshots: Sequence[Snapshot],
    strengths: Sequence[float],
    held: HeldOut,
    limits: RatioLimits,
) -> Candidate:
    """The candidate of least held-out loss among those within the limits of calibration, effective
    sample size and acceptance; of strength 0, the constant ratio, where none is better.
    """
    best = Candidate(snapshots[-1], 0.0, CONSTANT_LOSS)
    for snapshot in snapshots:
        if not abs(snapshot.raw_mean(held) - 1) <= limits.mean_tolerance:
            continue
        for strength in strengths:
            if strength == 0:
                continue
            loss = held_out_loss(snapshot, strength, held)
            if loss < best.loss and _is_spread(snapshot, strength, held, limits):
                best = Candidate(snapshot, strength, loss)
    return best


def held_out_loss(snapshot: Snapshot, strength: float, held: HeldOut) -> float:
    """The softplus loss of the members on what they left out, powers scaled to mean 1 per group."""
    logs = strength * snapshot.generated
    generated = np.exp(scaled_by_other_half(logs, held))
    scales = log_means(logs, held.generated_groups, held.groups)
    real = np.exp(strength * snapshot.real - scales[held.member, held.real_groups])
    return float(fit_terms(generated).mean(0) @ held.weights + real_terms(real).mean())


def log_means(logs: np.ndarray, group: np.ndarray, groups: int) -> np.ndarray:
    """Log mean exp of log ratios `[…, m]` over each group's samples, `[…, groups]`.

    0 for groups without samples and for those whose ratios are all 0, which no factor scales to 1.
    """
    means = np.zeros((*logs.shape[:-1], groups))
    for one in np.unique(group):
        chosen = logs[..., group == one]
        means[..., one] = np.logaddexp.reduce(chosen, axis=-1) - np.log(chosen.shape[-1])
    return np.where(np.isneginf(means), 0.0, means)


def scaled_by_other_half(logs: np.ndarray, held: HeldOut) -> np.ndarray:
    """Log ratios `[…, m]` scaled to mean 1 per group, each half of a group's samples by the mean
    of the other half: so that the mean of the result still tells whether scaling carries over.
    """
    group = held.generated_groups
    first = np.zeros(len(group), dtype=bool)
    for one in np.unique(group):
        first[np.flatnonzero(group == one)[::2]] = True
    result = np.empty_like(logs)
    for half in (first, ~first):
        means = log_means(logs[..., half], group[half], held.groups)
        result[..., ~half] = logs[..., ~half] - means[..., group[~half]]
    return result


def _is_spread(snapshot: Snapshot, strength: float, held: HeldOut, limits: RatioLimits) -> bool:
    """Whether enough samples carry the ratio, by the same sums as the diagnostics'."""
    ratio = np.exp(strength * snapshot.generated.mean(0))
    shares = np.bincount(held.real_groups, minlength=held.groups) / len(held.real_groups)
    effective = acceptance = 0.0
    for group in np.flatnonzero(shares):
        one = ratio[held.generated_groups == group]
        if one.max() == 0:
            return False
        effective += shares[group] * one.mean() ** 2 / (one**2).mean()
        acceptance += shares[group] * one.mean() / one.max()
    return effective >= limits.effective_sample and acceptance >= limits.acceptance
