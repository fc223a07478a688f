"""What a density ratio is fitted with, and the published settings."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cgankd.curation.density_ratio.judge import RatioLimits
from cgankd.curation.density_ratio.model import RatioNetwork
from cgankd.nets.feature_nets import FeatureKind, ResNet34, Small
from cgankd.shardset.records import Record


class RatioConfig(Record):
    """The conditional density ratio of real to generated samples, for subsampling the pool."""

    features: FeatureKind = Field(
        Small(), description="the net whose features of images the ratio is fitted on"
    )
    features_from: Literal["generated", "reals"] = Field(
        "generated",
        description="what the feature net learns from; reals: as published, and on small data the "
        "ratio then fails its diagnostics",
    )
    components: int | None = Field(
        16, ge=1, description="leading directions of the features; null: the features as they are"
    )
    network: RatioNetwork = Field(
        "small",
        description="small: one hidden layer; MLP3 to MLP9: the published widths; regression-MLP5: "
        "those published for continuous labels",
    )
    vicinity: float = Field(
        1.0,
        ge=0,
        description="m, of continuous labels: a real image is compared with generated ones whose "
        "labels are within m × the largest gap between real labels, where there are none with "
        "those of the nearest label (published: 0 to 6)",
    )
    rounds: int = Field(
        0,
        ge=0,
        description="continuous labels: how often a generated image is drawn again whose predicted "
        "label lies outside the vicinity (published: 200); above 0 such images get the ratio 0",
    )
    tolerance: float = Field(
        0.1,
        ge=0,
        description="how far outside the vicinity a predicted label may lie, as a part of the "
        "range (published: 0)",
    )
    balance: bool = Field(
        False, description="draw real images evenly over their labels, not as often as they occur"
    )
    penalty: float = Field(1.0, ge=0, description="λ, pulls the mean ratio to 1 (published: 0.01)")
    steps: int = Field(1000, ge=1, description="training steps of each ratio net")
    batch: int = Field(128, ge=2, description="real images in a step, and as many generated ones")
    learning_rate: float = Field(1e-3, gt=0, description="of Adam (published: 1e-4)")
    decay_at: Annotated[tuple[float, ...], Field(strict=False)] = Field(
        (), description="shares of the steps after which the learning rate falls to a tenth"
    )
    weight_decay: float = Field(1e-4, ge=0, description="L2 penalty")
    folds: int = Field(5, ge=2, description="parts of the real images; a ratio net leaves one out")
    members: int = Field(5, ge=1, description="ratio nets whose geometric mean is the ratio")
    calibrate: bool = Field(
        True, description="choose steps and strength by held-out loss; false: the last step as is"
    )
    checkpoints: int = Field(10, ge=1, description="numbers of steps to choose from")
    strengths: Annotated[tuple[float, ...], Field(strict=False)] = Field(
        (0.25, 0.5, 0.75, 1.0, 1.5, 2.0),
        description="powers of the ratio to choose from; 0, the constant ratio, is always one",
    )
    most_generated: int = Field(20_000, ge=100, description="generated samples used, at most")
    limits: RatioLimits = RatioLimits()

    @model_validator(mode="after")
    def _folds_suffice(self) -> Self:
        if self.members > self.folds:
            raise ValueError(f"members ({self.members}) are more than folds ({self.folds})")
        if self.features_from == "reals" and self.members == self.folds:
            raise ValueError(
                f"features_from reals with {self.members} members: have fewer members than folds, "
                "since a feature net may not know the real images that the ratio is judged by"
            )
        if any(strength <= 0 for strength in self.strengths):
            raise ValueError(f"strengths must be above 0, got {self.strengths}")
        return self


# The published recipe with the steps for CIFAR-100's 50,000 images (350 and 200 epochs). On small
# data its diagnostics fail, as they should.
PUBLISHED = RatioConfig(
    features=ResNet34(
        dim=3072,
        steps=68_000,
        batch=256,
        learning_rate=0.1,
        weight_decay=1e-4,
        shift=0.125,
    ),
    features_from="reals",
    components=None,
    network="MLP5",
    penalty=0.01,
    steps=39_000,
    batch=256,
    learning_rate=1e-4,
    decay_at=(0.4, 0.75),
    members=1,
    calibrate=False,
)
