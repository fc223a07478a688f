"""Images of samples by their place on disk; one that cannot be read is a text, not an exception."""

import base64
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cgankd.app.review.subject import Subject
from cgankd.shardset.images import BadImage, decode_png, encode_png
from cgankd.shardset.pool.shards import tar_name
from cgankd.shardset.samples import PoolPlaces, ReleasePlaces

GROUPS_IN_MEMORY = 32  # row groups of about 4 MB each


@dataclass(frozen=True)
class Picture:
    """One image as a PNG, or why there is none."""

    png: bytes | None
    error: str | None = None

    @property
    def uri(self) -> str | None:
        """The image as `data:image/png;base64,…`."""
        if self.png is None:
            return None
        return f"data:image/png;base64,{base64.b64encode(self.png).decode()}"


def picture_of(pixels: np.ndarray, side: int = 0) -> Picture:
    """Pixels uint8 `[c, h, w]`, each repeated so often that no side is under `side`."""
    times = max(1, -(-side // max(pixels.shape[1:])))
    return Picture(encode_png(pixels.repeat(times, axis=1).repeat(times, axis=2)))


def stored_pictures(subject: Subject, rows: Sequence[int] | np.ndarray) -> list[Picture]:
    """The images of rows as they are stored, in their order."""
    rows = np.asarray(rows, np.int64)
    places = subject.places
    read = _from_pool if isinstance(places, PoolPlaces) else _from_release
    found = dict(read(places, rows))  # type: ignore[arg-type]
    return [found[row] for row in rows.tolist()]


def thumbnails(subject: Subject, rows: Sequence[int] | np.ndarray, side: int = 96) -> list[Picture]:
    """The images of rows, their pixels repeated to at least `side` a side: sharp at any zoom."""
    return [_enlarged(picture, side) for picture in stored_pictures(subject, rows)]


def _enlarged(picture: Picture, side: int) -> Picture:
    if picture.png is None:
        return picture
    try:
        return picture_of(decode_png(picture.png), side)
    except BadImage as error:
        return Picture(None, f"the image {error}")


def _from_pool(places: PoolPlaces, rows: np.ndarray) -> Iterable[tuple[int, Picture]]:
    """Each shard is opened once and its images read by offset."""
    by_shard = sorted(rows.tolist(), key=lambda row: places.shard[row])
    for shard, group in groupby(by_shard, key=lambda row: int(places.shard[row])):
        path = places.folder / tar_name(shard)
        try:
            handle = os.open(path, os.O_RDONLY)
        except OSError as error:
            for row in group:
                yield row, Picture(None, f"{path.name}: {error.strerror}")
            continue
        try:
            for row in group:
                yield row, _pread(handle, path, int(places.offset[row]), int(places.length[row]))
        finally:
            os.close(handle)


def _pread(handle: int, path: Path, offset: int, length: int) -> Picture:
    if not length:
        return Picture(None, "the generator failed to make this image")
    try:
        png = os.pread(handle, length, offset)
    except OSError as error:
        return Picture(None, f"{path.name}: {error.strerror}")
    if len(png) != length:
        return Picture(None, f"{path.name} is cut; run produce again")
    return Picture(png)


def _from_release(places: ReleasePlaces, rows: np.ndarray) -> Iterable[tuple[int, Picture]]:
    """Of each row group that holds a row, the image column alone is read."""

    def place(row: int) -> tuple[int, int]:
        return int(places.file[row]), int(places.group[row])

    for (file, number), group in groupby(sorted(rows.tolist(), key=place), key=place):
        if file < 0:
            for row in group:
                yield row, Picture(None, "this image is not part of the release")
            continue
        path = places.files[file]
        try:
            images = _row_group(path, path.stat().st_mtime_ns, number)
        except (pa.ArrowException, OSError):
            for row in group:
                yield row, Picture(None, f"{path.name} is cut or not Parquet")
            continue
        for row in group:
            png = images[int(places.row[row])].as_py()
            yield row, Picture(png, None if png else "the generator failed to make this image")


@lru_cache(maxsize=GROUPS_IN_MEMORY)
def _row_group(path: Path, modified: int, number: int) -> pa.ChunkedArray:
    """The PNG bytes of a row group; `modified` makes a replaced file another one."""
    with pq.ParquetFile(path) as file:
        return pa.chunked_array(
            chunk.field("bytes") for chunk in file.read_row_group(number, ["image"])["image"].chunks
        )
