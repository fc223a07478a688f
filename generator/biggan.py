"""BigGAN as a recipe names it (Brock et al. 2019, arXiv 1809.11096)."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cgankd.generator.interface import ImageSpace
from cgankd.generator.residual import ResidualGenerator, bottom_and_doublings, growing_widths


class BigGAN(BaseModel):
    """BigGAN without shared embedding or hierarchical latent, in two forms.

    At 32 pixels, 3 channels and width 64 the parameters of `biggan-cifar` bear the names and
    shapes of ajbrock/BigGAN-PyTorch's generator and mean the same.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["biggan-cifar", "biggan-small"] = Field(
        "biggan-small",
        description="biggan-cifar: BigGAN's CIFAR form, 4·width channels at every resolution; "
        "biggan-small: width channels at full resolution, doubled at each half, at most 4·width",
    )
    width: int = Field(32, ge=8, multiple_of=8, description="base channels; BigGAN's: 64")
    latent_dim: int = Field(64, ge=2, description="length of the latent z; BigGAN's: 128")

    def widths(self, image_size: int) -> list[int]:
        """Channels from the lowest resolution to the full one.

        >>> BigGAN(kind="biggan-small", width=32).widths(32), BigGAN(kind="biggan-cifar").widths(8)
        ([128, 128, 64, 32], [128, 128])
        """
        if self.kind == "biggan-small":
            return growing_widths(self.width, image_size, most=4)
        _, doublings = bottom_and_doublings(image_size)
        return [4 * self.width] * (doublings + 1)

    def generator(self, images: ImageSpace) -> ResidualGenerator:
        """The generator, freshly initialised."""
        # As published at 32 pixels, the CIFAR form's discriminator ends in two blocks that keep
        # the size.
        keep = 2 if self.kind == "biggan-cifar" else 1
        return ResidualGenerator(images, self.widths(images.size), self.latent_dim, keep=keep)
