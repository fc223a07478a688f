"""The tables of a release: their columns, how they come from pool and selection, and how they are
written, on as many threads as there are files or workers.

PNG bytes go from tar to Parquet undecoded. What a file holds is decided before any is written, so
the number of workers changes no byte. Reading, hashing and compressing release Python's lock, so
threads are enough.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cgankd.shardset.errors import ReleaseError
from cgankd.shardset.files import canonical_json, sync_file
from cgankd.shardset.identity import key_text
from cgankd.shardset.labels import ClassLabels, LabelSpace
from cgankd.shardset.pool.shards import tar_name
from cgankd.shardset.tables import read_numbered, read_table

ACCEPTED = "data/accepted"
REJECTED = "data/rejected"
SCORES = "scores"
PLACE_COLUMNS = ("shard", "png_offset", "png_length")
CLASS_COLUMNS = ("label", "original_label", "teacher_label")
NOT_PUBLISHED_TWICE = ("key", "label", "status")  # the pool's rows and the selection have these
IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
# Beyond so many classes the logits would outweigh small images: the largest few are kept.
MOST_LOGITS = 200
TOP_LOGITS = 20
FILE_BYTES = 256 << 20  # a Hub commit may hold few files, so they are large
GROUP_BYTES = 4 << 20  # a Hub viewer page reads whole row groups, so they are small


def release_schema(folder: str, space: LabelSpace) -> pa.Schema:
    """The schema of every Parquet file in one of the data folders, with the note by which
    `datasets` knows images and class names from numbers.
    """
    label = pa.int64() if isinstance(space, ClassLabels) else pa.float64()
    fields: dict[str, pa.DataType] = {} if folder == SCORES else {"image": IMAGE_TYPE}
    fields |= {"label": label, "original_label": label, "condition": label, "key": pa.int64()}
    if folder == SCORES:
        fields["kept"] = pa.bool_()
    fields |= {"reason": pa.string(), "density_ratio": pa.float32()}
    if isinstance(space, ClassLabels):
        fields |= {
            "teacher_label": pa.int64(),
            "teacher_error": pa.float32(),
            "teacher_entropy": pa.float32(),
        }
        if len(space.names) > MOST_LOGITS:
            fields["teacher_top_labels"] = _list_of(pa.int32())
            fields["teacher_top_logits"] = _list_of(pa.float16())
        else:
            fields["teacher_logits"] = _list_of(pa.float16())
    else:
        fields |= {"teacher_value": pa.float64(), "teacher_error": pa.float32()}
    if folder == SCORES:
        fields["status"] = pa.string()
    fields["pixel_sha256"] = pa.string()
    features: dict[str, Any] = {}
    for name in fields:
        if name == "image":
            features[name] = {"_type": "Image"}
        elif name in CLASS_COLUMNS and isinstance(space, ClassLabels):
            features[name] = {"names": list(space.names), "_type": "ClassLabel"}
    note = canonical_json({"info": {"features": features}})
    return pa.schema(list(fields.items()), metadata={b"huggingface": note})


def features_of(folder: str, space: LabelSpace) -> list[dict[str, Any]]:
    """The same columns as `dataset_info` of a card names them."""
    features: list[dict[str, Any]] = []
    for field in release_schema(folder, space):
        if field.name == "image":
            features.append({"name": "image", "dtype": "image"})
        elif field.name in CLASS_COLUMNS and isinstance(space, ClassLabels):
            features.append({"name": field.name, "dtype": class_label(space)})
        elif pa.types.is_list(field.type):
            features.append({"name": field.name, "list": _dtype(field.type.value_type)})
        else:
            features.append({"name": field.name, "dtype": _dtype(field.type)})
    return features


def class_label(space: ClassLabels) -> dict[str, Any]:
    """The classes as a card's feature names them."""
    return {"class_label": {"names": {str(i): name for i, name in enumerate(space.names)}}}


def _list_of(type_: pa.DataType) -> pa.ListType:
    return pa.list_(pa.field("element", type_))  # as Parquet names it


def _dtype(type_: pa.DataType) -> str:
    return {"halffloat": "float16", "float": "float32", "double": "float64"}.get(
        str(type_), str(type_)
    )


