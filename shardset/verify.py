"""Says whether a release folder is what its manifest says, byte for byte."""

from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.parquet as pq

from shardset.errors import ReleaseError
from shardset.files import sha256_file
from shardset.manifest import MANIFEST, FileEntry, read_manifest

# The manifest cannot list itself, and the Hub adds its own file to every repository.
UNLISTED = {MANIFEST, ".gitattributes"}


def verify_release(folder: Path) -> list[str]:
    """One line for every missing, cut, changed or added file; empty if the release is whole."""
    try:
        manifest = read_manifest(folder)
    except ReleaseError as error:
        return [str(error)]
    problems: list[str] = []
    listed: set[str] = set(UNLISTED)
    for entry in manifest.files:
        if not _is_inside(entry.path):
            problems.append(f"{entry.path}: the manifest points outside the release")
        elif entry.path in listed:
            problems.append(f"{entry.path}: the manifest lists it twice or must not list it")
        else:
            problems += _check(folder, entry)
        listed.add(entry.path)
    for part, counts in (("accepted", manifest.accepted), ("rejected", manifest.rejected)):
        rows = sum(e.rows or 0 for e in manifest.files if e.path.startswith(f"data/{part}/"))
        if rows != sum(counts):
            problems.append(
                f"data/{part}: its files have {rows} rows, the manifest counts {sum(counts)} images"
            )
    # Links to folders are not followed: they are names the manifest does not know.
    found = (path for path in sorted(folder.rglob("*")) if path.is_symlink() or path.is_file())
    names = (path.relative_to(folder).as_posix() for path in found)
    problems += [
        f"{name}: not in the manifest, it was added" for name in names if name not in listed
    ]
    return problems


def _is_inside(path: str) -> bool:
    pure = PurePosixPath(path)
    return not pure.is_absolute() and ".." not in pure.parts and str(pure) == path


def _check(folder: Path, entry: FileEntry) -> list[str]:
    path = folder / entry.path
    if not path.is_file():
        return [f"{entry.path}: missing"]
    size = path.stat().st_size
    if size != entry.bytes:
        what = "cut to" if size < entry.bytes else "grown to"
        return [f"{entry.path}: {what} {size} bytes, the manifest says {entry.bytes}"]
    if sha256_file(path) != entry.sha256:
        return [f"{entry.path}: changed, its sha256 is not the manifest's"]
    if entry.rows is None:
        return []
    try:
        rows = pq.read_metadata(path).num_rows
    except pa.ArrowException:
        return [f"{entry.path}: not Parquet, the manifest says {entry.rows} rows"]
    if rows != entry.rows:
        return [f"{entry.path}: has {rows} rows, the manifest says {entry.rows}"]
    return []
