"""The accepted rows of a release, checked as they are read: labels, teacher's logits, and images
decoded once, in one file that every later run maps into memory.

The file is named by the sha256 of the manifest, so it belongs to one content and never goes stale.
Its marker holds its sha256, which is compared at every opening: that takes a second for each
gigabyte or two, far less than a network takes to see the images once, and reads them into the
page cache on the way.
"""

import fcntl
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cgankd.shardset.errors import BadInput, CorruptShard, ReleaseError
from cgankd.shardset.files import atomic_path, read_json, sha256_file, write_json
from cgankd.shardset.images import BadImage, decode_pngs
from cgankd.shardset.labels import ClassLabels, LabelSpace
from cgankd.shardset.release.manifest import MANIFEST, FileEntry, Manifest
from cgankd.shardset.release.tables import (
    ACCEPTED,
    MOST_LOGITS,
    TOP_LOGITS,
    release_schema,
    teacher_logits,
)

FORMAT_VERSION = 1
IMAGES = ("image", "key")


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
    once, on every core: a file that is not what its marker says is made anew, and `note` says so.
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
    decoded([Image(*row, job.where) for row in zip(*columns, strict=True)], pixels)


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
    return decoded([first]).shape[1:]


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


@dataclass(frozen=True)
class Rows:
    """Labels `[n]`, classes int64 or values float64, and float32 logits `[n, C]` if asked for."""

    labels: np.ndarray
    logits: np.ndarray | None


@dataclass(frozen=True, slots=True)
class Image:
    """One accepted image: its PNG, its key, and its file's name for errors."""

    png: bytes | None
    key: int
    where: str


def accepted_files(manifest: Manifest) -> list[FileEntry]:
    """The Parquet files of the accepted images, in the order of their names, at least one."""
    accepted = [entry for entry in manifest.files if entry.path.startswith(f"{ACCEPTED}/")]
    if not any(entry.rows for entry in accepted):
        raise ReleaseError(f"release {manifest.version} holds no accepted images")
    return sorted((entry for entry in accepted if entry.rows), key=lambda entry: entry.path)


def row_columns(space: LabelSpace, *, logits: bool) -> list[str]:
    """The columns that labels and, with `logits`, the teacher's logits are read from."""
    if not logits or not isinstance(space, ClassLabels):
        return ["label"]
    if len(space.names) > MOST_LOGITS:
        return ["label", "teacher_top_labels", "teacher_top_logits"]
    return ["label", "teacher_logits"]


def read_rows(release: Path, manifest: Manifest, *, logits: bool) -> Rows:
    """Labels, and with `logits` the teacher's logits, of every accepted image of a release."""
    space = manifest.space
    columns = row_columns(space, logits=logits)
    parts = []
    for entry in accepted_files(manifest):
        with open_parquet(release / entry.path, entry.path, space, columns) as file:
            parts.append(rows_of(file.read(columns), space, entry.path))
    return joined_rows(parts)


def joined_rows(parts: Sequence[Rows]) -> Rows:
    """Rows one after the other."""
    logits = [part.logits for part in parts if part.logits is not None]
    return Rows(
        np.concatenate([part.labels for part in parts]), np.concatenate(logits) if logits else None
    )


def open_parquet(
    path: Path, where: str, space: LabelSpace, columns: Sequence[str]
) -> pq.ParquetFile:
    """A Parquet file whose `columns` are a release's; `ReleaseError` names any other as `where`."""
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError) as error:
        raise ReleaseError(f"{where} is missing, cut or not Parquet; get the release anew") from (
            error
        )
    schema, expected = file.schema_arrow, release_schema(ACCEPTED, space)
    for name in columns:
        types = schema.field(name).type if name in schema.names else "missing"
        if types != expected.field(name).type:
            file.close()
            raise ReleaseError(
                f"{where}: column {name!r} is {types}, expected {expected.field(name).type}"
            )
    return file


def rows_of(table: pa.Table, space: LabelSpace, where: str) -> Rows:
    """The labels of a table, and its logits where it has their columns; `where` names it in errors.

    `BadInput` for labels outside the label space, `ReleaseError` for logits of another width.
    """
    import pyarrow.compute as pc

    labels = table["label"].to_numpy()
    space.check(labels, where)
    if len(table.column_names) == 1 or not isinstance(space, ClassLabels):
        return Rows(labels, None)
    classes = len(space.names)
    width = TOP_LOGITS if classes > MOST_LOGITS else classes
    for name in table.column_names[1:]:
        lengths = pc.list_value_length(table[name])
        if lengths.null_count or pc.any(pc.not_equal(lengths, width)).as_py():
            raise ReleaseError(f"{where}: {name} does not hold {width} numbers for every image")
    if "teacher_top_labels" in table.column_names:
        least, most = pc.min_max(pc.list_flatten(table["teacher_top_labels"])).as_py().values()
        if least < 0 or most >= classes:
            raise ReleaseError(f"{where}: teacher_top_labels are not all of 0 to {classes - 1}")
    return Rows(labels, teacher_logits(table, space))


def decoded(images: Sequence[Image], into: np.ndarray | None = None) -> np.ndarray:
    """The pixels uint8 `[n, c, h, w]` of n images, in `into` where it is given; `ReleaseError`
    names the key of one that is bad or unlike the others.
    """
    try:
        return decode_pngs([image.png for image in images], into)
    except BadImage as error:
        bad = images[error.row]
        raise ReleaseError(
            f"{bad.where}: the image of key {bad.key} {error}; do not train on this release"
        ) from error


def pngs_of(table: pa.Table) -> pa.Array:
    """The PNG bytes `[n]` of a table's images, as they lie in memory."""
    return table["image"].combine_chunks().field("bytes")
