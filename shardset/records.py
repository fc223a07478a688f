"""What one stage records for others to read: each is written and read by the same class."""

from typing import Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field


class Record(BaseModel):
    """Frozen; unknown keys and wrong types are refused. A number that is not finite is None."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


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
