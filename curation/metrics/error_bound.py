"""What bounds a student's error: the labels, the distance to the real images, the sample size.

The error bound of the cGAN-KD paper (arXiv 2104.03164) adds up the teacher's error, a distance of
the generated distribution from the real one, a term that falls with the samples, and what the
student's architecture costs. The last is the same for every set. The others are estimated here in
one unit, a loss in [0, 1] (the share of wrong labels, or |error| over the range), without the
bound's constants: so sets can be compared, and terms, but their sum is no promise.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cgankd.shardset.errors import BadInput
from cgankd.shardset.labels import ContinuousLabels, LabelSpace

Term = Literal["labels", "distance", "sample size"]
ADVICE: dict[Term, str] = {
    "labels": "filter by the teacher, replace labels, or train a better teacher",
    "distance": "subsample by density ratio, or train the generator longer",
    "sample size": "keep or generate more samples",
}


@dataclass(frozen=True)
class BoundTerms:
    """The estimable terms for one named set, each ≥ 0 as a loss in [0, 1]."""

    name: str
    labels: float
    distance: float
    sample_size: float
    samples: int  # generated and real ones together

    @property
    def largest(self) -> Term:
        """The largest term, the first named of equal ones."""
        terms: dict[Term, float] = {
            "labels": self.labels,
            "distance": self.distance,
            "sample size": self.sample_size,
        }
        return max(terms, key=lambda term: terms[term])

    def line(self) -> str:
        """One line: which term is largest, and what lowers it."""
        return (
            f"{self.name}: labels {self.labels:.3f}, distance {self.distance:.3f}, sample size "
            f"{self.sample_size:.3f}; the largest is {self.largest}: {ADVICE[self.largest]}"
        )


def label_loss(predicted: np.ndarray, labels: np.ndarray, space: LabelSpace) -> float:
    """The mean loss in [0, 1] between labels `[n]`: the share that differ, or |difference| over the
    label's range. `BadInput` for none, or for unequal numbers.
    """
    if predicted.shape != labels.shape or labels.size == 0:
        raise BadInput(
            f"error bound: {list(predicted.shape)} predictions for {list(labels.shape)} labels, "
            "expected one for each, and at least one"
        )
    if isinstance(space, ContinuousLabels):
        return float(np.minimum(np.abs(predicted - labels) / space.span, 1).mean())
    return float((predicted != labels).mean())


def bound_terms(
    name: str,
    *,
    disagreement: float,
    teacher_error: float,
    accuracy: float,
    generated: int,
    reals: int,
    confidence: float = 0.95,
) -> BoundTerms:
    """The terms of a set of `generated` samples that a student sees beside `reals` real ones.

    `disagreement`: `label_loss` of the set's labels against the teacher's (0 where replaced);
    `teacher_error`: that of the teacher's against true validation labels. The generated labels'
    own loss is at most their sum. `accuracy`: of the two-sample check, both sides counted the
    same; the total variation distance is at least 2·accuracy − 1. These two terms weigh as much as
    the generated samples do among all. Sample size: Hoeffding's √(ln(2/δ)/2n) at `confidence`
    1 − δ. `BadInput` for numbers out of their range.
    """
    shares = {
        "disagreement": disagreement,
        "teacher_error": teacher_error,
        "accuracy": accuracy,
        "confidence": confidence,
    }
    for field, value in shares.items():
        if not 0 <= value <= 1:
            raise BadInput(f"error bound of {name}: {field} is {value:g}, expected 0 … 1")
    if generated < 1 or reals < 0 or confidence == 1:
        raise BadInput(
            f"error bound of {name}: {generated:,} generated and {reals:,} real samples at "
            f"confidence {confidence:g}, expected at least 1, at least 0, and below 1"
        )
    samples = generated + reals
    part = generated / samples
    return BoundTerms(
        name=name,
        labels=part * min(disagreement + teacher_error, 1.0),
        distance=part * max(2 * accuracy - 1, 0.0),
        sample_size=math.sqrt(math.log(2 / (1 - confidence)) / (2 * samples)),
        samples=samples,
    )


def which_to_work_on(terms: Sequence[BoundTerms]) -> str:
    """One line: the set with the least sum, and its largest term with what lowers it."""
    if not terms:
        raise BadInput("error bound: there is no set to compare")
    best = min(terms, key=lambda row: row.labels + row.distance + row.sample_size)
    return f"of {len(terms)} sets {best.name} has the least sum; {best.line()}"
