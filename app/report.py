"""The report of a run: `report.html`, a page that needs nothing else, `report.json` and figures."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal

import numpy as np

from shardset.files import write_bytes, write_json


@dataclass(frozen=True)
class ArmResult:
    """One arm's students, one per seed."""

    values: tuple[float, ...]  # the metric on the test split, one per seed, in the seeds' order
    steps: int  # optimiser steps of one student
    images_seen: int  # steps × batch, of one student
    learning_rate: float  # the one chosen on validation
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
class PairedDifference:
    """How much one arm exceeds another, seed by seed."""

    arm: str
    baseline: str
    mean: float  # mean of arm − baseline
    standard_error: float | None  # of that mean: standard deviation / √pairs; None for one pair
    pairs: int

    @property
    def verdict(self) -> Literal["gain", "loss", "unclear"]:
        """`gain` or `loss` beyond two standard errors, else `unclear`; one pair is unclear."""
        if self.standard_error is None or abs(self.mean) <= 2 * self.standard_error:
            return "unclear"
        return "gain" if self.mean > 0 else "loss"


def paired_difference(
    arms: Mapping[str, ArmResult], arm: str = "cgan-kd", baseline: str = "no-kd"
) -> PairedDifference | None:
    """The paired difference of two arms with the same seeds; None where one was not trained."""
    if arm not in arms or baseline not in arms:
        return None
    pairs = zip(arms[arm].values, arms[baseline].values, strict=True)
    differences = [value - other for value, other in pairs]
    count = len(differences)
    error = stdev(differences) / math.sqrt(count) if count > 1 else None
    return PairedDifference(arm, baseline, fmean(differences), error, count)


@dataclass(frozen=True)
class TeacherFacts:
    """The network that judged the pool."""

    name: str  # resnet32x4, or the user's file
    data: str  # what it was trained on: budget, all, or loaded
    test: float | None = None  # the metric on the test split
    validation: float | None = None  # the metric on the validation split


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
    caption: str  # what they are and how they were chosen
    columns: int = 10


@dataclass(frozen=True)
class ReportFacts:
    """Everything the report shows; `app` gathers it, nothing here reads the run folder."""

    title: str  # the run's name
    task: str  # classification
    arms: Mapping[str, ArmResult]  # in the order of the table
    teacher: TeacherFacts
    class_names: tuple[str, ...]
    kept: tuple[int, ...]  # samples kept, per class; classes are those the samples were made for
    dropped: Mapping[str, tuple[int, ...]]  # reason → samples dropped for it, per class
    density_ratio: np.ndarray  # float [n], one per pool sample; NaN where there is none
    teacher_error: np.ndarray  # float [n], cross-entropy of the assigned label; NaN where none
    was_kept: np.ndarray  # bool [n], aligned with the two above
    ratio_diagnostics: tuple[Mapping[str, Any], ...]  # one row per label, numbers by name
    ratio_problems: tuple[str, ...]  # why the ratio was refused; empty where it was used
    curves: tuple[Curve, ...]
    grids: tuple[ImageGrid, ...]
    seconds: Mapping[str, float]  # stage → wall time, in the order they ran
    peak_memory_bytes: int
    run: Mapping[str, Any]  # what run.json says; mappings may be nested
    recipe: str  # the resolved recipe as YAML
    warnings: tuple[str, ...] = ()  # advice, one line each: what was seen and what would help
    metric: str = "accuracy"  # in percent
    pool: tuple[int, ...] = field(init=False)  # samples produced, per class

    def __post_init__(self) -> None:
        counts = np.array([self.kept, *self.dropped.values()])
        if counts.shape[1:] != (len(self.class_names),):
            raise ValueError(
                f"kept and dropped need one number for each of {len(self.class_names)} classes"
            )
        shapes = {array.shape for array in (self.density_ratio, self.teacher_error, self.was_kept)}
        if len(shapes) != 1:
            raise ValueError(f"ratios, errors and decisions must be aligned, got {shapes}")
        object.__setattr__(self, "pool", tuple(counts.sum(axis=0).tolist()))

    @property
    def acceptance(self) -> tuple[float | None, ...]:
        """The share of the pool that was kept, per class; None where nothing was produced."""
        pairs = zip(self.kept, self.pool, strict=True)
        return tuple(kept / pool if pool else None for kept, pool in pairs)

    @property
    def difference(self) -> PairedDifference | None:
        """`cgan-kd` against `no-kd`: the question the run was made to answer."""
        return paired_difference(self.arms)


