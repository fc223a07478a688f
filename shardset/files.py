"""Files that are either whole or absent, and hashes that do not depend on formatting."""

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cgankd.shardset.errors import BadInput, CorruptShard

CHUNK = 1 << 20
PARTIAL = ".partial"
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def sha256_file(path: Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def canonical_json(value: Any) -> bytes:
    """The one JSON text of a value: sorted keys, no NaN, UTF-8, a newline at the end."""
    text = json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False)
    return text.encode() + b"\n"


def fingerprint(fields: Mapping[str, Any]) -> str:
    """The sha256 of a mapping's canonical JSON, in hex."""
    return hashlib.sha256(canonical_json(fields)).hexdigest()


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed that depends on every part, the same on every machine."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def sync_file(path: Path) -> None:
    """Makes a file's bytes, or a folder's names, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def naming_full_disk(path: Path) -> Iterator[None]:
    """Turns a full disk, met while `path` is written, into one line of `BadInput`."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise BadInput(f"{path}: the disk is full; free some space and run again") from error
        raise


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, synced and renamed to it on success, removed on failure.

    A full disk is `BadInput` in one line; everything written before stays as it was.
    """
    partial = path.with_name(f"{path.name}{PARTIAL}")
    try:
        with naming_full_disk(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.unlink(missing_ok=True)
            yield partial
            sync_file(partial)
            os.replace(partial, path)
            sync_file(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file atomically."""
    with atomic_path(path) as partial:
        partial.write_bytes(data)


def write_json(path: Path, value: Any) -> None:
    """Writes a value's canonical JSON atomically."""
    write_bytes(path, canonical_json(value))


def parse_json(data: bytes, path: Path) -> Any:
    """The value of a JSON text from `path`; `CorruptShard` names the file if it is not JSON."""
    try:
        return json.loads(data)
    except ValueError as error:  # also of bytes that are not UTF-8
        raise CorruptShard(
            f"{path} is not valid JSON ({error}); remove it and run again"
        ) from error


def read_json(path: Path) -> Any:
    """The value of a JSON file; `CorruptShard` names a file that is not JSON."""
    return parse_json(path.read_bytes(), path)
