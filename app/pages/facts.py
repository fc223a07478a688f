"""What check and report show, as plain values: the stages gather them, nothing here reads files."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any, Literal

import numpy as np

from cgankd.app.pages.records import AlongRecord
from cgankd.shardset.labels import LabelSpace
from cgankd.shardset.records import DifferenceFacts, TeacherResult


@dataclass(frozen=True)
class Kept:
    """The kept part of a selection: rows of the pool int64 `[k]`, and their final labels `[k]`."""

    rows: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class ArmResult:
    """One arm's students, one per seed."""

    values: tuple[float, ...]  # the metric on the test split, one per seed, in the seeds' order
    steps: int  # optimiser steps of one student
    images_seen: int  # steps × batch, of one student
    learning_rate: float  # the best on validation
    validation: float | None = None  # the metric on the validation split, mean over seeds
    note: str = ""  # what a reader must know to compare this row: how it differs, what failed

    @property
    def mean(self) -> float:
        """The mean over seeds."""
        return fmean(self.values)

    @property
    def std(self) -> float | None:
        """The sample standard deviation over seeds (n − 1); None for one seed."""
        return stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True)
class Metric:
    """What students are judged by, and how it is written."""

    name: str  # in report.json and in metrics: accuracy, mae
    words: str  # on the page: accuracy, MAE
    unit: str  # %, or that of the label
    less_is_better: bool
    digits: int  # after the point

    def text(self, value: float | None) -> str:
        """For example `91.20`; a dash for None."""
        return "–" if value is None else f"{value:.{self.digits}f}"

    def spread(self, arm: ArmResult) -> str:
        """For example `91.20 ± 0.35`."""
        return self.text(arm.mean) + (f" ± {self.text(arm.std)}" if arm.std is not None else "")


def metric_of(space: LabelSpace) -> Metric:
    """Accuracy in percent for classes, the mean absolute error in its unit for a number."""
    if space.task == "classification":
        return Metric("accuracy", "accuracy", "%", less_is_better=False, digits=2)
    # A ten-thousandth of the range: two digits for degrees, four for a label between 0 and 1.
    digits = max(0, 4 - round(math.log10(space.span)))
    return Metric("mae", "MAE", space.unit, less_is_better=True, digits=digits)


def paired_difference(
    arms: Mapping[str, ArmResult],
    arm: str = "cgan-kd",
    baseline: str = "no-kd",
    *,
    less_is_better: bool = False,
) -> DifferenceFacts | None:
    """By how much the metric of one arm exceeds that of another with the same seeds, seed by seed;
    None where one was not trained. The verdict is `gain` or `loss` beyond two standard errors of
    the mean difference, else `unclear`, as it is for one pair.
    """
    if arm not in arms or baseline not in arms:
        return None
    pairs = zip(arms[arm].values, arms[baseline].values, strict=True)
    differences = [value - other for value, other in pairs]
    mean, count = fmean(differences), len(differences)
    # The standard error of a mean: standard deviation / √n.
    error = stdev(differences) / math.sqrt(count) if count > 1 else None
    verdict: Literal["gain", "loss", "unclear"] = "unclear"
    if error is not None and abs(mean) > 2 * error:
        verdict = "gain" if (mean < 0) == less_is_better else "loss"
    return DifferenceFacts(
        arm=arm,
        baseline=baseline,
        mean=mean,
        standard_error=error,
        pairs=count,
        less_is_better=less_is_better,
        verdict=verdict,
    )


@dataclass(frozen=True)
class Curve:
    """One line of a panel of training curves."""

    stage: str  # the panel's heading, with the unit: "students: validation accuracy, %"
    series: str  # the line's name in the legend: an arm, a loss
    x: np.ndarray  # [n] steps
    y: np.ndarray  # [n]; what is not finite is left out


