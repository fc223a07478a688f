"""Builds the folder that goes to the Hub: Parquet with images, scores, card and manifest."""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cgankd.shardset.errors import BadInput, ReleaseError, RunBusy
from cgankd.shardset.files import (
    canonical_json,
    naming_full_disk,
    parse_json,
    read_json,
    sha256_file,
    sync_file,
    write_bytes,
)
from cgankd.shardset.labels import LabelSpace
from cgankd.shardset.pool.shards import verify_shard
from cgankd.shardset.release.card import data_folders, render_card, sample_grid
from cgankd.shardset.release.manifest import (
    CARD,
    CURATION,
    MANIFEST,
    REPORT,
    SAMPLES,
    Changes,
    FileEntry,
    Lineage,
    Manifest,
    read_manifest,
)
from cgankd.shardset.release.tables import (
    ACCEPTED,
    REJECTED,
    SCORES,
    curation_counts,
    joined,
    per_group,
    write_images,
    write_scores,
)
from cgankd.shardset.release.versions import (
    FIRST,
    Proposal,
    changes_of,
    next_version,
    numbers_of,
    parent_of,
)
from cgankd.shardset.tables import numbered_tables, read_metadata


@dataclass(frozen=True)
class ReleaseFacts:
    """A built release: `accepted` and `rejected` images, and the hash that names its content."""

    folder: Path
    version: str
    accepted: int
    rejected: int
    bytes: int
    manifest_sha256: str


@dataclass(frozen=True)
class Sources:
    """What a release is built of: a pool, its score tables, a selection's table, and what is
    known of them. The card shows what is given of the lineage.
    """

    pool: Path
    scores: Path
    selection: Path
    space: LabelSpace
    lineage: Lineage
    include_rejected: bool
    report: Mapping[str, Any] | None = None  # becomes `metadata/report.json`
    # Gives a parent's policy the names of today, to compare it.
    current_policy: Callable[[Any], Any] = lambda policy: policy


@dataclass(frozen=True)
class _Content:
    """All that a release is made of, in tables and plain values."""

    table: pa.Table  # a row for every key, with the place of its PNG
    lost: pa.Table  # the rejected rows that are published
    manifest: Manifest  # without version, files and parent
    curation: dict[str, Any]
    report: Mapping[str, Any] | None

    @property
    def kept(self) -> pa.Table:
        return self.table.filter(self.table["kept"])


def build_release(
    out: Path,
    version: str,
    sources: Sources,
    *,
    workers: int = 1,
) -> ReleaseFacts:
    """The facts of a new release `out/version`, built whole or not at all.

    PNG bytes go from tar to Parquet undecoded, after every shard's hash was checked. The highest
    lower version in `out` is its parent; where the data are the parent's, so are the bytes of the
    data files. The number of `workers` (threads) changes no byte. `BadInput` for a version that is
    none or exists, `ReleaseError` where pool, scores and selection do not belong together.
    """
    numbers_of(version)
    folder = out / version
    if folder.exists():
        raise BadInput(f"{folder} exists and a release never changes; choose a higher version")
    content = _content(sources, workers)
    manifest = content.manifest.model_copy(update={"version": version})
    parent, same_data = parent_of(out, version), False
    if parent is not None:
        changes = _changes(out / parent, content, sources.current_policy)
        same_data = changes is None or changes.level == "patch"
        update = {"parent_version": parent, "changes": changes}
        update["parent_manifest_sha256"] = sha256_file(out / parent / MANIFEST)
        manifest = manifest.model_copy(update=update)
    with whole_folder(folder) as partial:
        if parent is not None and same_data:
            _copy_data(out / parent, partial)
        else:
            space = manifest.space
            write_images(partial, ACCEPTED, content.kept, sources.pool, space, workers)
            write_images(partial, REJECTED, content.lost, sources.pool, space, workers)
            write_scores(partial, content.table, space, workers)
        write_bytes(partial / CURATION, canonical_json(content.curation))
        if content.report is not None:
            write_bytes(partial / REPORT, canonical_json(content.report))
        write_bytes(partial / SAMPLES, sample_grid(content.kept, sources.pool, manifest.space))
        card = render_card(manifest, content.curation, data_folders(partial), content.report)
        write_bytes(partial / CARD, card.encode())
        manifest = manifest.model_copy(update={"files": entries_of(partial, workers)})
        write_bytes(partial / MANIFEST, canonical_json(manifest.model_dump(mode="json")))
    return release_facts(folder)


def propose_version(out: Path, sources: Sources) -> Proposal:
    """The version that a release of this should get after the highest one in `out`, and why."""
    parent = parent_of(out, None)
    if parent is None:
        return Proposal(FIRST, None, "the first version")
    content = _content(sources, 1, verify=False)
    changes = _changes(out / parent, content, sources.current_policy)
    if changes is None:
        return Proposal(parent, parent, "")
    version = next_version(parent, changes.level)
    return Proposal(version, parent, f"{changes.level} change: {'; '.join(changes.reasons)}")


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


