"""What the tables of a release hold: their columns, and how they come from pool and selection."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cgankd.shardset.errors import ReleaseError
from cgankd.shardset.files import canonical_json
from cgankd.shardset.labels import ClassLabels, LabelSpace
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
    rows, scored, chosen = read_numbered(pool), read_numbered(scores), read_table(selection)
    keys = rows["key"]
    for where, table in ((scores, scored), (selection, chosen)):
        if not table["key"].equals(keys):
            raise ReleaseError(
                f"{where} has {len(table)} keys that are not the {len(keys)} of {pool}; "
                "score and select this very pool again"
            )
    told = {name: scored[name] for name in scored.column_names if name not in NOT_PUBLISHED_TWICE}
    if isinstance(space, ClassLabels) and len(space.names) > MOST_LOGITS:
        top_labels, top_logits = top_of(told.pop("teacher_logits"), len(space.names))
        told |= {"teacher_top_labels": top_labels, "teacher_top_logits": top_logits}
    columns = {
        "label": chosen["label"],
        "original_label": rows["label"],
        "condition": rows["condition"],
        "key": keys,
        "kept": chosen["kept"],
        "reason": chosen["reason"],
        **told,
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
        found, numbers = np.unique(reasons[asked == group], return_counts=True)
        dropped = {str(r): int(n) for r, n in zip(found, numbers, strict=True) if r}
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
