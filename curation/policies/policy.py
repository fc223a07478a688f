"""What to keep of a pool: a policy is data in the recipe."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Threshold = Literal["calibrated"] | Annotated[float, Field(allow_inf_nan=False)]


class Policy(BaseModel):
    """Subsample by density ratio, filter by teacher, drop copies of real images, outliers and
    duplicates, replace labels, meet quotas: in that order, which decides the reason of a drop.

    A label is a class, or one of the equal parts of a range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    subsample: Literal["none", "rejection", "budget"] = Field(
        "budget",
        description="rejection: accept with r/M, M the label's largest ratio (cDR-RS); budget: "
        "accept with min(1, c·r), c solved per label so that the mean acceptance is `accept`",
    )
    accept: float = Field(0.5, gt=0, le=1, description="mean acceptance of `budget`")
    filter: Literal["none", "quantile", "band", "agreement"] = Field(
        "quantile",
        description="quantile: keep teacher errors below the ρ-quantile; band: drop the easiest, "
        "below the `band_low`-quantile, as well; agreement: keep what the teacher gives the "
        "assigned label. The more is dropped, the less may be left to learn: on Fashion-MNIST "
        "filtering after replacing labels cost 0.8 points of accuracy",
    )
    scope: Literal["per-label", "global"] = Field(
        "per-label", description="one quantile a label, or one for all"
    )
    rho: float = Field(0.9, gt=0, le=1, description="ρ: the share that passes the filter")
    band_low: float = Field(
        0.1, ge=0, lt=1, description="share of `band` that is dropped as too easy; below ρ"
    )
    agreement_within: float | None = Field(
        None,
        ge=0,
        allow_inf_nan=False,
        description="largest |teacher − label| of `agreement`, in the unit of continuous labels; "
        "null for classes",
    )
    memorised: Threshold | None = Field(
        None,
        description="drop what is this similar to a real training image, in [−1, 1]; calibrated: "
        "more alike than different real images are; null: off",
    )
    outliers: Threshold | None = Field(
        None,
        description="drop what is further from its label's centre than this many times the median "
        "real image; calibrated: further than real images are; null: off",
    )
    duplicates: Threshold | None = Field(
        None,
        description="of samples connected by this similarity, in [−1, 1], keep the one with the "
        "least teacher error; calibrated: more alike than different real images are; null: off",
    )
    relabel: bool = Field(False, description="replace the assigned label by the teacher's")
    quota: int | None = Field(
        None,
        gt=0,
        description="samples kept of each assigned label, or part of the range, lowest keys first: "
        "evens the labels out; null: all",
    )
    diversity: Literal["none", "farthest", "kmeans"] = Field(
        "none",
        description="which samples the quota keeps. none: the lowest keys; farthest: each time the "
        "one least like those kept; kmeans: the nearest to the centres of `quota` clusters",
    )

    @model_validator(mode="after")
    def _is_possible(self) -> Self:
        if self.filter == "band" and self.band_low >= self.rho:
            raise ValueError(f"band_low {self.band_low:g} must be below rho {self.rho:g}")
        if self.diversity != "none" and self.quota is None:
            raise ValueError(f"diversity {self.diversity} chooses within a quota: give quota")
        return self

    @property
    def needs_neighbours(self) -> bool:
        """Whether it decides by neighbours."""
        return any(v is not None for v in (self.memorised, self.outliers, self.duplicates))