def write_report(folder: Path, facts: ReportFacts) -> Path:
    """The path of `report.html`, written with `report.json` and `figures/` into a folder."""
    from app.report_figures import draw_figures
    from app.report_page import render_page

    figures = draw_figures(facts)
    for old in (folder / "figures").glob("*.png"):
        old.unlink()
    for figure in figures:
        write_bytes(folder / "figures" / f"{figure.name}.png", figure.png)
    write_json(folder / "report.json", report_json(facts))
    write_bytes(folder / "report.html", render_page(facts, figures).encode())
    return folder / "report.html"


def summary(facts: ReportFacts) -> str:
    """The run's outcome in one or two sentences, as careful as its numbers are."""
    difference = facts.difference
    if difference is None:
        return (
            f"{len(facts.arms)} arms were trained; without both cgan-kd and no-kd among them "
            "there is no answer to whether generated images help."
        )
    arm, baseline = difference.arm, difference.baseline
    reached = f"{arm} reaches {spread(facts.arms[arm])} % {facts.metric}"
    points = f"{abs(difference.mean):.2f}"
    direction = "more" if difference.mean >= 0 else "less"
    if difference.standard_error is None:
        return (
            f"{reached}, {points} points {direction} than {baseline}. One seed: chance is not "
            "ruled out; run more seeds."
        )
    answer = (
        f"{reached}, {points} ± {difference.standard_error:.2f} points {direction} than "
        f"{baseline} (paired difference and its standard error over {difference.pairs} seeds)."
    )
    return (
        answer
        + {
            "gain": " A gain of more than twice the standard error.",
            "loss": " A loss of more than twice the standard error: here generated images hurt.",
            "unclear": " Within twice the standard error: no effect is shown.",
        }[difference.verdict]
    )


def spread(result: ArmResult) -> str:
    """For example `91.20 ± 0.35`."""
    return f"{result.mean:.2f}" + (f" ± {result.std:.2f}" if result.std is not None else "")


def report_json(facts: ReportFacts) -> dict[str, Any]:
    """The report as plain values; a number that is not finite is None."""
    difference = facts.difference
    value = {
        "format_version": 1,
        "title": facts.title,
        "task": facts.task,
        "metric": facts.metric,
        "summary": summary(facts),
        "warnings": facts.warnings,
        "arms": {
            name: {
                "mean": arm.mean,
                "std": arm.std,
                "values": arm.values,
                "steps": arm.steps,
                "images_seen": arm.images_seen,
                "learning_rate": arm.learning_rate,
                "validation": arm.validation,
                "note": arm.note,
            }
            for name, arm in facts.arms.items()
        },
        "arm_order": list(facts.arms),
        "difference": difference and {**vars(difference), "verdict": difference.verdict},
        "teacher": vars(facts.teacher),
        "pool": sum(facts.pool),
        "kept": sum(facts.kept),
        "dropped": {reason: sum(counts) for reason, counts in facts.dropped.items()},
        "classes": [
            {
                "name": name,
                "pool": facts.pool[index],
                "kept": facts.kept[index],
                "dropped": {reason: counts[index] for reason, counts in facts.dropped.items()},
                "acceptance": facts.acceptance[index],
            }
            for index, name in enumerate(facts.class_names)
        ],
        "ratio": {"diagnostics": facts.ratio_diagnostics, "problems": facts.ratio_problems},
        "seconds": facts.seconds,
        "peak_memory_bytes": facts.peak_memory_bytes,
        "run": facts.run,
    }
    return _plain(value)


def _plain(value: Any) -> Any:
    """A value with NumPy's numbers as Python's and numbers that are not finite as None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
