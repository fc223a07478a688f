"""What to keep of a pool: a policy is data in the recipe."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class Policy(BaseModel):
    """Subsample by density ratio, filter by teacher, replace labels, meet quotas: in that order.

    A label is a class, or one of the equal parts of a range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    subsample: Literal["none", "rejection", "budget"] = Field(
        "budget",
        description="rejection: accept with r/M, M the label's largest ratio (cDR-RS); budget: "
        "accept with min(1, c·r), c solved per label so that the mean acceptance is `accept`",
    )
    accept: float = Field(0.5, gt=0, le=1, description="mean acceptance of `budget`")
    filter: Literal["none", "quantile"] = Field(
        "quantile", description="quantile: keep teacher errors below the ρ-quantile"
    )
    scope: Literal["per-label", "global"] = Field(
        "per-label", description="one quantile a label, or one for all"
    )
    rho: float = Field(0.9, gt=0, le=1, description="ρ: the share that passes the filter")
    relabel: bool = Field(False, description="replace the assigned label by the teacher's")
    quota: int | None = Field(
        None,
        gt=0,
        description="samples kept of each assigned label, or part of the range, lowest keys first: "
        "evens the labels out; null: all",
    )
