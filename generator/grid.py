"""Samples side by side, for the eye."""

import numpy as np
import torch

from shardset.images import encode_png, to_pixels

GAP = 1  # black pixels between samples


def grid_png(images: torch.Tensor, columns: int) -> bytes:
    """The PNG of images float `[n, c, h, w]` in rows of `columns`, n a multiple of it."""
    pixels = np.pad(to_pixels(images), ((0, 0), (0, 0), (0, GAP), (0, GAP)))
    count, channels, height, width = pixels.shape
    rows = pixels.reshape(count // columns, columns, channels, height, width)
    tiled = rows.transpose(2, 0, 3, 1, 4).reshape(channels, -1, columns * width)
    return encode_png(np.ascontiguousarray(tiled[:, :-GAP, :-GAP]))
