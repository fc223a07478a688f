"""The label space: what a label is, how it is named, written, grouped and scaled.

Everything that is counted, fitted or balanced by label goes by group: a class is its own group, a
continuous label belongs to one of equal parts of the range.
"""

import math
from itertools import pairwise
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from cgankd.shardset.errors import BadInput
from cgankd.shardset.records import Record

FULL_TURNS = {
    **dict.fromkeys(("degrees", "degree", "deg", "°"), 360.0),
    **dict.fromkeys(("radians", "radian", "rad"), 2 * math.pi),
}


class ClassLabels(BaseModel):
    """Classes 0 … n−1 with their names; labels are int64 `[n]`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Literal["classification"] = "classification"
    names: tuple[str, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _names_are_distinct(self) -> "ClassLabels":
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"class names must be distinct, got {list(self.names)}")
        return self

    @property
    def outputs(self) -> int:
        """The number of a network's outputs: a logit for each class."""
        return len(self.names)

    @property
    def group_names(self) -> tuple[str, ...]:
        """The names of the groups: those of the classes."""
        return self.names

    def group_of(self, labels: np.ndarray) -> np.ndarray:
        """The group int64 `[n]` of each label: the class itself."""
        return np.asarray(labels, np.int64)

    def targets(self, labels: np.ndarray) -> np.ndarray:
        """What networks learn, int64 `[n]`: the class itself."""
        return np.asarray(labels, np.int64)

    def check(self, labels: np.ndarray, where: str) -> None:
        """Raises `BadInput` unless every label is an int64 in 0 … n − 1."""
        if labels.dtype != np.int64:
            raise BadInput(f"{where}: class labels are {labels.dtype}, expected int64")
        count = len(self.names)
        wrong = np.flatnonzero((labels < 0) | (labels >= count))
        if wrong.size:
            raise BadInput(
                f"{where}: label {labels[wrong[0]]} of sample {wrong[0]} is not one of the "
                f"{count} classes (0 to {count - 1})"
            )

    def display(self, label: float) -> str:
        """The name of one class."""
        return self.names[int(label)]


class ContinuousLabels(BaseModel):
    """A number with a unit and a range; labels are float64 `[n]` in that unit.

    Networks see it scaled to [0, 1]. `groups` equal parts of the range stand for what classes are
    elsewhere: a fit, a quota or a bar for each.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: Literal["regression"] = "regression"
    unit: str = Field(min_length=1)
    low: float = Field(allow_inf_nan=False)
    high: float = Field(allow_inf_nan=False)
    groups: int = Field(default=12, ge=1, le=10_000)  # a manifest may be anybody's

    @model_validator(mode="after")
    def _is_an_interval(self) -> "ContinuousLabels":
        if not self.low < self.high:
            raise ValueError(
                f"label.range [{self.low:g}, {self.high:g}] is empty, expected low < high"
            )
        turns = self.span / FULL_TURNS.get(self.unit, math.inf)
        if turns > 0 and round(turns) >= 1 and abs(turns - round(turns)) < 1e-9:
            raise ValueError(
                f"label.range [{self.low:g}, {self.high:g}] {self.unit} is a full turn, whose ends "
                "are one label: circular labels are not supported; give a part of the turn, or, "
                "if the ends are different labels, a slightly wider range"
            )
        if len(set(self.edges)) <= self.groups:
            raise ValueError(
                f"label.range [{self.low!r}, {self.high!r}] has no {self.groups} parts that "
                "numbers tell apart; give fewer label.groups or subtract the offset"
            )
        return self

    @property
    def outputs(self) -> int:
        """The number of a network's outputs: one, the scaled label."""
        return 1

    @property
    def span(self) -> float:
        """The width of the range, in the label's unit."""
        return self.high - self.low

    @property
    def edges(self) -> np.ndarray:
        """The groups' limits, float64 `[groups + 1]`, ascending, in the label's unit."""
        return np.linspace(self.low, self.high, self.groups + 1)

    @property
    def group_names(self) -> tuple[str, ...]:
        """The parts of the range, such as `−60 … −50`."""
        # As many digits as tell the limits apart, however narrow the range.
        digits = next(
            d for d in range(6, 18) if len({f"{e:.{d}g}" for e in self.edges}) > self.groups
        )
        limits = [f"{edge:.{digits}g}".replace("-", "−") for edge in self.edges]
        return tuple(f"{a} … {b}" for a, b in pairwise(limits))

    def group_of(self, labels: np.ndarray) -> np.ndarray:
        """The group int64 `[n]` of each label; the last part of the range includes its end."""
        return np.clip(
            np.searchsorted(self.edges, labels, side="right") - 1, 0, self.groups - 1
        ).astype(np.int64)

    def targets(self, labels: np.ndarray) -> np.ndarray:
        """What networks learn, float32 `[n]` in [0, 1]: the scaled label."""
        return self.scaled(labels).astype(np.float32)

    def scaled(self, labels: np.ndarray) -> np.ndarray:
        """Labels float64 as parts of the range: low is 0, high is 1."""
        return (np.asarray(labels, np.float64) - self.low) / self.span

    def unscaled(self, values: np.ndarray) -> np.ndarray:
        """Labels float64 in their unit of scaled values, clipped to the range; never rounded."""
        return np.clip(self.low + np.asarray(values, np.float64) * self.span, self.low, self.high)

    def check(self, labels: np.ndarray, where: str) -> None:
        """Raises `BadInput` unless every label is a float64 within the range."""
        if labels.ndim != 1:
            raise BadInput(
                f"{where}: labels {list(labels.shape)} are several numbers for each image; one "
                "continuous label is supported, so choose one"
            )
        if labels.dtype != np.float64:
            raise BadInput(f"{where}: continuous labels are {labels.dtype}, expected float64")
        wrong = np.flatnonzero(~((labels >= self.low) & (labels <= self.high)))
        if wrong.size:
            raise BadInput(
                f"{where}: label {labels[wrong[0]]:g} of sample {wrong[0]} is not within "
                f"{self.low:g} … {self.high:g} {self.unit}; set label.range or leave it out"
            )

    def display(self, label: float) -> str:
        """A label with its unit, such as `−12.5 degrees`."""
        return f"{label:.6g} {self.unit}".replace("-", "−")


LabelSpace = Annotated[ClassLabels | ContinuousLabels, Field(discriminator="task")]


class LabelSettings(Record):
    """What a recipe says of continuous labels; what the source knows itself need not be given."""

    unit: str | None = Field(None, description="of continuous labels: degrees, years, bar")
    range: tuple[float, float] | None = Field(
        None, description="least and largest label, in its unit; networks see it as 0 … 1"
    )
    groups: int = Field(
        12, ge=1, description="equal parts of the range that quotas, fits and tables go by"
    )
