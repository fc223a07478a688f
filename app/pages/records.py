"""`check.json` and `report.json`: each is written and read by one record."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError

from cgankd.curation.metrics.error_bound import BoundTerms
from cgankd.curation.metrics.measured import Measured
from cgankd.curation.metrics.two_sample import TwoSample
from cgankd.shardset.errors import BadInput
from cgankd.shardset.labels import ContinuousLabels
from cgankd.shardset.records import (
    ArmSummary,
    CheckSummary,
    JudgeFacts,
    Record,
    ReportSummary,
    SummaryNumber,
    finite,
)


class NumberJudge(Record):
    """What a number rests on, as `curation.metrics.measured.Judge` says it."""

    net: str
    sha256: str
    split: Literal["train", "validation", "train+validation"] | None
    selected: str


class CheckNumber(Record):
    """A number of a check, at one place: all kept samples, a label, or a window along it."""

    metric: str
    kind: Literal["all", "group", "window"]
    place: str
    label: float | None
    value: float | None
    interval: tuple[float | None, float | None] | None
    warning: str | None
    samples: int
    references: int | None
    judge: NumberJudge

    @classmethod
    def of(cls, number: Measured) -> "CheckNumber":
        """The record of a measured number."""
        interval = number.interval and tuple(map(finite, number.interval))
        return cls.model_validate(
            {**asdict(number), "value": finite(number.value), "interval": interval}
        )


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
    metrics: tuple[CheckNumber, ...]

    def of_release(self) -> CheckSummary:
        """What a release of the selection keeps of its check."""
        return CheckSummary(
            judge=self.judge,
            overall=self.overall,
            limits=self.limits,
            failures=self.failures,
            metrics=tuple(
                SummaryNumber(
                    **number.model_dump(include={"metric", "value", "interval", "samples"}),
                    **number.judge.model_dump(include={"net", "split", "selected"}),
                )
                for number in self.metrics
                if number.kind == "all"
            ),
        )


class ArmRecord(ArmSummary):
    """An arm with what a reader must know to compare it."""

    validation: float | None
    note: str


class GroupRecord(Record):
    """What became of the pool's samples of one class or part of the range."""

    name: str
    pool: int
    kept: int
    dropped: dict[str, int]
    acceptance: float | None


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
    fidelity: AlongRecord | None
    label_score: AlongRecord | None


class ReportRecord(ReportSummary):
    """`report/report.json`: the report's numbers."""

    format_version: Literal[1] = 1
    title: str
    warnings: tuple[str, ...]
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

    def plain(self) -> dict[str, Any]:
        """The record as the file holds it: `classes`, or `parts` and `labels`."""
        plain = self.model_dump(mode="json")
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
