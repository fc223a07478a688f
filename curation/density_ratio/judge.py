"""Whether a density ratio is right: its diagnostics, the held-out choice among candidates, and
what is refused.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import Field

from cgankd.shardset.records import Record

CONSTANT_LOSS = -math.log1p(math.e)  # the softplus loss of ψ = 1: σ(1) − softplus(1) − σ(1)


class RatioLimits(Record):
    """What a density ratio must keep to on held-out samples; else it is refused."""

    mean_tolerance: float = Field(
        0.25, gt=0, description="how far the mean ratio over generated samples may be from 1"
    )
    effective_sample: float = Field(
        0.1, ge=0, le=1, description="least effective sample size (Kish), a share of the samples"
    )
    acceptance: float = Field(
        0.01, ge=0, le=1, description="least share that rejection sampling (r/M) would accept"
    )
    dominance: float = Field(
        20.0, gt=1, description="most that a label's largest ratio may be, in 99 % quantiles"
    )
    tell_apart: float = Field(
        0.99, gt=0.5, le=1, description="most often that a real may outrank a generated sample"
    )
    gain_errors: float = Field(
        1.5, ge=0, description="least gain over a constant ratio, in standard errors of the gain"
    )


@dataclass(frozen=True)
class Diagnostics:
    """A row for each group of labels, their mean weighted by the real images, and the mean before
    calibration.

    `held_out_loss` is the softplus loss (a constant ratio has −1.3133), `effective_sample` Kish's
    size over the number of samples, `acceptance` mean/largest, `tell_apart` how often a real
    sample has the larger ratio than a generated one (½: not to be told apart).
    """

    per_label: tuple[dict[str, Any], ...]
    overall: dict[str, float]
    raw_mean: float


def diagnose(
    generated: np.ndarray,
    generated_groups: np.ndarray,
    real: np.ndarray,
    real_groups: np.ndarray,
    *,
    raw_mean: float,
) -> Diagnostics:
    """The diagnostics of held-out ratios, float `[m]` on generated and `[n]` on real samples.

    Every group of either must occur in both. Ratios may be anything: judging is what this is for.
    """
    rows = [
        {"label": group, **_row(generated[generated_groups == group], real[real_groups == group])}
        for group in np.unique(real_groups).tolist()
    ]
    shares = np.array([row["real_images"] for row in rows]) / len(real_groups)
    overall = {
        name: float(np.dot(shares, [row[name] for row in rows]))
        for name in rows[0]
        if name not in ("label", "gain_error")
    }
    errors = np.array([row.pop("gain_error") for row in rows])
    overall["gain_error"] = float(np.sqrt(np.sum((shares * errors) ** 2)))
    for name in ("real_images", "generated_images", "not_numbers"):
        overall[name] = sum(row[name] for row in rows)
    overall["largest"] = max(row["largest"] for row in rows)
    return Diagnostics(tuple(rows), overall, raw_mean)


def judge_ratio(diagnostics: Diagnostics, limits: RatioLimits, names: Sequence[str]) -> list[str]:
    """One line for each way in which a ratio breaks its limits: what, where (by the names of the
    groups) and what to change.
    """
    rows, overall = diagnostics.per_label, diagnostics.overall
    problems: list[str] = []

    def add(what: str, labels: list[int], change: str) -> None:
        more = f" (and of {len(labels) - 1} more labels)" if len(labels) > 1 else ""
        problems.append(f"label {names[labels[0]]}: {what}{more}; {change}")

    if broken := [row["label"] for row in rows if row["not_numbers"]]:
        add("ratios are not numbers", broken, "lower ratio.learning_rate")
        return problems
    if empty := [row["label"] for row in rows if row["largest"] == 0]:
        change = "take ratio.network small or raise ratio.penalty"
        add("the ratio is 0 for every generated image, none would be kept", empty, change)
    rows = tuple(row for row in rows if row["largest"] > 0)
    tolerance = limits.mean_tolerance
    if not abs(diagnostics.raw_mean - 1) <= tolerance:
        problems.append(
            f"the mean ratio over held-out generated images is {diagnostics.raw_mean:.2f}, "
            f"expected 1 ± {tolerance:g}: overfitted; lower ratio.steps, raise ratio.penalty or "
            "let ratio.calibrate choose"
        )
    off = [
        row for row in rows if abs(row["mean_generated"] - 1) > tolerance + 3 * row["mean_error"]
    ]
    if off:
        worst = max(off, key=lambda row: abs(row["mean_generated"] - 1))
        what = f"the mean ratio over generated images is {worst['mean_generated']:.2f}, expected 1"
        change = "produce more samples of the label before fitting, or lower ratio.steps"
        add(what, [worst["label"], *(row["label"] for row in off if row is not worst)], change)
    if steep := [row for row in rows if row["dominance"] > limits.dominance]:
        worst = max(steep, key=lambda row: row["dominance"])
        what = (
            f"one sample's ratio, {worst['largest']:.3g}, is {worst['dominance']:.3g} times the "
            f"99 % quantile (limit {limits.dominance:g}) and alone sets M"
        )
        change = "lower the ratio's steps or its largest strength"
        add(what, [worst["label"], *(row["label"] for row in steep if row is not worst)], change)
    for name, words in (
        ("effective_sample", "the effective sample size is {:.2g} of the samples"),
        ("acceptance", "rejection sampling would accept {:.2g} of the samples"),
    ):
        floor = getattr(limits, name)
        if overall[name] < floor:
            problems.append(
                f"{words.format(overall[name])}, the floor is {floor:g}: a few samples carry the "
                "ratio; lower ratio.steps or ratio.strengths"
            )
    if overall["tell_apart"] > limits.tell_apart:
        problems.append(
            f"held-out real images outrank {overall['tell_apart']:.1%} of the generated ones: the "
            "two are told apart by something that no sample has; give real images as they are, "
            "not augmented, or train the generator longer"
        )
    # The constant ratio itself gains nothing, give or take a rounding.
    if not overall["gain"] > limits.gain_errors * overall["gain_error"] + 1e-9:
        problems.append(
            f"held-out loss {overall['held_out_loss']:.4f} is no better than a constant ratio's "
            f"{CONSTANT_LOSS:.4f}: the ratio knows nothing, or too few real images show it; raise "
            "the label budget, or take policy.subsample none"
        )
    return problems


def fit_terms(generated: np.ndarray) -> np.ndarray:
    """σ(ψ)·ψ − softplus(ψ), a generated sample's part of the softplus loss."""
    return _sigmoid(generated) * generated - np.logaddexp(0.0, generated)


