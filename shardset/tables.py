"""Parquet tables: written whole or not at all, and byte for byte the same every time."""

import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cgankd.shardset.errors import CorruptShard
from cgankd.shardset.files import atomic_path, canonical_json, parse_json

METADATA_KEY = b"cgankd"
ROW_GROUP_ROWS = 1 << 16


@cache
def without_pandas() -> None:
    """Has pyarrow take pandas for absent in this process, unless it is there already: to see
    whether an array is one of its own, pyarrow would import it, a quarter of what torch takes.
    `to_pandas` still works, but a pandas series is then no array of nulls: only commands of ours
    call this, no function that others may call in a process of theirs.
    """
    if "pandas" not in sys.modules:
        sys.modules["pandas"] = None  # type: ignore[assignment]  # how Python marks the absent
        for look in (lambda: pa.array([]), lambda: pa.nulls(0, pa.int8()).to_numpy(False)):
            with suppress(ImportError, AttributeError):  # of None, where pandas should be
                look()  # is remembered; each way of converting has its own memory
        del sys.modules["pandas"]


def table_name(index: int) -> str:
    """The file name of a numbered table: six digits, the same number as its shard's."""
    return f"{index:06d}.parquet"


def write_table(
    path: Path,
    table: pa.Table,
    metadata: Mapping[str, Any] | None = None,
    *,
    row_group_rows: int = ROW_GROUP_ROWS,
) -> None:
    """Writes a table atomically, with `metadata` (any JSON value) in the file's own metadata."""
    if metadata is not None:
        entries = {**(table.schema.metadata or {}), METADATA_KEY: canonical_json(metadata)}
        table = table.replace_schema_metadata(entries)
    with atomic_path(path) as partial:
        pq.write_table(
            table,
            partial,
            compression="zstd",
            row_group_size=row_group_rows,
            write_page_index=True,
        )


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """A table, or some of its columns; `CorruptShard` names a missing, cut or foreign file."""
    try:
        file = pq.ParquetFile(path)
        absent = sorted(set(columns or ()) - set(file.schema_arrow.names))
        if absent:
            raise CorruptShard(
                f"{path} has no column {absent[0]!r}, only {', '.join(file.schema_arrow.names)}; "
                "it was written by another version: redo its stage"
            )
        with file:
            return file.read(None if columns is None else list(columns))
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error


def read_metadata(path: Path) -> dict[str, Any]:
    """What `write_table` stored beside a table, `{}` where it stored nothing."""
    try:
        entries = pq.read_schema(path).metadata or {}
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error
    return parse_json(entries[METADATA_KEY], path) if METADATA_KEY in entries else {}


def numbered_tables(folder: Path) -> list[Path]:
    """The folder's tables 000000.parquet, 000001.parquet, … in order; a gap is `CorruptShard`."""
    found = sorted(path for path in folder.glob("*.parquet") if re.fullmatch(r"\d{6}", path.stem))
    for index, path in enumerate(found):
        if path.name != table_name(index):
            raise CorruptShard(
                f"{folder / table_name(index)} is missing but {path.name} is there; "
                "run the stage again to make it"
            )
    return found


def read_numbered(folder: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """All numbered tables of a folder as one; `CorruptShard` where there is none or a gap."""
    paths = numbered_tables(folder)
    if not paths:
        raise CorruptShard(f"{folder} holds no tables; run its stage first")
    tables = [read_table(path, columns) for path in paths]
    for path, table in zip(paths, tables, strict=True):
        if not table.schema.equals(tables[0].schema):
            raise CorruptShard(
                f"{path} has other columns than {paths[0].name}: they are of different versions; "
                "redo the stage"
            )
    return pa.concat_tables(tables)


def read_logits(folder: Path) -> np.ndarray:
    """The teacher's logits float16 `[n, C]` of every row of a folder's score tables, of classes."""
    column = read_numbered(folder, ("teacher_logits",))["teacher_logits"].combine_chunks()
    return column.flatten().to_numpy().reshape(len(column), -1)


def _unreadable(path: Path, error: Exception) -> CorruptShard:
    reason = "is missing" if isinstance(error, FileNotFoundError) else "is cut or not Parquet"
    return CorruptShard(f"{path} {reason}; run the stage that writes it again")