def joined(pool: Path, scores: Path, selection: Path, space: LabelSpace) -> pa.Table:
    """A row for every key, in key order: where its PNG lies, and the columns of the release.

    `ReleaseError` where pool, scores and selection do not belong together, or where the scores
    are of another kind than the columns of a release.
    """
    rows, scored, decided = read_numbered(pool), read_numbered(scores), read_table(selection)
    keys = rows["key"]
    for where, table in ((scores, scored), (selection, decided)):
        if not table["key"].equals(keys):
            raise ReleaseError(
                f"{where} has {len(table)} keys that are not the {len(keys)} of {pool}; "
                "score and select this very pool again"
            )
    measured = {
        name: scored[name] for name in scored.column_names if name not in NOT_PUBLISHED_TWICE
    }
    if isinstance(space, ClassLabels) and len(space.names) > MOST_LOGITS:
        top_labels, top_logits = top_of(measured.pop("teacher_logits"), len(space.names))
        measured |= {"teacher_top_labels": top_labels, "teacher_top_logits": top_logits}
    columns = {
        "label": decided["label"],
        "original_label": rows["label"],
        "condition": rows["condition"],
        "key": keys,
        "kept": decided["kept"],
        "reason": decided["reason"],
        **measured,
        "status": scored["status"],
        "pixel_sha256": rows["pixel_sha256"],
    }
    for column in ("label", "original_label"):
        space.check(columns[column].to_numpy(), f"{selection} ({column})")
    schema = release_schema(SCORES, space)
    if odd := sorted(columns.keys() ^ set(schema.names)):
        what = "is no column of a release" if odd[0] in columns else "is missing"
        raise ReleaseError(f"{scores}: {odd[0]} {what}; score this pool again with this version")
    table = pa.table({name: columns[name].cast(schema.field(name).type) for name in schema.names})
    for name in reversed(PLACE_COLUMNS):
        table = table.add_column(0, name, rows[name])
    return table


def curation_counts(table: pa.Table, space: LabelSpace) -> dict[str, dict[str, Any]]:
    """For each class, or part of the range, that was asked for: how many were kept, and dropped
    for which reason.
    """
    asked = space.group_of(table["original_label"].to_numpy())
    reasons = np.asarray(table["reason"].fill_null("").to_pylist())
    counts = {}
    for group, name in enumerate(space.group_names):
        dropped_by, numbers = np.unique(reasons[asked == group], return_counts=True)
        dropped = {str(r): int(n) for r, n in zip(dropped_by, numbers, strict=True) if r}
        produced = int(numbers.sum())
        kept = produced - sum(dropped.values())
        counts[name] = {"produced": produced, "kept": kept, "dropped": dropped}
    return counts


def per_group(table: pa.Table, space: LabelSpace) -> tuple[int, ...]:
    """How many rows have a label of each class, or part of the range."""
    groups = space.group_of(table["label"].to_numpy())
    return tuple(np.bincount(groups, minlength=len(space.group_names)).tolist())


def top_of(logits: pa.ChunkedArray, classes: int) -> tuple[pa.Array, pa.Array]:
    """The labels and logits of the `TOP_LOGITS` largest of each row, largest first.

    The logits are shifted so that exp sums to 1 over all classes: a softmax does not see a shift,
    and what the kept ones leave of 1 is the share of all others.
    """
    values = _dense(logits, classes)
    values -= _log_sum_exp(values)
    top = np.argsort(-values, axis=1, kind="stable")[:, :TOP_LOGITS]
    largest = np.take_along_axis(values, top, axis=1).astype(np.float16)
    return _lists(top.astype(np.int32)), _lists(largest)


def teacher_logits(table: pa.Table, space: ClassLabels) -> np.ndarray:
    """The teacher's logits float32 `[n, classes]` of a release's rows.

    Where only the largest are stored, the other classes share what those leave of the softmax, and
    none exceeds the least stored one.
    """
    classes = len(space.names)
    if classes <= MOST_LOGITS:
        return _dense(table["teacher_logits"], classes)
    top = _dense(table["teacher_top_labels"], TOP_LOGITS).astype(np.int64)
    largest = _dense(table["teacher_top_logits"], TOP_LOGITS)
    left = np.clip(1 - np.exp(largest).sum(axis=1, keepdims=True), 1e-6, None)
    others = np.minimum(np.log(left / (classes - TOP_LOGITS)), largest[:, -1:])
    values = np.repeat(others, classes, axis=1)
    np.put_along_axis(values, top, largest, axis=1)
    return values.astype(np.float32)


def _dense(lists: pa.ChunkedArray, width: int) -> np.ndarray:
    flat = lists.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.astype(np.float32).reshape(len(lists), width)


def _log_sum_exp(values: np.ndarray) -> np.ndarray:
    largest = values.max(axis=1, keepdims=True)
    return largest + np.log(np.exp(values - largest).sum(axis=1, keepdims=True))


def _lists(values: np.ndarray) -> pa.Array:
    flat = pa.array(values.ravel())
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1]).cast(pa.list_(flat.type))


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