def real_terms(real: np.ndarray) -> np.ndarray:
    """−σ(ψ), a real sample's part of the softplus loss."""
    return -_sigmoid(real)


def _row(generated: np.ndarray, real: np.ndarray) -> dict[str, Any]:
    count = len(generated)
    mean, largest = float(generated.mean()), float(generated.max())
    fit, pull = fit_terms(generated), real_terms(real)
    loss = float(fit.mean() + pull.mean())
    squares = float((generated**2).mean())
    quantile = float(np.quantile(generated, 0.99))
    return {
        "real_images": len(real),
        "generated_images": count,
        "held_out_loss": loss,
        "gain": CONSTANT_LOSS - loss,
        "gain_error": math.sqrt(fit.var() / count + pull.var() / len(real)),
        "mean_generated": mean,
        "mean_error": float(generated.std()) / math.sqrt(count),
        "mean_real": float(real.mean()),
        "effective_sample": mean**2 / squares if squares > 0 else 0.0,
        "largest": largest,
        "dominance": largest / quantile if quantile > 0 else (math.inf if largest > 0 else 1.0),
        "acceptance": mean / largest if largest > 0 else 0.0,
        "tell_apart": _outranks(real, generated),
        "not_numbers": int(np.count_nonzero(~np.isfinite(generated)))
        + int(np.count_nonzero(~np.isfinite(real))),
    }


def _outranks(real: np.ndarray, generated: np.ndarray) -> float:
    """How often a real sample's ratio is above a generated one's, ties counted half."""
    order = np.sort(generated)
    below = np.searchsorted(order, real, "left") + np.searchsorted(order, real, "right")
    return float(below.mean() / 2 / len(order))


def _sigmoid(values: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.tanh(0.5 * values))


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
        of_group = logs[..., group == one]
        means[..., one] = np.logaddexp.reduce(of_group, axis=-1) - np.log(of_group.shape[-1])
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
