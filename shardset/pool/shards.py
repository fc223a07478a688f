"""Pool shards: a WebDataset tar, its Parquet table of rows, and a marker that is written last.

`000000.tar` holds `{key}.png`, `{key}.cls` (for classes) and `{key}.json` of every sample,
`000000.parquet` a row for each with the place of its PNG, `000000.json` the size and sha256 of
both. A cut tar opens without an error in every reader, so the marker alone says that a shard is
done.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import accumulate, pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import pyarrow as pa

from cgankd.shardset.errors import CorruptShard, StaleStage
from cgankd.shardset.files import atomic_path, read_json, sha256_file, write_json
from cgankd.shardset.images import BadImage, decode_pngs
from cgankd.shardset.pool.tar import BLOCK, RECORD, padded, tar_headers
from cgankd.shardset.tables import read_table, table_name, write_table

FORMAT_VERSION = 1
FLUSH_BYTES = 1 << 18  # less than a batch, which is then written without another copy


def tar_name(index: int) -> str:
    """The file name of a shard's tar."""
    return f"{index:06d}.tar"


def marker_name(index: int) -> str:
    """The file name of a shard's marker."""
    return f"{index:06d}.json"


class PoolShardWriter:
    """Writes one shard; leaving the block normally makes it visible, an exception leaves nothing.

    Tar and rows go to temporary names and are synced and renamed, then the marker follows. Owner,
    time and order are fixed, so the same samples give the same bytes.
    """

    def __init__(self, folder: Path, index: int, fingerprint: str) -> None:
        self.folder = folder
        self.index = index
        self.fingerprint = fingerprint
        self._rows: dict[str, list[Any]] = {
            name: []
            for name in (
                "key", "label", "condition", "png_offset", "png_length", "pixel_sha256", "status",
            )
        }  # fmt: skip
        self._origin: tuple[int, str] | None = None
        self._waiting: list[bytes] = []  # what is still to be written
        self._size = 0  # of the tar, with what is waiting
        self._digest = hashlib.sha256()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        # A marker of an earlier attempt must not vouch for the files that replace its own.
        (self.folder / marker_name(self.index)).unlink(missing_ok=True)
        self._rows_path = self.folder / table_name(self.index)
        self._tar_path = self.folder / tar_name(self.index)
        partial = self._stack.enter_context(atomic_path(self._tar_path))
        # Unbuffered: what is written is written once, in large pieces, by _flush.
        self._tar = self._stack.enter_context(open(partial, "wb", buffering=0))
        return self

    def add(
        self,
        key: int,
        png: bytes | None,
        label: int | float,
        condition: int | float,
        pixel_sha256: str | None,
        seed: int,
        pool_id: str,
        status: str = "ok",
    ) -> None:
        """Appends a sample; keys ascend. One that failed has no PNG, only a row with its status."""
        self.add_all([key], [png], [label], [condition], [pixel_sha256], seed, pool_id, status)

    def add_all(
        self,
        keys: Sequence[int],
        pngs: Sequence[bytes | None],
        labels: Sequence[int | float],
        conditions: Sequence[int | float],
        pixel_sha256s: Sequence[str | None],
        seed: int,
        pool_id: str,
        status: str = "ok",
    ) -> None:
        """Appends samples of one status, as `add` does, at a tenth of the cost of each."""
        rows = self._rows
        for before, key in pairwise([*rows["key"][-1:], *keys]):
            if key <= before:
                raise ValueError(f"key {key} was added after key {before}")
        if self._origin is None:
            self._origin = (seed, pool_id)
        elif self._origin != (seed, pool_id):
            raise ValueError(
                f"key {keys[0]} has another seed or pool than the shard, {self._origin}"
            )
        samples = self._members(keys, pngs, labels, conditions)
        starts = accumulate(map(len, samples), initial=self._size)
        offsets = [
            start + BLOCK if sample else 0 for start, sample in zip(starts, samples, strict=False)
        ]
        self._append(b"".join(samples))
        lengths = [len(png or b"") for png in pngs]
        values = (keys, labels, conditions, offsets, lengths, pixel_sha256s, [status] * len(keys))
        for column, more in zip(rows.values(), values, strict=True):
            column.extend(more)

    def _members(
        self,
        keys: Sequence[int],
        pngs: Sequence[bytes | None],
        labels: Sequence[int | float],
        conditions: Sequence[int | float],
    ) -> list[bytes]:
        """Each sample's files as the tar holds them, no bytes for one without an image."""
        assert self._origin is not None
        seed, pool_id = self._origin
        pairs = list(zip(labels, conditions, strict=True))
        facts = {
            pair: json.dumps(
                {"condition": pair[1], "label": pair[0], "pool_id": pool_id, "seed": seed}
            ).encode()
            for pair in set(pairs)
        }
        columns = [("png", [png or b"" for png in pngs])]
        if isinstance(labels[0], int):
            columns.append(("cls", [str(label).encode() for label in labels]))
        columns.append(("json", [facts[pair] for pair in pairs]))
        parts = []
        for end, files in columns:
            parts += [tar_headers(keys, end, [len(file) for file in files]), map(padded, files)]
        samples = map(b"".join, zip(*parts, strict=True))
        return [b"" if png is None else data for png, data in zip(pngs, samples, strict=True)]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._stack.__exit__(kind, error, traceback)
            return
        with self._stack:  # an error below leaves no tar either
            self._append(bytes(2 * BLOCK))
            self._append(bytes(-self._size % RECORD))
            self._flush()
            write_table(self._rows_path, self._table(), self._metadata())
        keys = self._rows["key"]
        marker = {
            "format_version": FORMAT_VERSION,
            "fingerprint": self.fingerprint,
            "count": len(keys),
            "first_key": keys[0],
            "last_key": keys[-1],
            "failed": sum(status != "ok" for status in self._rows["status"]),
            "tar": {"bytes": self._size, "sha256": self._digest.hexdigest()},
            "rows": {
                "bytes": self._rows_path.stat().st_size,
                "sha256": sha256_file(self._rows_path),
            },
        }
        write_json(self.folder / marker_name(self.index), marker)

    def _append(self, data: bytes) -> None:
        self._waiting.append(data)
        self._size += len(data)
        if sum(map(len, self._waiting)) >= FLUSH_BYTES:
            self._flush()

    def _flush(self) -> None:
        data = b"".join(self._waiting)
        self._waiting.clear()
        self._digest.update(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self._tar.fileno(), view) :]

    def _table(self) -> pa.Table:
        if not self._rows["key"]:
            raise ValueError(f"shard {self.index} has no samples")
        types = {"key": pa.int64(), "png_offset": pa.int64(), "png_length": pa.int64()}
        types |= {"pixel_sha256": pa.string(), "status": pa.string()}
        # Classes are int64 and continuous labels float64: the Python values say which.
        columns = {name: pa.array(rows, types.get(name)) for name, rows in self._rows.items()}
        shard = pa.array(np.full(len(self._rows["key"]), self.index, dtype=np.int32))
        return pa.table({"key": columns.pop("key"), "shard": shard, **columns})

    def _metadata(self) -> dict[str, Any]:
        assert self._origin is not None
        return {"seed": self._origin[0], "pool_id": self._origin[1]}


