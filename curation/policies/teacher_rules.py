"""Which samples a teacher lets pass, by its errors or by its labels; and its labels instead."""

from typing import ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from cgankd.curation.policies.rule import Decision, Samples, Settings, Source
from cgankd.shardset.errors import BadInput

Scope = Literal["per-label", "global"]
SCOPE = "one quantile a label, or one for all"
RHO = "ρ: the share that passes"
TEACHER: frozenset[Source] = frozenset({"teacher"})


class Quantile(Settings):
    """Keeps teacher errors up to the ρ-quantile of what is kept so far (cGAN-KD, arXiv 2104.03164).

    The more is dropped, the less may be left to learn: on Fashion-MNIST filtering after replacing
    labels cost 0.8 points of accuracy.
    """

    kind: Literal["quantile"] = "quantile"
    reads: ClassVar[frozenset[Source]] = TEACHER
    rho: float = Field(0.9, gt=0, le=1, description=RHO)
    scope: Scope = Field("per-label", description=SCOPE)

    def decide(self, samples: Samples, kept: np.ndarray) -> Decision:
        """What passes; fitted are the quantiles."""
        passes, _, quantiles = _within_quantiles(samples, kept, self.scope, self.rho, low=0.0)
        return Decision(passes, "teacher", {"quantile": quantiles})


class Band(Settings):
    """Keeps teacher errors from the `low`- to the ρ-quantile of what is kept so far: the easiest
    samples go with the wrong ones.
    """

    kind: Literal["band"] = "band"
    reads: ClassVar[frozenset[Source]] = TEACHER
    rho: float = Field(0.9, gt=0, le=1, description="ρ: the quantile above which samples go")
    low: float = Field(0.1, ge=0, lt=1, description="share that is dropped as too easy; below ρ")
    scope: Scope = Field("per-label", description=SCOPE)

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.low >= self.rho:
            raise ValueError(f"low {self.low:g} must be below rho {self.rho:g}")
        return self

    def decide(self, samples: Samples, kept: np.ndarray) -> Decision:
        """What passes; fitted are the quantiles, upper and lower."""
        passes, lows, quantiles = _within_quantiles(samples, kept, self.scope, self.rho, self.low)
        return Decision(passes, "teacher", {"quantile": quantiles, "band_low": lows})


class Agreement(Settings):
    """Keeps what the teacher gives the assigned label: the same class, or a value so close."""

    kind: Literal["agreement"] = "agreement"
    reads: ClassVar[frozenset[Source]] = TEACHER
    within: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="largest |teacher − label| in the unit of continuous labels; null for classes",
    )

    def decide(self, samples: Samples, kept: np.ndarray) -> Decision:
        """What passes. Raises `BadInput` where `within` does not fit the task."""
        scores = samples.scores
        if np.issubdtype(scores.label.dtype, np.integer):
            if self.within is not None:
                raise BadInput(
                    "policy.filter.within is of no use to classes, whose labels agree or differ; "
                    "leave it out"
                )
            return Decision(scores.label == scores.teacher_label, "teacher")
        if self.within is None:
            raise BadInput(
                "policy.filter agreement needs policy.filter.within for continuous labels: the "
                "largest difference in the label's unit that counts as agreement"
            )
        return Decision(scores.teacher_error <= self.within, "teacher")


class TeacherLabels(Settings):
    """Replaces the assigned label by the teacher's; drops nothing."""

    kind: Literal["teacher"] = "teacher"
    reads: ClassVar[frozenset[Source]] = TEACHER

    def decide(self, samples: Samples, kept: np.ndarray) -> Decision:
        """The teacher's label of every scored sample."""
        scores = samples.scores
        label = np.where(scores.scored, scores.teacher_label, scores.label)
        return Decision(np.ones(len(kept), bool), "teacher", label=label)


def error_limits(errors: np.ndarray, rho: float, low: float = 0.0) -> tuple[float, float]:
    """The least and the largest teacher error that pass: the `low`- and the ρ-quantile.

    errors: float `[n]`, ≥ 0, n ≥ 1, those that the limits are fitted on; 0 ≤ low < ρ ≤ 1. With
    `low` 0 nothing is too easy.

    >>> error_limits(np.array([0.0, 1.0, 2.0, 3.0, 4.0]), rho=0.75)
    (0.0, 3.0)
    """
    least = float(np.quantile(errors, low)) if low > 0 else 0.0
    return least, float(np.quantile(errors, rho))


def _within_quantiles(
    samples: Samples, kept: np.ndarray, scope: Scope, rho: float, low: float
) -> tuple[np.ndarray, dict[str, float], dict[str, float]]:
    """Bool `[n]`, and the lower and upper limits by group; a group with nothing kept of the first
    round has none, and passes.
    """
    errors, passes = samples.scores.teacher_error, np.ones(len(kept), bool)
    everything = {"all": np.arange(len(kept))}
    lows, quantiles = {}, {}
    for name, rows in (samples.groups if scope == "per-label" else everything).items():
        left = rows[kept[rows]]
        fit = left[samples.in_first_round[left]]
        if fit.size == 0:
            continue
        least, cut = error_limits(errors[fit], rho, low)
        passes[left] = ~((errors[left] < least) | (errors[left] > cut))
        lows[str(name)], quantiles[str(name)] = least, cut
    return passes, lows, quantiles
