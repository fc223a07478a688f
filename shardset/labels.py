"""The label space: what a label is, how it is named and how it is written."""

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from shardset.errors import BadInput


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
    def count(self) -> int:
        """The number of classes."""
        return len(self.names)

    def check(self, labels: np.ndarray, where: str) -> None:
        """Raises `BadInput` unless every label is an int64 in 0 … count − 1."""
        if labels.dtype != np.int64:
            raise BadInput(f"{where}: class labels are {labels.dtype}, expected int64")
        wrong = np.flatnonzero((labels < 0) | (labels >= self.count))
        if wrong.size:
            raise BadInput(
                f"{where}: label {labels[wrong[0]]} of sample {wrong[0]} is not one of the "
                f"{self.count} classes (0 to {self.count - 1})"
            )

    def display(self, label: int) -> str:
        """The name of one class."""
        return self.names[int(label)]
