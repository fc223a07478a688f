"""What check and report say: `check.json` and `report.json`, each written and read by one record,
and what the report's page shows besides. Nothing here reads a run.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, Literal, TypeVar

import numpy as np
from pydantic import Field, ValidationError

from cgankd.curation.metrics import Measured
from cgankd.curation.metrics.error_bound import BoundTerms
from cgankd.curation.metrics.two_sample import TwoSample
from cgankd.shardset.errors import BadInput
from cgankd.shardset.labels import ContinuousLabels, LabelSpace
from cgankd.shardset.records import (
    ArmSummary,
    CheckSummary,
    DifferenceFacts,
    JudgeFacts,
    Record,
    ReportSummary,
    SummaryNumber,
)


@dataclass(frozen=True)
class Kept:
    """The kept part of a selection: rows of the pool int64 `[k]`, and their final labels `[k]`."""

    rows: np.ndarray
    labels: np.ndarray


class TwoSampleFacts(Record):
    """The two-sample check of one set, overall and by the label's name."""

    overall: TwoSample
    labels: dict[str, TwoSample]


class BoundFacts(Record):
    """The error bound's terms of each set, and a line that says which to work on."""

    terms: tuple[BoundTerms, ...]
    line: str


class RatioSummary(Record):
    """Why the density ratio was refused, if it was, and its diagnostics over all labels."""

    problems: tuple[str, ...]
    overall: dict[str, int | float | None]


class MemorisedPair(Record):
    """A kept sample and the real training image that it copies."""

    key: int
    real_id: int
    similarity: float


class LearnedFacts(Record):
    """How the fresh student learned from kept images."""

    network: str
    steps: int
    batch: int
    lr: float
    images: int


class CheckFacts(Record):
    """`check/check.json`: all that `cgankd check` says of a selection."""

    selection: str
    selection_sha256: str
    failures: tuple[str, ...]
    advice: tuple[str, ...]
    limits: dict[str, float | None]
    overall: dict[str, float | None]
    pool: int
    kept: int
    dropped: dict[str, int]
    labels: tuple[dict[str, str | int | float | None], ...]
    two_sample: dict[str, TwoSampleFacts]
    bound: BoundFacts | None
    ratio: RatioSummary
    duplicates: tuple[tuple[int, ...], ...]
    memorised: tuple[MemorisedPair, ...]
    judge: JudgeFacts
    learned: LearnedFacts
    metrics: tuple[Measured, ...]

    def of_release(self) -> CheckSummary:
        """What a release of the selection keeps of its check."""
        return CheckSummary(
            judge=self.judge,
            overall=self.overall,
            limits=self.limits,
            failures=self.failures,
            metrics=tuple(
                SummaryNumber(
                    **{name: number[name] for name in ("metric", "value", "interval", "samples")},
                    **{name: number["judge"][name] for name in ("net", "split", "selected")},
                )
                for number in self.model_dump(include={"metrics"})["metrics"]
                if number["kind"] == "all"
            ),
        )


class ArmRecord(ArmSummary):
    """An arm with what a reader must know to compare it."""

    validation: float | None = Field(None, description="the metric there, mean over seeds")
    note: str = Field("", description="how the arm differs from others, what failed")

    @classmethod
    def of(cls, values: Sequence[float], **facts: Any) -> "ArmRecord":
        """The record of the metric on the test split, one value per seed in the seeds' order."""
        std = stdev(values) if len(values) > 1 else None
        return cls(values=tuple(values), mean=fmean(values), std=std, **facts)


class GroupRecord(Record):
    """What became of the pool's samples made for one class or part of the range."""

    name: str
    pool: int
    kept: int
    dropped: dict[str, int]
    acceptance: float | None = Field(description="the share kept; None where none was produced")


class RatioDiagnostics(Record):
    """The density ratio's numbers, a row for each group, and why it was refused, if it was."""

    diagnostics: tuple[dict[str, Any], ...]
    problems: tuple[str, ...]


