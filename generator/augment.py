"""Differentiable augmentation of what the discriminator sees, real and generated alike.

Zhao et al. 2020 (arXiv 2006.10738): colour, translation by up to 1/8 and a cut-out square of half
the size. The random numbers are given, so a step can be repeated; nothing is gathered or
scattered, so the gradient is the same in every run.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

Augmentation = Literal["colour", "translation", "cutout"]

UNIFORMS = 7  # per image: brightness, saturation, contrast, and two places each


def augment(images: Tensor, uniforms: Tensor, kinds: Sequence[Augmentation]) -> Tensor:
    """Images float `[n, c, h, w]`, augmented; uniforms float `[n, UNIFORMS]` in [0, 1).

    >>> augment(torch.ones(1, 1, 4, 4), torch.zeros(1, UNIFORMS), ["cutout"])[0, 0, :2]
    tensor([[0., 1., 1., 1.],
            [1., 1., 1., 1.]])
    """
    if "colour" in kinds:
        images = _colour(images, uniforms[:, :3])
    if "translation" in kinds:
        images = _translate(images, uniforms[:, 3:5])
    if "cutout" in kinds:
        images = _cut_out(images, uniforms[:, 5:7])
    return images


def _colour(images: Tensor, uniforms: Tensor) -> Tensor:
    """Brightness ±½, saturation ×0…2 (where there is colour), contrast ×½…1½."""
    brightness, saturation, contrast = uniforms[:, :, None, None, None].unbind(1)
    images = images + (brightness - 0.5)
    if images.shape[1] > 1:
        images = torch.lerp(images.mean(1, keepdim=True), images, 2 * saturation)
    return torch.lerp(images.mean((1, 2, 3), keepdim=True), images, contrast + 0.5)


def _translate(images: Tensor, uniforms: Tensor) -> Tensor:
    """Whole pixels up to an eighth of the size each way; what comes in from outside is 0."""
    # A shift along an axis is a product with a 0/1 matrix: exact, and its gradient is one too.
    rows = _shift_matrices(images.shape[2], uniforms[:, 0]).to(images.dtype)
    columns = _shift_matrices(images.shape[3], uniforms[:, 1]).to(images.dtype)
    return rows[:, None] @ images @ columns[:, None].transpose(2, 3)


def _shift_matrices(size: int, uniforms: Tensor) -> Tensor:
    """Matrices `[n, size, size]` that move a vector by up to ±size/8."""
    reach = max(1, round(size / 8))
    shifts = (uniforms * (2 * reach + 1)).floor().long() - reach
    places = torch.arange(size, device=uniforms.device)
    return places[None, :, None] == places[None, None, :] + shifts[:, None, None]


def _cut_out(images: Tensor, uniforms: Tensor) -> Tensor:
    """A square of half the size becomes 0; its centre is anywhere, so part may lie outside."""
    inside_rows = _in_window(images.shape[2], uniforms[:, 0])[:, None, :, None]
    inside_columns = _in_window(images.shape[3], uniforms[:, 1])[:, None, None, :]
    return images.masked_fill(inside_rows & inside_columns, 0.0)


def _in_window(size: int, uniforms: Tensor) -> Tensor:
    """Which of `size` places lie in a window of size/2 around a random place, bool `[n, size]`."""
    half = (size // 2) // 2
    start = (uniforms * (size + 1)).floor()[:, None] - half
    places = torch.arange(size, device=uniforms.device)[None]
    return (places >= start) & (places < start + size // 2)
