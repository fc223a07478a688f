"""Writes the Parquet files of a release, on as many threads as there are files or workers.

PNG bytes go from tar to Parquet undecoded. What a file holds is decided before any is written, so
the number of workers changes no byte. Reading, hashing and compressing release Python's lock, so
threads are enough.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cgankd.shardset.files import sync_file
from cgankd.shardset.identity import key_text
from cgankd.shardset.labels import LabelSpace
from cgankd.shardset.pool.shards import tar_name
from cgankd.shardset.release.tables import PLACE_COLUMNS, SCORES, release_schema

FILE_BYTES = 256 << 20  # a Hub commit may hold few files, so they are large
GROUP_BYTES = 4 << 20  # a Hub viewer page reads whole row groups, so they are small


def write_images(
    root: Path, folder: str, table: pa.Table, pool: Path, space: LabelSpace, workers: int
) -> None:
    """Parquet files with `image` first; a failed sample, which is never kept, has a null image.

    The rows are mixed, since a pool lies in the order of its labels: whoever streams the set, or
    looks at its first page, then sees all of them.
    """
    table = table.take(mixed(table["key"].to_numpy()))

    def with_images(rows: pa.Table) -> pa.Table:
        return rows.add_column(0, "image", images_of(pool, rows))

    # What the other columns take is small beside any PNG.
    sizes = table["png_length"].to_numpy() + 64
    _write_split(root / folder, table, sizes, with_images, release_schema(folder, space), workers)


def write_scores(root: Path, table: pa.Table, space: LabelSpace, workers: int) -> None:
    """Parquet files with a row for every key, without images."""
    row_bytes = np.full(len(table), 1 + table.nbytes // len(table))
    schema = release_schema(SCORES, space)
    _write_split(root / SCORES, table, row_bytes, lambda rows: rows, schema, workers)


def mixed(keys: np.ndarray) -> np.ndarray:
    """An order int64 `[n]` of keys int64 `[n]` that is as good as random and the same everywhere:
    by a multiplication and shifts that send no two keys to one number (SplitMix64, Steele et al.,
    2014).
    """
    with np.errstate(over="ignore"):
        value = keys.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            value = (value ^ (value >> np.uint64(shift))) * np.uint64(factor)
        value ^= value >> np.uint64(31)
    return np.argsort(value)


def images_of(pool: Path, rows: pa.Table) -> pa.StructArray:
    """The PNG bytes and file names of rows that say where in a pool their PNGs lie."""
    places = list(zip(*(rows[name].to_pylist() for name in PLACE_COLUMNS), strict=True))
    pngs: list[bytes | None] = [None] * len(places)
    by_shard = sorted(range(len(places)), key=lambda row: places[row])
    for shard, group in groupby(by_shard, key=lambda row: places[row][0]):
        with open(pool / tar_name(shard), "rb") as file:
            for row in group:
                _, offset, length = places[row]
                pngs[row] = os.pread(file.fileno(), length, offset) if length else None
    names = [f"{key_text(key)}.png" for key in rows["key"].to_pylist()]
    return pa.StructArray.from_arrays(
        [pa.array(pngs, pa.binary()), pa.array(names, pa.string())],
        ["bytes", "path"],
        mask=pa.array([png is None for png in pngs]),
    )


def _write_split(
    folder: Path,
    table: pa.Table,
    row_bytes: np.ndarray,
    complete: Callable[[pa.Table], pa.Table],
    schema: pa.Schema,
    workers: int,
) -> None:
    """`train-00000-of-000NN.parquet`: files and row groups of about their constants' bytes."""
    if not len(table):
        return
    folder.mkdir(parents=True)
    ends = np.cumsum(row_bytes)
    starts = [*np.unique((ends - row_bytes) // FILE_BYTES, return_index=True)[1], len(table)]
    group_rows = int(max(1, GROUP_BYTES // row_bytes.mean()))

    def write(number: int, start: int, stop: int) -> None:
        path = folder / f"train-{number:05d}-of-{len(starts) - 1:05d}.parquet"
        with pq.ParquetWriter(path, schema, compression="zstd", write_page_index=True) as writer:
            for first in range(start, stop, group_rows):
                rows = complete(table.slice(first, min(group_rows, stop - first)))
                writer.write_table(rows.select(schema.names).cast(schema))
        sync_file(path)

    with ThreadPoolExecutor(workers) as threads:
        files = [
            threads.submit(write, number, int(start), int(stop))
            for number, (start, stop) in enumerate(pairwise(starts))
        ]
        for file in files:
            file.result()
