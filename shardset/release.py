"""Builds the folder that goes to the Hub: Parquet with images, scores, card and manifest."""

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from shardset.card import DataFolder, render_card
from shardset.errors import BadInput, ReleaseError
from shardset.files import (
    canonical_json,
    naming_full_disk,
    sha256_file,
    sync_file,
    write_bytes,
)
from shardset.identity import key_text
from shardset.labels import ClassLabels, LabelSpace
from shardset.manifest import (
    CARD,
    CURATION,
    MANIFEST,
    VERSION_PATTERN,
    FileEntry,
    Manifest,
    read_manifest,
)
from shardset.shards import tar_name, verify_shard
from shardset.tables import numbered_tables, read_metadata, read_numbered, read_table

FILE_BYTES = 256 << 20  # a Hub commit may hold few files, so they are large
GROUP_BYTES = 4 << 20  # a Hub viewer page reads whole row groups, so they are small
PLACE_COLUMNS = ("shard", "png_offset", "png_length")
CLASS_COLUMNS = ("label", "original_label", "teacher_label")
NOT_PUBLISHED_TWICE = ("key", "label", "status")  # the pool's rows and the selection have these
IMAGE_TYPE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@dataclass(frozen=True)
class ReleaseFacts:
    """A built release: `accepted` and `rejected` images, and the hash that names its content."""

    folder: Path
    version: str
    accepted: int
    rejected: int
    bytes: int
    manifest_sha256: str


def build_release(
    out: Path,
    version: str,
    pool: Path,
    scores: Path,
    selection: Path,
    facts: Mapping[str, Any],
    include_rejected: bool,
) -> ReleaseFacts:
    """Builds `out/version` from a pool, its score tables and a selection table, all of it or none.

    PNG bytes go from tar to Parquet undecoded, after every shard's hash was checked. `facts` goes
    into the manifest as it is and must hold `space` (the label space) and nothing that depends on
    clock or machine. The card shows, where given: `name`, `license`, `recipe`, `policy`, `seeds`,
    `normalisation`, `weights` {network: sha256}, `ratio_problems`, `generator_repo`,
    `parent_version` and `real` {`spec`, `revision`, …}. `BadInput` for a version that is none or
    exists, `ReleaseError` where pool, scores and selection do not belong together.
    """
    if not re.fullmatch(VERSION_PATTERN, version):
        raise BadInput(f"version {version!r} is not of the form v1.0.0")
    folder = out / version
    if folder.exists():
        raise BadInput(f"{folder} exists and a release never changes; choose a higher version")
    space: LabelSpace = TypeAdapter(LabelSpace).validate_python(facts["space"])
    facts = {name: value for name, value in facts.items() if name != "space"}
    origin = _check_pool(pool)
    table = _joined(pool, scores, selection)
    for column in ("label", "original_label"):
        space.check(table[column].to_numpy(), f"{selection} ({column})")
    kept = table.filter(table["kept"])
    if not len(kept):
        raise ReleaseError(f"{selection} keeps no sample, so there is nothing to release")
    if pc.any(pc.equal(kept["png_length"], 0)).as_py():
        raise ReleaseError(f"{selection} keeps a sample without an image; select again")
    with _whole_folder(folder) as partial:
        lost = table.filter(pc.invert(table["kept"])) if include_rejected else table.slice(0, 0)
        _write_images(partial / "data" / "accepted", kept, pool, space)
        _write_images(partial / "data" / "rejected", lost, pool, space)
        _write_scores(partial / "scores", table, space)
        curation = {**read_metadata(selection), "labels": _curation(table, space)}
        write_bytes(partial / CURATION, canonical_json(curation))
        manifest = Manifest(
            version=version,
            space=space,
            pool_id=origin["pool_id"],
            production_seed=origin["seed"],
            accepted=_per_group(kept, space),
            rejected=_per_group(lost, space),
            files=(),
            facts=facts,
        )
        card = render_card(manifest, curation, _data_folders(partial))
        write_bytes(partial / CARD, card.encode())
        manifest = manifest.model_copy(update={"files": _entries(partial)})
        write_bytes(partial / MANIFEST, canonical_json(manifest.model_dump(mode="json")))
    return release_facts(folder)


def release_facts(folder: Path) -> ReleaseFacts:
    """The facts of a release that was built before; `ReleaseError` if the folder is none."""
    manifest = read_manifest(folder)
    return ReleaseFacts(
        folder=folder,
        version=manifest.version,
        accepted=sum(manifest.accepted),
        rejected=sum(manifest.rejected),
        bytes=sum(entry.bytes for entry in manifest.files),
        manifest_sha256=sha256_file(folder / MANIFEST),
    )


def _check_pool(pool: Path) -> dict[str, Any]:
    """The seed and pool_id that all shards agree on, after each one's bytes were verified."""
    origins = []
    for index, path in enumerate(numbered_tables(pool)):
        verify_shard(pool, index)
        origins.append(read_metadata(path))
        if origins[-1] != origins[0]:
            raise ReleaseError(f"{path} belongs to another pool than 000000; redo the pool")
    if not origins:
        raise ReleaseError(f"{pool} holds no shards; run produce first")
    return origins[0]


