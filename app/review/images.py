"""Images of samples, enlarged for a page."""

from collections.abc import Sequence

import numpy as np

from cgankd.app.review.subject import Subject
from cgankd.shardset.images import BadImage, decode_png, encode_png
from cgankd.shardset.places import Picture, stored_pictures


def picture_of(pixels: np.ndarray, side: int = 0) -> Picture:
    """Pixels uint8 `[c, h, w]`, each repeated so often that no side is under `side`."""
    times = max(1, -(-side // max(pixels.shape[1:])))
    return Picture(encode_png(pixels.repeat(times, axis=1).repeat(times, axis=2)))


def thumbnails(subject: Subject, rows: Sequence[int] | np.ndarray, side: int = 96) -> list[Picture]:
    """The images of rows, their pixels repeated to at least `side` a side: sharp at any zoom."""
    return [_enlarged(picture, side) for picture in stored_pictures(subject.places, rows)]


def _enlarged(picture: Picture, side: int) -> Picture:
    if picture.png is None:
        return picture
    try:
        return picture_of(decode_png(picture.png), side)
    except BadImage as error:
        return Picture(None, f"the image {error}")