@dataclass(frozen=True)
class ImageGrid:
    """Images shown together, in the order given, row by row."""

    name: str  # real, kept, dropped: ratio, …; also the figure's file name
    pixels: np.ndarray  # uint8 [n, c, h, w], c is 1 or 3
    caption: str  # what they are and how they were picked
    columns: int = 10
    axis: tuple[str, ...] = ()  # what stands under the columns, where they mean something


@dataclass(frozen=True)
class LabelFacts:
    """What there is to show along a continuous label, in its unit."""

    real: np.ndarray  # float [r], of the real training images
    pool: np.ndarray  # float [n], what each pool sample was made for
    kept: np.ndarray  # float [k], of the kept samples, after the teacher's replacements
    mae: Mapping[str, np.ndarray]  # arm → test MAE in each group, mean over seeds; NaN: no image
    fidelity: AlongRecord | None = None  # Fréchet distance to real images
    score: AlongRecord | None = None  # Label Score: mean |judge − label|, in the unit


@dataclass(frozen=True)
class ReportFacts:
    """Everything the report shows."""

    title: str  # the run's name
    space: LabelSpace
    arms: Mapping[str, ArmResult]  # in the order of the table
    teacher: TeacherResult
    kept: tuple[int, ...]  # samples kept, per group of the label they were made for
    dropped: Mapping[str, tuple[int, ...]]  # reason → samples dropped for it, per group
    density_ratio: np.ndarray  # float [n], one per pool sample; NaN where there is none
    teacher_error: np.ndarray  # float [n], of the assigned label: cross-entropy, or |difference|
    was_kept: np.ndarray  # bool [n], aligned with the two above
    selection_sha256: str  # of the table that the students with generated images learned by
    ratio_diagnostics: tuple[Mapping[str, Any], ...]  # one row per group, numbers by name
    ratio_problems: tuple[str, ...]  # why the ratio was refused; empty where it was used
    curves: tuple[Curve, ...]
    grids: tuple[ImageGrid, ...]
    seconds: Mapping[str, float]  # stage → wall time, in the order they ran
    peak_memory_bytes: int
    run: Mapping[str, Any]  # what run.json says; mappings may be nested
    recipe: str  # the resolved recipe as YAML
    warnings: tuple[str, ...] = ()  # advice, one line each: what was seen and what would help
    labels: LabelFacts | None = None  # of continuous labels
    pool: tuple[int, ...] = field(init=False)  # samples produced, per group

    def __post_init__(self) -> None:
        counts = np.array([self.kept, *self.dropped.values()])
        groups = len(self.space.group_names)
        if counts.shape[1:] != (groups,):
            raise ValueError(
                f"kept and dropped need one number for each of {groups} {self.group_words[1]}"
            )
        aligned = [self.density_ratio, self.teacher_error, self.was_kept]
        aligned += [] if self.labels is None else [self.labels.pool]
        shapes = {array.shape for array in aligned}
        if len(shapes) != 1:
            raise ValueError(f"ratios, errors and decisions must be aligned, got {shapes}")
        if self.labels is not None and self.space.task != "regression":
            raise ValueError("classes have no axis to show facts along; leave labels out")
        object.__setattr__(self, "pool", tuple(counts.sum(axis=0).tolist()))

    @property
    def metric(self) -> Metric:
        """What the students are judged by."""
        return metric_of(self.space)

    @property
    def group_words(self) -> tuple[str, str]:
        """What a group of labels is called: one of them, and several."""
        if self.space.task == "classification":
            return "class", "classes"
        return "part of the range", "parts of the range"

    @property
    def acceptance(self) -> tuple[float | None, ...]:
        """The share of the pool that was kept, per group; None where nothing was produced."""
        pairs = zip(self.kept, self.pool, strict=True)
        return tuple(kept / pool if pool else None for kept, pool in pairs)

    @property
    def difference(self) -> DifferenceFacts | None:
        """`cgan-kd` against `no-kd`: the question the run was made to answer."""
        return paired_difference(self.arms, less_is_better=self.metric.less_is_better)
