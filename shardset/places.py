"""Where the images of samples lie in pools and releases, and the images read from there.

One that cannot be read is a text, not an exception: the others are still shown.
"""

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

from cgankd.shardset.errors import CorruptShard
from cgankd.shardset.pool.shards import tar_name

GROUPS_IN_MEMORY = 32  # row groups of about 4 MB each


@dataclass(frozen=True)
class PoolPlaces:
    """Where the PNG of each sample lies in a pool's tars; a length of 0: it failed."""

    folder: Path
    shard: np.ndarray  # int32 [n]
    offset: np.ndarray  # int64 [n]
    length: np.ndarray  # int64 [n]


@dataclass(frozen=True)
class ReleasePlaces:
    """Where the image of each sample lies in a release's Parquet; file −1: it was left out."""

    files: tuple[Path, ...]
    file: np.ndarray  # int32 [n]
    group: np.ndarray  # int32 [n]
    row: np.ndarray  # int32 [n]


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


def stored_pictures(
    places: PoolPlaces | ReleasePlaces, rows: Sequence[int] | np.ndarray
) -> list[Picture]:
    """The images of rows as they are stored, in their order; no other is read."""
    rows = np.asarray(rows, np.int64)
    if isinstance(places, PoolPlaces):
        pictures = dict(_from_pool(places, rows))
    else:
        pictures = dict(_from_release(places, rows))
    return [pictures[row] for row in rows.tolist()]


def release_places(path: Path, key: np.ndarray) -> ReleasePlaces:
    """Where a release folder holds the image of each key int64 `[n]`, ascending."""
    files = tuple(
        file
        for part in ("accepted", "rejected")
        for file in sorted((path / "data" / part).glob("*.parquet"))
    )
    places = ReleasePlaces(files, *(np.full(len(key), -1, np.int32) for _ in range(3)))
    for number, file in enumerate(files):
        try:
            with pq.ParquetFile(file) as parquet:
                keys_of_file = parquet.read(["key"])["key"].to_numpy()
                meta = parquet.metadata
                sizes = [meta.row_group(g).num_rows for g in range(meta.num_row_groups)]
        except (pa.ArrowException, OSError) as error:
            raise CorruptShard(f"{file} is cut or not Parquet; get the release again") from error
        rows = np.searchsorted(key, keys_of_file)
        places.file[rows] = number
        places.group[rows] = np.repeat(np.arange(len(sizes)), sizes)
        places.row[rows] = np.concatenate([np.arange(size) for size in sizes])
    return places


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
