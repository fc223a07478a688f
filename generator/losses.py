"""The hinge loss of conditional GANs (Lim & Ye 2017, arXiv 1705.02894; used by BigGAN).

Every function takes scores float `[n]` and returns one value per sample, `[n]`.
"""

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
