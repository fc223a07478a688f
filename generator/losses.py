"""What the two players of a GAN pay; every function takes scores float `[n]` and returns one value
per sample, `[n]`.

Hinge: Lim & Ye 2017 (arXiv 1705.02894), used by BigGAN. Vanilla: the binary cross-entropy of
Goodfellow et al. 2014 (arXiv 1406.2661) with its non-saturating form for the generator; scores
are logits.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch.nn.functional as F
from torch import Tensor


def hinge_real(scores: Tensor) -> Tensor:
    """max(0, 1 − D(x)): what the discriminator pays for real images."""
    return F.relu(1 - scores)


def hinge_fake(scores: Tensor) -> Tensor:
    """max(0, 1 + D(G(z))): what the discriminator pays for generated images."""
    return F.relu(1 + scores)


def hinge_generator(scores: Tensor) -> Tensor:
    """−D(G(z)): what the generator pays."""
    return -scores


def vanilla_real(scores: Tensor) -> Tensor:
    """−log σ(D(x)): what the discriminator pays for real images, the generator for its own."""
    return F.softplus(-scores)


def vanilla_fake(scores: Tensor) -> Tensor:
    """−log(1 − σ(D(G(z)))): what the discriminator pays for generated images."""
    return F.softplus(scores)


class GanLoss(NamedTuple):
    """What the discriminator pays for real and generated images, and what the generator pays.

    >>> import torch
    >>> LOSSES["hinge"].real(torch.tensor([-1.0, 0.5, 2.0]))
    tensor([2.0000, 0.5000, 0.0000])
    """

    real: Callable[[Tensor], Tensor]
    fake: Callable[[Tensor], Tensor]
    generator: Callable[[Tensor], Tensor]


LossName = Literal["hinge", "vanilla"]

LOSSES: dict[LossName, GanLoss] = {
    "hinge": GanLoss(hinge_real, hinge_fake, hinge_generator),
    "vanilla": GanLoss(vanilla_real, vanilla_fake, vanilla_real),
}
