"""What one stage records for others to read: each is written and read by the same class."""

import math
from collections.abc import Mapping
from typing import Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field


class Record(BaseModel):
    """Frozen; unknown keys and wrong types are refused. A number that is not finite is None."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


def finite(value: float) -> float | None:
    """The value, None where it is NaN or infinite, for which JSON has no number."""
    return float(value) if math.isfinite(value) else None


class JudgeFacts(Record):
    """The net that measured a selection, which selected nothing."""

    net: str
    sha256: str = Field(description="of its weights")
    images: int = Field(description="real training images it was trained on")


class SummaryNumber(Record):
    """A number of all kept samples, with the net that it rests on."""

    metric: str
    value: float | None
    interval: tuple[float | None, float | None] | None = Field(description="95 %")
    samples: int
    net: str
    split: Literal["train", "validation", "train+validation"] | None
    selected: str = Field(description="fields of the policy that went by the net; empty for none")


class CheckSummary(Record):
    """What a release keeps of the check of its selection."""

    judge: JudgeFacts
    # Releases of format 1 call it `shares`, though not all of its numbers are.
    overall: dict[str, float | None] = Field(
        validation_alias=AliasChoices("overall", "shares"),
        description="by the names of the recipe's limits",
    )
    limits: dict[str, float | None] = Field(description="of the recipe; None: not checked")
    failures: tuple[str, ...] = Field(description="a line for each limit that is not met")
    metrics: tuple[SummaryNumber, ...]


class TeacherFacts(Record):
    """The network that scores the pool, trained or loaded."""

    sha256: str  # of its weights, or of its outputs on the real images where it is a function
    network: str  # its name, or the user's file
    data: str  # what it was trained on: budget, all, or own
    images: int  # that it was trained on here; 0: it was loaded
    validation: dict[str, float]  # figures on the validation images


class GeneratorFacts(Record):
    """The conditional generator, trained here or adopted; figures are those of the step kept."""

    sha256: str  # of its weights
    steps: int  # that it was trained for here; 0: it learns nothing, or its weights were given
    kept_step: int | None = None  # whose average it is: the best by keep_best, else the last
    generator_parameters: int | None = None
    discriminator_parameters: int | None = None
    label_reconstruction_error: float | None = None  # of continuous labels
    image_label_error: float | None = None
    loss_d: float | None = None
    loss_g: float | None = None
    variety: float | None = None
    kid: float | None = None  # of its samples against the budget's validation images


class PoolFacts(Record):
    """The produced samples, as their plan says and their shards hold."""

    pool_id: str
    samples: int
    rounds: int  # the first, and one for each top-up
    shards: int
    manifest_sha256: str
    libraries: dict[str, str] = {}  # versions that decide pixels; older pools do not say


class ScoreFacts(Record):
    """The score tables of a pool."""

    rows: int
    sha256: str  # of all tables


class SelectionFacts(Record):
    """One selection's table."""

    sha256: str
    kept: int
    dropped: dict[str, int]  # by reason


class TrainedArm(Record):
    """What an arm's search chose and where its students lie."""

    steps: int
    lr: float
    images_seen: int  # those of the student it was fine-tuned from included
    validation: tuple[float, ...]  # accuracy in percent or mean error of each search seed
    folders: tuple[str, ...]  # one per seed, below the run folder


class StudentsFacts(Record):
    """The students of every arm, and the selections that they were trained on."""

    arms: dict[str, TrainedArm]
    selections: dict[str, str]  # sha256 of each selection table that an arm uses
    advice: tuple[str, ...]  # what validation alone says of the arms


class ArmSummary(Record):
    """The students of one arm, one per seed."""

    mean: float = Field(description="of the metric on the test split, over seeds")
    std: float | None = Field(description="over seeds, n − 1; None for one seed")
    values: tuple[float, ...]
    steps: int
    images_seen: int
    learning_rate: float


class DifferenceFacts(Record):
    """By how much the metric of one arm exceeds that of another, seed by seed."""

    arm: str
    baseline: str
    mean: float
    standard_error: float | None
    pairs: int
    less_is_better: bool
    verdict: Literal["gain", "loss", "unclear"]


class TeacherResult(Record):
    """The network that scored the pool, and how it does itself."""

    name: str = Field(description="resnet32x4, or the user's file")
    data: str = Field(description="what it was trained on: budget, all, or loaded")
    test: float | None = Field(None, description="the metric on the test split")
    validation: float | None = Field(None, description="the metric on the validation split")


class ReportSummary(Record):
    """What a release keeps of the report of the students that were trained from it."""

    task: Literal["classification", "regression"]
    metric: str
    unit: str
    summary: str
    arms: Mapping[str, ArmSummary]
    arm_order: tuple[str, ...]
    difference: DifferenceFacts | None
    teacher: TeacherResult


class FittedRatio(Record):
    """The held-out diagnostics of a density ratio, and what was chosen by them."""

    problems: tuple[str, ...]  # a line each; empty where the ratio may be used
    per_label: tuple[dict[str, int | float | None], ...]  # diagnostics, a row for each group
    overall: dict[str, int | float | None]  # their mean, weighted by the real images
    raw_mean: float | None  # the mean ratio of generated samples before calibration
    steps: int  # that the ratio nets learnt for
    strength: float  # the exponent of the ratio; 0: 1 everywhere


class RatioFacts(FittedRatio):
    """The density ratio of a run, as it lies on disk."""

    sha256: str  # of its weights; the net that selects lies in them


class NeighbourFacts(Record):
    """The neighbours of a pool, as they lie in its tables."""

    rows: int  # samples that have neighbours
    pairs: int  # of near-duplicates
    pool_sha256: str  # of the pool's manifest
    sha256: str  # of the tables and features
