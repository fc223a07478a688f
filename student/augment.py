"""Augmentation of a batch of pixels; every random number comes from the seed it is given."""

from typing import Literal

import torch
import torch.nn.functional as F

Augmentation = Literal["none", "flip", "shift", "shift-flip"]


def augmented(pixels: torch.Tensor, how: Augmentation, seed: int) -> torch.Tensor:
    """The uint8 batch `[n, c, h, w]` with each image shifted, mirrored or both, at random.

    `shift` moves by up to an eighth of the width each way (4 px of 32, as is usual for CIFAR),
    and what enters is black; `flip` mirrors half of the images.
    """
    if how == "none":
        return pixels
    random = torch.Generator().manual_seed(seed)  # on the CPU: the same numbers on every device
    if how != "flip":
        pixels = _shifted(pixels, random)
    if how != "shift":
        mirrored = torch.rand(len(pixels), generator=random) < 0.5
        mirrored = mirrored.to(pixels.device)[:, None, None, None]
        pixels = torch.where(mirrored, pixels.flip(-1), pixels)
    return pixels


def _shifted(pixels: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    count, _, height, width = pixels.shape
    reach = max(1, width // 8)
    offsets = torch.randint(2 * reach + 1, (2, count), generator=random).to(pixels.device)
    # Every crop of the padded batch as a view; indexing it copies just the crops asked for.
    crops = F.pad(pixels, (reach,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    samples = torch.arange(count, device=pixels.device)
    return crops[samples, :, offsets[0], offsets[1]]
