"""The accepted rows of a release, checked as they are read: images, labels, teacher's logits."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cgankd.shardset.errors import ReleaseError
from cgankd.shardset.images import BadImage, decode_png, fill_plain
from cgankd.shardset.labels import ClassLabels, LabelSpace
from cgankd.shardset.release.manifest import FileEntry, Manifest
from cgankd.shardset.release.tables import (
    ACCEPTED,
    MOST_LOGITS,
    TOP_LOGITS,
    release_schema,
    teacher_logits,
)

IMAGES = ("image", "key")


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
    found = [entry for entry in manifest.files if entry.path.startswith(f"{ACCEPTED}/")]
    if not any(entry.rows for entry in found):
        raise ReleaseError(f"release {manifest.version} holds no accepted images")
    return sorted((entry for entry in found if entry.rows), key=lambda entry: entry.path)


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
    found, expected = file.schema_arrow, release_schema(ACCEPTED, space)
    for name in columns:
        types = found.field(name).type if name in found.names else "missing"
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


def decode_into(pixels: np.ndarray, images: Sequence[Image]) -> None:
    """Fills pixels uint8 `[n, c, h, w]` with n images; `ReleaseError` names a bad one's key.

    A picture of another size or mode than `[c, h, w]` is bad too.
    """
    for row in fill_plain(pixels, [image.png for image in images]):
        decoded = decode_one(images[row])
        if decoded.shape != pixels.shape[1:]:
            raise ReleaseError(
                f"{images[row].where}: the image of key {images[row].key} is "
                f"{_size(decoded.shape)}, the first of the release is "
                f"{_size(pixels.shape[1:])}; all must be alike"
            )
        pixels[row] = decoded


def decode_one(image: Image) -> np.ndarray:
    """The pixels `[c, h, w]` of one image; `ReleaseError` names the key of a bad one."""
    try:
        return decode_png(image.png or b"")
    except BadImage as error:
        raise ReleaseError(
            f"{image.where}: the image of key {image.key} {error}; do not train on this release"
        ) from error


def pngs_of(table: pa.Table) -> pa.Array:
    """The PNG bytes `[n]` of a table's images, as they lie in memory."""
    return table["image"].combine_chunks().field("bytes")


def _size(shape: Sequence[int]) -> str:
    channels, height, width = shape
    return f"{width}×{height} px {'grey' if channels == 1 else 'RGB'}"
