"""What every generator offers, whatever it is made of and whether or not it is trained here."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
from torch import Tensor, nn

from cgankd.shardset.labels import LabelSpace


class ImageSpace(NamedTuple):
    """What a generator makes: images `[channels, size, size]`, and the labels it is given."""

    size: int
    channels: int
    space: LabelSpace


class Generator(nn.Module, ABC):
    """A conditional generator: numbers that belong to a key, and a condition, become an image."""

    space: LabelSpace

    @abstractmethod
    def draws(self, seed: int, keys: range) -> np.ndarray:
        """What the samples of some keys need of their random streams, float32 `[n, …]`.

        Each key's numbers depend on the seed and the key alone (`shardset.identity`), so that any
        sample can be made again, in any order.
        """

    @abstractmethod
    def sample(self, draws: Tensor, conditions: Tensor) -> Tensor:
        """Images float32 `[n, c, h, w]` in [−1, 1].

        draws are those of `n` keys, in the number format to compute in; conditions `[n]` are the
        label space's targets: classes int64, or labels float32 scaled to [0, 1].
        """


class Discriminator(nn.Module, ABC):
    """The opponent of a generator in training."""

    @abstractmethod
    def forward(self, images: Tensor, conditions: Tensor) -> Tensor:
        """Scores float32 `[n]`, high for real.

        images float `[n, c, h, w]` in [−1, 1]; conditions as the generator's `embedding` gives
        them. The layers compute in the images' dtype.
        """


class AdversarialGenerator(Generator):
    """A generator that is trained here, against a discriminator; any other is taken as it is.

    Its draws are latents `[n, latent_dim]`; what `sample` gives of them has a gradient.
    """

    latent_dim: int
    embedding: nn.Module  # of conditions `[n]`: fitted before the networks and frozen meanwhile

    @abstractmethod
    def discriminator(self) -> Discriminator:
        """Its opponent, freshly initialised."""
