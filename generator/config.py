"""What a recipe says about the generator: its network and its training."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Network = Literal["biggan-cifar", "biggan-small"]
Augmentation = Literal["colour", "translation", "cutout"]


class GeneratorConfig(BaseModel):
    """The generator and its discriminator; image size, channels and classes come with the data."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    network: Network = Field(
        "biggan-small",
        description="biggan-cifar: BigGAN's CIFAR form, 4·width channels at every resolution; "
        "biggan-small: width channels at full resolution, doubled at each half, at most 4·width",
    )
    width: int = Field(
        32, ge=8, multiple_of=8, description="base channels; BigGAN's CIFAR form: 64"
    )
    latent_dim: int = Field(
        64, ge=2, description="length of the latent z; BigGAN's CIFAR form: 128"
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
    loss: Literal["hinge"] = "hinge"
    augment: Annotated[tuple[Augmentation, ...], Field(strict=False)] = Field(
        ("colour", "translation", "cutout"),
        description="differentiable augmentation of everything the discriminator sees",
    )
    prior: Literal["keep", "balanced"] = Field(
        "keep", description="classes as frequent as in the real images, or equally frequent"
    )
    ema_decay: float = Field(
        0.999, ge=0, lt=1, description="per generator step, weights and statistics"
    )
    ema_start: int = Field(
        500, ge=0, description="until this step the average is the network itself"
    )
    initial: Literal["normal", "orthogonal"] = Field(
        "orthogonal", description="initial weights: N(0, 0.02²), as BigGAN on CIFAR, or orthogonal"
    )
    log_every: int = Field(100, ge=1, description="steps per line of metrics.jsonl")
    grid_every: int = Field(1000, ge=1, description="steps between sample grids")
    checkpoint_every: int = Field(1000, ge=1, description="steps between checkpoints")

    @model_validator(mode="after")
    def _resumes_between_log_lines(self) -> "GeneratorTraining":
        if self.checkpoint_every % self.log_every:
            raise ValueError(
                f"checkpoint_every ({self.checkpoint_every}) must be a multiple of log_every "
                f"({self.log_every}), so that a resumed run writes the same metrics"
            )
        return self
