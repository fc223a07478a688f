"""The built-in arms of the comparison, and how steps and learning rates are chosen for any arm.

Every arm has the same number of generated images where it uses any, and the same steps,
augmentation, learning-rate search and averaging, so that only the data and the loss differ.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from types import MappingProxyType
from typing import Literal, TypeVar

from pydantic import Field

from cgankd.shardset.errors import TrainingDiverged
from cgankd.shardset.records import Record

Init = Literal["scratch", "no-kd"]  # where students start; no-kd means from the no-kd student
Rows = Sequence[Mapping[str, float] | None]  # validation figures by seed, None where it diverged
NEAR = 0.25  # standard errors behind the best that are no reason to drop a setting
Setting = TypeVar("Setting")  # what is chosen among, such as (steps, learning rate)


class Arm(Record):
    """One way of training the student.

    >>> Arm(selection="raw", method="hinton").reals
    'budget'
    """

    selection: str | None = Field(None, description="the generated images; null: real ones alone")
    reals: Literal["budget", "all"] = Field(
        "budget", description="the labelled images of the budget, or every training image"
    )
    method: str | None = Field(None, description="the distillation; null: labels alone")
    compute: Literal[1, 2] = Field(1, description="times the steps of the other arms")


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
        "hinton": Arm(method="hinton"),
        "raw+hinton": Arm(selection="raw", method="hinton"),
        "cgan-kd+hinton": Arm(selection="cgan-kd", method="hinton"),
        "all-real": Arm(reals="all"),
    }
)


def arms_of(task: Literal["classification", "regression"]) -> tuple[str, ...]:
    """The names of a task's arms, in order: continuous labels have no logits to distil."""
    return tuple(
        name for name, arm in ARMS.items() if task == "classification" or arm.method is None
    )


def steps_of(arm: Arm, steps: int) -> int:
    """The optimiser steps of an arm's training, where the no-kd arm takes `steps`."""
    return steps * arm.compute


def starts_from_no_kd(arm: Arm, init: Init) -> bool:
    """Whether an arm is fine-tuned from the no-kd student: all that change the data or the loss."""
    changes = arm.selection is not None or arm.method is not None or arm.reals == "all"
    return init == "no-kd" and changes


def images_seen(arm: Arm, init: Init, steps: int, batch: int) -> int:
    """The images an arm's student has seen, counting those of the no-kd student it starts from."""
    before = steps if starts_from_no_kd(arm, init) else 0
    return (before + steps_of(arm, steps)) * batch


def promising(figures: Mapping[Setting, Rows], images: int) -> list[Setting]:
    """The settings that go on, in their order, by figures that a part of the steps reached on so
    many validation images.

    The better half, rounded up, by what `choose` goes by, and those that are behind the best by at
    most a quarter of a standard error: in few images that is luck. Settings that diverged are out;
    where all did, all stay, for `choose` to say so.

    >>> rows = {rate: [{"accuracy": rate, "cross_entropy": 1.0}] for rate in (70, 80, 90, 90.5)}
    >>> promising(rows, images=80)
    [90, 90.5]
    >>> promising({rate: rows[rate] for rate in (90, 90.5)}, images=80)
    [90, 90.5]
    """
    merits = {name: _merit(rows) for name, rows in figures.items() if None not in rows}
    if not merits:
        return list(figures)
    order = sorted(merits, key=lambda setting: merits[setting], reverse=True)
    half = order[: -(-len(figures) // 2)]
    near = merits[order[0]][0] - NEAR * _standard_error(figures[order[0]], images)
    return [setting for setting in merits if setting in half or merits[setting][0] >= near]


def choose(figures: Mapping[Setting, Rows]) -> Setting:
    """The setting with the best mean figures on validation.

    The highest `accuracy`, then the lowest `cross_entropy`; or, for continuous labels, the lowest
    `mae`, then the lowest `rmse`. One entry per seed; None is a training that diverged, which rules
    its setting out. `TrainingDiverged` where that rules out every setting.

    >>> def row(accuracy):
    ...     return {"accuracy": accuracy, "cross_entropy": 1.0}
    >>> choose({0.1: [row(80), row(90)], 0.3: [row(86), row(86)], 1.0: [row(99), None]})
    0.3
    """
    whole = [setting for setting, rows in figures.items() if None not in rows]
    if not whole:
        raise TrainingDiverged(
            f"training diverged with every setting tried ({', '.join(map(str, figures))}); "
            "give smaller learning rates"
        )
    return max(whole, key=lambda setting: _merit(figures[setting]))


def _merit(rows: Rows) -> tuple[float, float]:
    """What a setting whose seeds all ended is compared by; more is better."""
    mean = _mean(rows)
    if "mae" in mean:
        return -mean["mae"], -mean["rmse"]
    return mean["accuracy"], -mean["cross_entropy"]


def _standard_error(rows: Rows, images: int) -> float:
    """Of the mean accuracy in percent, or of the mean absolute error, over so many images."""
    mean = _mean(rows)
    if "mae" in mean:
        variance = mean["rmse"] ** 2 - mean["mae"] ** 2
    else:
        variance = mean["accuracy"] * (100 - mean["accuracy"])
    return math.sqrt(max(variance, 0.0) / images)


def _mean(rows: Rows) -> dict[str, float]:
    ended = [row for row in rows if row is not None]
    return {name: fmean(row[name] for row in ended) for name in ended[0]}
