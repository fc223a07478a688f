"""What a recipe says about a generator's training."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Augmentation = Literal["colour", "translation", "cutout"]
LossName = Literal["hinge", "vanilla"]
Vicinity = Literal["hard", "soft"]


class EmbeddingTraining(BaseModel):
    """How the label embedding of continuous labels is trained, before the generator."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    network: Literal["small", "resnet34"] = Field(
        "small", description="image → label: resnet34 is CcGAN's, small suits CPUs"
    )
    image_steps: int = Field(400, ge=1, description="steps of the image → label net")
    label_steps: int = Field(1000, ge=1, description="steps of the label → embedding net")
    batch: int = Field(64, ge=2, description="images or labels per step")
    lr: float = Field(1e-3, gt=0, description="Adam's rate at the start; it falls to 0")


class KeepBest(BaseModel):
    """Which step's average is kept: the one whose samples lie nearest to the budget's validation
    images with like labels, by the kernel distance (KID) in the features of one small net.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    after: float = Field(
        1 / 3, ge=0, lt=1, description="part of the iterations before the first candidate"
    )
    every: int = Field(200, ge=1, description="steps between candidates")
    patience: int = Field(
        5, ge=1, description="candidates in a row without a better one that end the training"
    )


class GeneratorTraining(BaseModel):
    """How the generator is trained; the defaults suit some hundred small images on a CPU."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    iterations: int = Field(4000, ge=1, description="generator steps")
    batch: int = Field(64, ge=2, description="images per step, real and generated each")
    d_steps: int = Field(1, ge=1, description="discriminator steps per generator step")
    lr_g: float = Field(2e-4, gt=0)
    lr_d: float = Field(2e-4, gt=0)
    betas: Annotated[tuple[float, float], Field(strict=False)] = Field(
        (0.0, 0.999), description="Adam's two decay rates, for both networks"
    )
    loss: LossName = Field(
        "hinge", description="vanilla: binary cross-entropy, non-saturating for the generator"
    )
    augment: Annotated[tuple[Augmentation, ...], Field(strict=False)] = Field(
        ("colour", "translation", "cutout"),
        description="differentiable augmentation of everything the discriminator sees",
    )
    prior: Literal["keep", "balanced"] = Field(
        "keep", description="labels as frequent as in the real images, or equally frequent"
    )
    vicinity: Vicinity = Field(
        "soft",
        description="continuous labels: images around a target label count fully within κ (hard) "
        "or with weight exp(−κ·distance²) (soft)",
    )
    kappa: float = Field(
        -2.0,
        description="of the vicinity, labels scaled to 0 … 1; −m: m times the largest gap "
        "between labels, or one over its square (soft)",
    )
    sigma: float | None = Field(
        None, ge=0, description="of the noise on target labels, scaled; left out: by CcGAN's rule"
    )
    embedding: EmbeddingTraining = EmbeddingTraining()
    ema_decay: float = Field(
        0.999, ge=0, lt=1, description="per generator step, weights and statistics"
    )
    ema_start: int = Field(
        500, ge=0, description="until this step the average is the network itself"
    )
    keep_best: KeepBest | None = Field(
        None, description="keep the best step's average and stop early; null: the last step's"
    )
    initial: Literal["normal", "orthogonal"] = Field(
        "orthogonal", description="initial weights: N(0, 0.02²), as BigGAN on CIFAR, or orthogonal"
    )
    log_every: int = Field(100, ge=1, description="steps per line of metrics.jsonl")
    grid_every: int = Field(1000, ge=1, description="steps between sample grids")
    checkpoint_every: int = Field(1000, ge=1, description="steps between checkpoints")

    @model_validator(mode="after")
    def _fits_together(self) -> "GeneratorTraining":
        if self.kappa == 0:
            raise ValueError("kappa must not be 0: give a width, or −m for m times the largest gap")
        if self.checkpoint_every % self.log_every:
            raise ValueError(
                f"checkpoint_every ({self.checkpoint_every}) must be a multiple of log_every "
                f"({self.log_every}), so that a resumed run writes the same metrics"
            )
        if self.keep_best and self.keep_best.every % self.log_every:
            raise ValueError(
                f"keep_best.every ({self.keep_best.every}) must be a multiple of log_every "
                f"({self.log_every}), whose lines of metrics.jsonl hold the scores"
            )
        return self