def entries_of(folder: Path, workers: int = 1) -> tuple[FileEntry, ...]:
    """The manifest's entries of all files of a folder that is to become a release."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    with ThreadPoolExecutor(workers) as threads:
        digests = list(threads.map(sha256_file, paths))
    return tuple(
        FileEntry(
            path=path.relative_to(folder).as_posix(),
            sha256=digest,
            bytes=path.stat().st_size,
            rows=pq.read_metadata(path).num_rows if path.suffix == ".parquet" else None,
        )
        for path, digest in zip(paths, digests, strict=True)
    )


def _content(sources: Sources, workers: int, verify: bool = True) -> _Content:
    import pyarrow.compute as pc

    selection, space = sources.selection, sources.space
    # All as it is read back from JSON, so that it compares with an earlier release's.
    lineage = Lineage.model_validate_json(canonical_json(sources.lineage.plain()))
    report = parse_json(canonical_json(sources.report), selection)
    origin = _check_pool(sources.pool, workers, verify)
    table = joined(sources.pool, sources.scores, selection, space)
    kept = table.filter(table["kept"])
    if not len(kept):
        raise ReleaseError(f"{selection} keeps no sample, so there is nothing to release")
    if pc.any(pc.equal(kept["png_length"], 0)).as_py():
        raise ReleaseError(f"{selection} keeps a sample without an image; select again")
    lost = table.filter(pc.invert(table["kept"])) if sources.include_rejected else table.slice(0, 0)
    manifest = Manifest(
        version=FIRST,
        space=space,
        pool_id=origin["pool_id"],
        production_seed=origin["seed"],
        accepted=per_group(kept, space),
        rejected=per_group(lost, space),
        files=(),
        lineage=lineage,
    )
    record = {**read_metadata(selection), "labels": curation_counts(table, space)}
    curation = parse_json(canonical_json(record), selection)
    return _Content(table, lost, manifest, curation, report)


def _changes(
    folder: Path, content: _Content, current_policy: Callable[[Any], Any]
) -> Changes | None:
    parent = read_manifest(folder)
    curation = read_json(folder / CURATION)
    report = read_json(folder / REPORT) if (folder / REPORT).is_file() else None
    try:
        card = render_card(parent, curation, data_folders(folder), report)
    except pa.ArrowException as error:
        raise ReleaseError(
            f"{folder} is damaged, so no version can follow it ({error}); `cgankd verify` says "
            "where, fetch it again or remove it"
        ) from error
    metadata = {
        CURATION: (canonical_json(curation), canonical_json(content.curation)),
        REPORT: (canonical_json(report), canonical_json(content.report)),
        # As this version of the tool writes the card of what the parent holds.
        CARD: ((folder / CARD).read_text("utf-8"), card),
    }
    return changes_of(parent, folder, content.table, content.manifest, metadata, current_policy)


def _copy_data(parent: Path, partial: Path) -> None:
    """Copies the data files of a release whose data are the same, and compares their hashes."""
    for entry in read_manifest(parent).files:
        if entry.path.startswith((f"{ACCEPTED}/", f"{REJECTED}/", f"{SCORES}/")):
            target = partial / entry.path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(parent / entry.path, target)
            if sha256_file(target) != entry.sha256:
                raise ReleaseError(
                    f"{parent / entry.path} is not as its manifest says, so no version can follow "
                    f"{parent.name}; fetch it again, or remove it"
                )
            sync_file(target)


def _check_pool(pool: Path, workers: int, verify: bool) -> dict[str, Any]:
    """The seed and pool_id that all shards agree on, after each one's bytes were verified."""
    paths = numbered_tables(pool)
    if not paths:
        raise ReleaseError(f"{pool} holds no shards; run produce first")
    if verify:
        with ThreadPoolExecutor(workers) as threads:
            list(threads.map(lambda index: verify_shard(pool, index), range(len(paths))))
    origins = [read_metadata(path) for path in paths]
    for path, origin in zip(paths, origins, strict=True):
        if origin != origins[0]:
            raise ReleaseError(f"{path} belongs to another pool than 000000; redo the pool")
    return origins[0]


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder beside `folder`, renamed to it on success, removed on failure.

    `RunBusy` where another process is writing the same one.
    """
    partial = folder.with_name(f".{folder.name}.partial")
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder.parent, os.O_RDONLY)
    try:
        _locked(lock, folder.parent)
        with naming_full_disk(folder):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            try:
                yield partial
                partial.rename(folder)
                sync_file(folder.parent)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    finally:
        os.close(lock)


def _locked(handle: int, folder: Path) -> None:
    """Holds a folder until its handle is closed, however the process ends."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise RunBusy(f"another process is writing a release into {folder}; wait for it") from error