class AlongRecord(Record):
    """A measure in windows along the label, of the raw pool and of what was kept; None where there
    are too few samples.
    """

    centre: tuple[float, ...] = Field(description="of each window, in the label's unit")
    raw: tuple[float | None, ...]
    kept: tuple[float | None, ...]
    overall: tuple[float, float] = Field(description="of the raw pool and of what was kept")
    caption: str = Field(description="what it is, against which images, in windows how wide")


class LabelRecord(Record):
    """What is known along a continuous label: images and errors of each part of the range."""

    space: ContinuousLabels
    real: tuple[int, ...]
    pool: tuple[int, ...]
    kept: tuple[int, ...]
    mae: dict[str, tuple[float | None, ...]]
    fidelity: AlongRecord | None = Field(description="Fréchet distance to real images")
    label_score: AlongRecord | None = Field(description="mean |judge − label|, in the unit")


class ReportRecord(ReportSummary):
    """`report/report.json`: the report's numbers."""

    format_version: Literal[1] = 1
    title: str
    warnings: tuple[str, ...] = ()
    arms: Mapping[str, ArmRecord]
    pool: int
    kept: int
    selection_sha256: str
    dropped: dict[str, int]
    classes: tuple[GroupRecord, ...] | None = None
    parts: tuple[GroupRecord, ...] | None = None
    ratio: RatioDiagnostics
    seconds: dict[str, float]
    peak_memory_bytes: int
    run: dict[str, Any]
    labels: LabelRecord | None = None

    @property
    def groups(self) -> tuple[GroupRecord, ...]:
        """The classes, or the parts of the range."""
        return self.classes or self.parts or ()

    def plain(self) -> dict[str, Any]:
        """The record as the file holds it: `classes`, or `parts` and `labels`; a number that is not
        finite is None.
        """
        plain = json.loads(self.model_dump_json())
        optional = ("classes", "parts", "labels")
        return {name: v for name, v in plain.items() if v is not None or name not in optional}

    def of_release(self) -> ReportSummary:
        """What a release keeps."""
        arms = {name: set(ArmSummary.model_fields) for name in self.arms}
        fields: Any = {**dict.fromkeys(ReportSummary.model_fields, True), "arms": arms}
        return ReportSummary.model_validate_json(self.model_dump_json(include=fields))


RecordClass = TypeVar("RecordClass", bound=Record)


def read_record(path: Path, record: type[RecordClass], command: str) -> RecordClass:
    """The record that a JSON file holds; `BadInput` names the command that writes it anew where it
    is damaged.
    """
    try:
        return record.model_validate_json(path.read_bytes())
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"]))
        raise BadInput(
            f"{path}: {where}: {problem['msg']}; run `cgankd {command}` again"
        ) from error


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

    def spread(self, arm: ArmRecord) -> str:
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
    arms: Mapping[str, ArmRecord],
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
class ReportFacts:
    """Everything the report shows."""

    record: ReportRecord
    space: LabelSpace
    density_ratio: np.ndarray  # float [n], one per pool sample; NaN where there is none
    teacher_error: np.ndarray  # float [n], of the assigned label: cross-entropy, or |difference|
    was_kept: np.ndarray  # bool [n], aligned with the two above
    curves: tuple[Curve, ...]
    grids: tuple[ImageGrid, ...]
    recipe: str  # the resolved recipe as YAML
    # Of continuous labels: `real` of the training images, `raw` that each pool sample was made for,
    # `kept` after the teacher's replacements; float, in the label's unit.
    labels: Mapping[str, np.ndarray] | None = None

    def __post_init__(self) -> None:
        groups = len(self.space.group_names)
        if len(self.record.groups) != groups:
            raise ValueError(f"the record needs one row for each of {groups} {self.group_words[1]}")
        aligned = [self.density_ratio, self.teacher_error, self.was_kept]
        aligned += [] if self.labels is None else [self.labels["raw"]]
        shapes = {array.shape for array in aligned}
        if len(shapes) != 1:
            raise ValueError(f"ratios, errors and decisions must be aligned, got {shapes}")
        if self.labels is not None and self.space.task != "regression":
            raise ValueError("classes have no axis to show facts along; leave labels out")

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
