"""A release's accepted images decoded once, in one file that every later run maps into memory.

The file is named by the sha256 of the manifest, so it belongs to one content and never goes stale.
Its marker holds its sha256, which is compared at every opening: that takes a second for each
gigabyte or two, far less than a network takes to see the images once, and reads them into the
page cache on the way.
"""

import fcntl
import math
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cgankd.shardset.errors import BadInput, CorruptShard, ReleaseError
from cgankd.shardset.files import atomic_path, read_json, sha256_file, write_json
from cgankd.shardset.labels import LabelSpace
from cgankd.shardset.release.accepted import (
    IMAGES,
    Image,
    accepted_files,
    decode_into,
    decode_one,
    open_parquet,
    pngs_of,
)
from cgankd.shardset.release.manifest import MANIFEST, Manifest

FORMAT_VERSION = 1


@dataclass(frozen=True)
class _Job:
    """A row group of a Parquet file, and where its pixels go."""

    parquet: Path
    where: str  # the file's name in errors
    space: LabelSpace
    group: int
    rows: int
    target: Path  # the .npy
    first: int  # row of `target`


def decoded_pixels(
    release: Path,
    manifest: Manifest,
    cache: Path,
    *,
    note: Callable[[str], None] = lambda _line: None,
) -> np.ndarray:
    """Pixels uint8 `[n, c, h, w]` of a verified release's accepted images, in the rows' order.

    They are mapped from a file in `cache`, so do not write to them. They are decoded
    once, on every core: a file that is not what its marker says is made anew, and `note` told.
    `ReleaseError` names the key of an image that does not decode or is not like the first one,
    `BadInput` a disk without room.
    """
    manifest_sha256 = sha256_file(release / MANIFEST)
    pixels = cache / f"{manifest_sha256}.npy"
    marker = pixels.with_suffix(".json")
    cache.mkdir(parents=True, exist_ok=True)
    with _lock(pixels.with_suffix(".lock")):
        problem = _problem(pixels, marker, manifest_sha256)
        if problem is not None:
            if marker.exists():
                note(f"{pixels} {problem}; decoded again")
            marker.unlink(missing_ok=True)
            shape = _write(pixels, release, manifest)
            write_json(
                marker,
                {
                    "format_version": FORMAT_VERSION,
                    "manifest_sha256": manifest_sha256,
                    "shape": shape,
                    "bytes": pixels.stat().st_size,
                    "sha256": sha256_file(pixels),
                },
            )
    # Torch takes writable arrays only, and a private mapping must fit into memory; nobody writes.
    return np.load(pixels, mmap_mode="r+", allow_pickle=False)


def _decode(job: _Job) -> None:
    """Decodes a job's row group into its place."""
    target = np.load(job.target, mmap_mode="r+", allow_pickle=False)
    with open_parquet(job.parquet, job.where, job.space, IMAGES) as file:
        table = file.read_row_group(job.group, IMAGES)
    pixels = target[job.first : job.first + job.rows]
    columns = pngs_of(table).to_pylist(), table["key"].to_pylist()
    decode_into(pixels, [Image(*row, job.where) for row in zip(*columns, strict=True)])


def _problem(pixels: Path, marker: Path, manifest_sha256: str) -> str | None:
    """What is wrong with the file and its marker; None if nothing is."""
    if not marker.is_file():
        return "has no marker"
    try:
        stated: dict[str, Any] = read_json(marker)
    except CorruptShard:
        return "has a marker that is not JSON"
    about = (stated.get("format_version"), stated.get("manifest_sha256"))
    if about != (FORMAT_VERSION, manifest_sha256):
        return "has a marker of something else"
    if not pixels.is_file():
        return "is missing"
    if (size := pixels.stat().st_size) != stated.get("bytes"):
        return f"has {size} bytes, its marker says {stated.get('bytes')}"
    if sha256_file(pixels) != stated.get("sha256"):
        return "was changed"
    return None


def _write(pixels: Path, release: Path, manifest: Manifest) -> list[int]:
    """The shape of the array that was written to `pixels`, whole or not at all."""
    image = _first_shape(release, manifest)
    with atomic_path(pixels) as partial:
        jobs = list(_jobs(release, manifest, partial))
        shape = (sum(job.rows for job in jobs), *image)
        _check_room(pixels.parent, math.prod(shape))
        np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)
        _reserve(partial)
        # Threads: inflating and adding up, which is most of it, hold no lock of the interpreter.
        threads = ThreadPoolExecutor(os.cpu_count())
        try:
            list(threads.map(_decode, jobs))
        finally:
            threads.shutdown(cancel_futures=True)
    return list(shape)


def _first_shape(release: Path, manifest: Manifest) -> tuple[int, ...]:
    entry = accepted_files(manifest)[0]
    with open_parquet(release / entry.path, entry.path, manifest.space, IMAGES) as file:
        table = file.read_row_group(0, IMAGES).slice(0, 1)
    first = Image(pngs_of(table)[0].as_py(), table["key"][0].as_py(), entry.path)
    return decode_one(first).shape


def _jobs(release: Path, manifest: Manifest, target: Path) -> Iterator[_Job]:
    first = 0
    for entry in accepted_files(manifest):
        with open_parquet(release / entry.path, entry.path, manifest.space, IMAGES) as file:
            sizes = [
                file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)
            ]
        if sum(sizes) != entry.rows:
            raise ReleaseError(
                f"{entry.path} has {sum(sizes)} rows, the manifest says {entry.rows}"
            )
        path, space = release / entry.path, manifest.space
        for group, rows in enumerate(sizes):
            yield _Job(path, entry.path, space, group, rows, target, first)
            first += rows


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise BadInput(
            f"{folder}: the decoded images take {needed:,} bytes, {free:,} are free; free some, "
            "give another --cache, or train with --streaming"
        )


def _reserve(path: Path) -> None:
    """Takes the room a file needs: on a full disk, writing to a mapping would end the process."""
    if hasattr(os, "posix_fallocate"):  # not on macOS
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Waits for other processes that decode the same release; dies with this process."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