def _joined(pool: Path, scores: Path, selection: Path) -> pa.Table:
    """A row for every key, in key order: the pool's rows, the decisions and the scores."""
    rows, scored, chosen = read_numbered(pool), read_numbered(scores), read_table(selection)
    keys = rows["key"]
    for where, table in ((scores, scored), (selection, chosen)):
        if not table["key"].equals(keys):
            raise ReleaseError(
                f"{where} has {len(table)} keys that are not the {len(keys)} of {pool}; "
                "score and select this very pool again"
            )
    columns = {
        **{name: rows[name] for name in PLACE_COLUMNS},
        "label": chosen["label"],
        "original_label": rows["label"],
        "condition": rows["condition"],
        "key": keys,
        "kept": chosen["kept"],
        "reason": chosen["reason"],
        **{name: scored[name] for name in scored.column_names if name not in NOT_PUBLISHED_TWICE},
        "status": scored["status"],
        "pixel_sha256": rows["pixel_sha256"],
    }
    return pa.table(columns)


def _write_images(folder: Path, table: pa.Table, pool: Path, space: LabelSpace) -> None:
    """Parquet files with `image` first; a failed sample, which is never kept, has a null image."""

    def with_images(rows: pa.Table) -> pa.Table:
        images = pa.array(_images(pool, rows), IMAGE_TYPE)
        rest = rows.drop_columns([*PLACE_COLUMNS, "kept", "status"])
        return rest.add_column(0, "image", images)

    # What the other columns take is small beside any PNG.
    _write_split(folder, table, table["png_length"].to_numpy() + 64, with_images, space)


def _images(pool: Path, rows: pa.Table) -> list[dict[str, Any] | None]:
    images: list[dict[str, Any] | None] = []
    places = zip(*(rows[name].to_pylist() for name in (*PLACE_COLUMNS, "key")), strict=True)
    for shard, group in groupby(places, key=itemgetter(0)):
        with open(pool / tar_name(shard), "rb") as file:
            for _, offset, length, key in group:
                png = os.pread(file.fileno(), length, offset)
                image = {"bytes": png, "path": f"{key_text(key)}.png"}
                images.append(image if length else None)
    return images


def _write_scores(folder: Path, table: pa.Table, space: LabelSpace) -> None:
    table = table.drop_columns(list(PLACE_COLUMNS))
    row_bytes = np.full(len(table), 1 + table.nbytes // len(table))
    _write_split(folder, table, row_bytes, lambda rows: rows, space)


def _write_split(
    folder: Path,
    table: pa.Table,
    row_bytes: np.ndarray,
    complete: Callable[[pa.Table], pa.Table],
    space: LabelSpace,
) -> None:
    """`train-00000-of-000NN.parquet`: files and row groups of about their constants' bytes."""
    if not len(table):
        return
    folder.mkdir(parents=True)
    ends = np.cumsum(row_bytes)
    starts = [*np.unique((ends - row_bytes) // FILE_BYTES, return_index=True)[1], len(table)]
    group_rows = int(max(1, GROUP_BYTES // row_bytes.mean()))
    schema = _with_features(complete(table.slice(0, 0)).schema, space)
    for number, (start, stop) in enumerate(pairwise(starts)):
        path = folder / f"train-{number:05d}-of-{len(starts) - 1:05d}.parquet"
        with pq.ParquetWriter(path, schema, compression="zstd", write_page_index=True) as writer:
            for first in range(start, stop, group_rows):
                rows = complete(table.slice(first, min(group_rows, stop - first)))
                writer.write_table(rows.replace_schema_metadata(schema.metadata))
        sync_file(path)


def _with_features(schema: pa.Schema, space: LabelSpace) -> pa.Schema:
    """The schema with the note by which `datasets` knows images and class names from numbers."""
    features: dict[str, Any] = {}
    for name in schema.names:
        if name == "image":
            features[name] = {"_type": "Image"}
        elif name in CLASS_COLUMNS and isinstance(space, ClassLabels):
            features[name] = {"names": list(space.names), "_type": "ClassLabel"}
    note = canonical_json({"info": {"features": features}})
    return schema.with_metadata({b"huggingface": note})


def _data_folders(folder: Path) -> dict[str, DataFolder]:
    """What lies below each data folder of a release that has any."""
    found: dict[str, DataFolder] = {}
    for path in sorted(folder.rglob("*.parquet")):
        place = path.parent.relative_to(folder).as_posix()
        file = pq.read_metadata(path)
        size = sum(file.row_group(group).total_byte_size for group in range(file.num_row_groups))
        before = found.get(place, DataFolder(0, 0))
        found[place] = DataFolder(before.rows + file.num_rows, before.bytes + size)
    return found


def _curation(table: pa.Table, space: LabelSpace) -> dict[str, dict[str, Any]]:
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


def _per_group(table: pa.Table, space: LabelSpace) -> tuple[int, ...]:
    groups = space.group_of(table["label"].to_numpy())
    return tuple(np.bincount(groups, minlength=len(space.group_names)).tolist())


def _entries(folder: Path) -> tuple[FileEntry, ...]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return tuple(
        FileEntry(
            path=path.relative_to(folder).as_posix(),
            sha256=sha256_file(path),
            bytes=path.stat().st_size,
            rows=pq.read_metadata(path).num_rows if path.suffix == ".parquet" else None,
        )
        for path in paths
    )


@contextmanager
def _whole_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder`, renamed to it on success, removed on failure."""
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        with naming_full_disk(folder):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            yield partial
            partial.rename(folder)
            sync_file(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
