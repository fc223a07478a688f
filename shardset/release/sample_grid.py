"""A picture of a release's samples: a few of each class, or part of the range."""

from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from cgankd.shardset.images import channels_first, decode_png, encode_png
from cgankd.shardset.labels import LabelSpace
from cgankd.shardset.release.parquet import images_of

COLUMNS = 10  # images of a group, those with the lowest keys
MOST_ROWS = 20  # groups, those with the lowest labels
LEAST_SIDE = 32  # px; smaller images are enlarged by whole factors
MOST_SIDE = 64  # px; larger ones are shrunk
GAP = 2
BACKGROUND = 255


def sample_grid(kept: pa.Table, pool: Path, space: LabelSpace) -> bytes:
    """The PNG of a grid with a row for each group of the label space that has samples."""
    groups = space.group_of(kept["label"].to_numpy())
    chosen = [np.flatnonzero(groups == group)[:COLUMNS] for group in np.unique(groups)[:MOST_ROWS]]
    images = images_of(pool, kept.take(np.concatenate(chosen))).field("bytes").to_pylist()
    cells = iter([_shrunk(decode_png(image)) for image in images])
    rows = [[next(cells) for _ in row] for row in chosen]
    channels, height, width = rows[0][0].shape
    factor = -(-LEAST_SIDE // min(height, width))
    down, right = height * factor + GAP, width * factor + GAP
    grid = np.full((channels, len(rows) * down, COLUMNS * right), BACKGROUND, np.uint8)
    for i, row in enumerate(rows):
        for j, pixels in enumerate(row):
            large = pixels.repeat(factor, axis=1).repeat(factor, axis=2)
            place = (slice(i * down, (i + 1) * down - GAP), slice(j * right, (j + 1) * right - GAP))
            grid[:, *place] = large
    return encode_png(grid)


def _shrunk(pixels: np.ndarray) -> np.ndarray:
    """The pixels `[c, h, w]` with no side over `MOST_SIDE`."""
    if max(pixels.shape[1:]) <= MOST_SIDE:
        return pixels
    picture = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
    picture.thumbnail((MOST_SIDE, MOST_SIDE))
    return channels_first(np.array(picture))
