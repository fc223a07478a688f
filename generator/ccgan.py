"""The bodies of CcGAN as a recipe names them (Ding et al. 2021, arXiv 2011.07379)."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from cgankd.generator.interface import ImageSpace
from cgankd.generator.residual import ResidualGenerator, growing_widths


class CcGAN(BaseModel):
    """BigGAN's residual blocks with up to 16·width channels.

    The generator of `sngan` has no spectral normalisation; `sagan` has it, and self-attention at
    half the resolution in both networks.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kind: Literal["sngan", "sagan"] = Field(
        description="CcGAN's bodies, doubled up to 16·width; sagan: with self-attention"
    )
    width: int = Field(32, ge=8, multiple_of=8, description="base channels; CcGAN's: 64")
    latent_dim: int = Field(64, ge=2, description="length of the latent z; CcGAN's: 256")

    def widths(self, image_size: int) -> list[int]:
        """Channels from the lowest resolution to the full one.

        >>> CcGAN(kind="sngan", width=64).widths(64)
        [1024, 512, 256, 128, 64]
        """
        return growing_widths(self.width, image_size, most=16)

    def generator(self, images: ImageSpace) -> ResidualGenerator:
        """The generator, freshly initialised."""
        sagan = self.kind == "sagan"
        widths = self.widths(images.size)
        return ResidualGenerator(images, widths, self.latent_dim, spectral=sagan, attention=sagan)