def marker_of(folder: Path, index: int) -> dict[str, Any] | None:
    """The shard's marker, `None` where it has none."""
    path = folder / marker_name(index)
    return read_json(path) if path.is_file() else None


def is_done(folder: Path, index: int, fingerprint: str) -> bool:
    """Whether the shard has a marker and files of the sizes that it states.

    `StaleStage` if the shard was made with other settings than `fingerprint` stands for.
    """
    marker = marker_of(folder, index)
    if marker is None:
        return False
    if marker["fingerprint"] != fingerprint:
        raise StaleStage(
            f"shard {folder / tar_name(index)} was made with other settings; "
            "keep those settings or replace the pool with --redo pool"
        )
    return not _wrong_sizes(folder, index, marker)


def verify_shard(folder: Path, index: int) -> dict[str, Any]:
    """The marker of a shard whose every byte is as the marker says; else `CorruptShard`."""
    marker = checked_marker(folder, index)
    for part, name in _parts(index).items():
        if sha256_file(folder / name) != marker[part]["sha256"]:
            raise _corrupt(folder, index, f"{name} has other bytes than its marker says")
    return marker


def read_shard(folder: Path, index: int) -> tuple[np.ndarray, pa.Table]:
    """A finished shard's pixels uint8 `[n, c, h, w]` and its rows, in the order of keys.

    Failed samples (status other than "ok") are black, so that pixels and rows keep step.
    """
    checked_marker(folder, index)
    rows = read_table(folder / table_name(index))
    data = memoryview((folder / tar_name(index)).read_bytes())
    offsets, lengths = (rows[name].to_numpy() for name in ("png_offset", "png_length"))
    present = np.flatnonzero(lengths)
    if not present.size:
        raise _corrupt(folder, index, "no sample has an image")
    places = zip(offsets[present], lengths[present], strict=True)
    try:
        images = decode_pngs([bytes(data[start : start + length]) for start, length in places])
    except BadImage as error:
        key = rows["key"][present[error.row]]
        raise _corrupt(folder, index, f"key {key} {error}") from error
    if len(images) == len(rows):
        return images, rows
    pixels = np.zeros((len(rows), *images.shape[1:]), dtype=np.uint8)
    pixels[present] = images
    return pixels, rows


def read_png(folder: Path, row: Mapping[str, Any]) -> bytes:
    """The PNG bytes of one row of a shard's table."""
    with open(folder / tar_name(row["shard"]), "rb") as file:
        data = os.pread(file.fileno(), row["png_length"], row["png_offset"])
    if not data or len(data) != row["png_length"]:
        raise _corrupt(folder, row["shard"], f"key {row['key']} has no image in the tar")
    return data


def _parts(index: int) -> dict[str, str]:
    return {"tar": tar_name(index), "rows": table_name(index)}


def _wrong_sizes(folder: Path, index: int, marker: Mapping[str, Any]) -> list[str]:
    wrong = []
    for part, name in _parts(index).items():
        path = folder / name
        actual = path.stat().st_size if path.is_file() else None
        if actual != marker[part]["bytes"]:
            size = "is missing" if actual is None else f"has {actual} bytes"
            wrong.append(f"{name} {size}, its marker says {marker[part]['bytes']}")
    return wrong


def checked_marker(folder: Path, index: int) -> dict[str, Any]:
    """The marker of a shard whose files have the sizes that it says; else `CorruptShard`."""
    marker = marker_of(folder, index)
    if marker is None:
        raise _corrupt(folder, index, "has no marker, so it was never finished")
    if wrong := _wrong_sizes(folder, index, marker):
        raise _corrupt(folder, index, wrong[0])
    return marker


def _corrupt(folder: Path, index: int, what: str) -> CorruptShard:
    return CorruptShard(f"shard {index:06d} in {folder}: {what}; run produce again to rebuild it")
