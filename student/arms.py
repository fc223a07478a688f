"""The arms of the comparison as data, and how steps and learning rates are chosen for them.

Every arm has the same number of generated images where it uses any, and the same steps,
augmentation, learning-rate search and averaging, so that only the data and the loss differ.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from shardset.errors import BadInput, TrainingDiverged

Init = Literal["scratch", "no-kd"]  # where students start; no-kd means from the no-kd student
Value = int | float


@dataclass(frozen=True)
class Arm:
    """One way of training the student.

    `selection` names the generated images (None: reals only), `reals` the real ones; `compute`
    is how many times the steps of the other arms it takes.
    """

    selection: str | None = None
    reals: Literal["budget", "all"] = "budget"
    distillation: bool = False
    compute: Literal[1, 2] = 1


ARMS: Mapping[str, Arm] = MappingProxyType(
    {
        "no-kd": Arm(),
        # As many images as a student sees that is trained and then fine-tuned as long again.
        "no-kd-equal-compute": Arm(compute=2),
        "raw": Arm(selection="raw"),
        "subsampled": Arm(selection="subsampled"),
        "filtered": Arm(selection="filtered"),
        "relabelled": Arm(selection="relabelled"),
        "cgan-kd": Arm(selection="cgan-kd"),
        "hinton": Arm(distillation=True),
        "raw+hinton": Arm(selection="raw", distillation=True),
        "cgan-kd+hinton": Arm(selection="cgan-kd", distillation=True),
        "all-real": Arm(reals="all"),
    }
)


def steps_of(arm: Arm, steps: int) -> int:
    """The optimiser steps of an arm's training, where the no-kd arm takes `steps`."""
    return steps * arm.compute


def starts_from_no_kd(name: str, init: Init) -> bool:
    """Whether an arm is fine-tuned from the no-kd student: all that change the data or the loss."""
    arm = ARMS[name]
    changes = arm.selection is not None or arm.distillation or arm.reals == "all"
    return init == "no-kd" and changes


def images_seen(name: str, init: Init, steps: int, batch: int) -> int:
    """The images an arm's student has seen, counting those of the no-kd student it starts from."""
    before = steps if starts_from_no_kd(name, init) else 0
    return (before + steps_of(ARMS[name], steps)) * batch


@dataclass(frozen=True)
class Choice:
    """The chosen value and the score of every candidate; a diverged one has −inf."""

    value: Value
    scores: Mapping[Value, float]


def choose_steps(
    candidates: Sequence[int], validate: Callable[[int], float], tolerance: float = 0.0
) -> Choice:
    """The fewest steps whose validation score is within `tolerance` of the best one.

    `validate` trains with so many steps and returns a score, larger is better. The steps are
    chosen once, for the no-kd arm, and hold for every arm.
    """
    return _choose(sorted(candidates), validate, tolerance)


def choose_learning_rate(candidates: Sequence[float], validate: Callable[[float], float]) -> Choice:
    """The learning rate with the best validation score, the smaller one of equals.

    `validate` trains with this rate and returns a score, larger is better. Every arm searches the
    same candidates.
    """
    return _choose(sorted(candidates), validate, 0.0)


def _choose(
    candidates: Sequence[Value], validate: Callable[..., float], tolerance: float
) -> Choice:
    if not candidates:
        raise BadInput("there is nothing to choose from; give at least one candidate")
    scores = {candidate: _score(candidate, validate) for candidate in candidates}
    best = max(scores.values())
    if best == float("-inf"):
        raise TrainingDiverged(
            f"training diverged with every candidate ({', '.join(map(str, candidates))}); "
            "give smaller learning rates"
        )
    return Choice(next(key for key, score in scores.items() if score >= best - tolerance), scores)


def _score(candidate: Value, validate: Callable[..., float]) -> float:
    try:
        return validate(candidate)
    except TrainingDiverged:
        return float("-inf")
