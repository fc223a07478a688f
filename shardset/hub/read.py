"""A release, opened by folder or by Hub id: pinned to a commit and verified byte for byte.

Files lie in the Hub client's own cache. Nothing is taken from it on trust: the commit is asked for
first, the Hub's listing is compared with the manifest before any data is read, and the bytes after.
"""

import os
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from cgankd.shardset.errors import BadInput, ReleaseError
from cgankd.shardset.files import sha256_file, sync_file
from cgankd.shardset.hub.client import HUBS_OWN, Hub, HubFile, Repo
from cgankd.shardset.hub.ids import (
    COMMIT_PATTERN,
    HubId,
    Pin,
    check_pin,
    pinned_versions,
    read_pin,
    release_at,
    write_pin,
)
from cgankd.shardset.release.build import whole_folder
from cgankd.shardset.release.manifest import (
    MANIFEST,
    FileEntry,
    Manifest,
    parse_manifest,
    read_manifest,
)
from cgankd.shardset.release.verify import verify_release

DOWNLOADS = 8  # at once
NAMED = 3  # files in one line of an error

Copy = Callable[[Path, Path], object]
Fetch = Callable[[str], Path]  # a file of the release, by its path, to where it lies here


@dataclass(frozen=True)
class Opened:
    """A verified release: `repo_id` and `commit` are None where it was a local folder."""

    folder: Path
    manifest: Manifest
    repo_id: str | None
    version: str
    commit: str | None

    @property
    def name(self) -> str:
        """`user/name@v1.2.0`, or the version of a folder."""
        return self.version if self.repo_id is None else f"{self.repo_id}@{self.version}"


def opened(
    spec: str,
    *,
    offline: bool = False,
    only: Sequence[str] | None = None,
    endpoint: str | None = None,
    token: str | None = None,
) -> Opened:
    """A release that is what its manifest says, from a folder, `user/name[@v1.2.0]` or a commit.

    Without a version the highest is read. `only` are glob patterns of the files that are wanted,
    all if not given; the manifest always comes. `offline` reads the cached copy of exactly the
    commit that the version was when it was last read here, and asks nobody. `BadInput` for what
    does not exist; `ReleaseError` for a moved tag, or content that is not the manifest's;
    `HubError` where the Hub does not answer: nothing is served from a cache instead.
    """
    where = release_at(spec)
    if isinstance(where, Path):
        return _local(where, only)
    return _cached(where, only, endpoint) if offline else _online(where, only, endpoint, token)


def copy_release(release: Opened, out: Path, copy: Copy = shutil.copyfile) -> None:
    """Copies a whole opened release to a plain new folder: all of it, verified again, or none."""
    if out.exists():
        raise BadInput(f"{out} exists; give a new folder")
    with whole_folder(out) as partial:
        for name in (*(entry.path for entry in release.manifest.files), MANIFEST):
            target = partial / name
            target.parent.mkdir(parents=True, exist_ok=True)
            copy((release.folder / name).resolve(), target)
            sync_file(target)
        if problems := verify_release(partial):
            raise ReleaseError(f"{release.folder}: {_few(problems)}")


def link_or_copy(source: Path, target: Path) -> None:
    """The same file under another name; a copy where the file system has no such links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _local(folder: Path, only: Sequence[str] | None) -> Opened:
    manifest = read_manifest(folder)
    if only is None:
        # Whoever reads the pictures decodes them anyway.
        if problems := verify_release(folder, pixels=False):
            raise ReleaseError(f"{folder}: {_few(problems)}")
    else:
        _read(manifest, only, lambda name: folder / name, "build or pull it again")
    return Opened(folder, manifest, None, manifest.version, None)


def _online(
    where: HubId, only: Sequence[str] | None, endpoint: str | None, token: str | None
) -> Opened:
    hub = Hub(endpoint, token)
    repo = hub.repo(where.repo_id)
    if repo is None:
        raise BadInput(
            f"{where}: {hub.endpoint} has no such dataset, or none that you may read; check the "
            "id, or log in with `hf auth login`"
        )
    revision = where.revision or _highest(where, repo)
    if not where.is_commit and revision not in repo.versions:
        known = ", ".join(repo.versions) or "none"
        raise BadInput(f"{where}: there is no version {revision}; it has {known}")
    name = f"{where.repo_id}@{revision}"
    if not where.is_commit and revision in repo.branches:
        raise ReleaseError(f"{name} is a tag and a branch, which may change; delete the branch")
    with hub.explained(name):
        # Not `resolve_revision`, which answers from the cache where the Hub does not.
        commit = hub.api.dataset_info(where.repo_id, revision=revision).sha
    if not commit or not re.fullmatch(COMMIT_PATTERN, commit):
        raise ReleaseError(f"{name}: {hub.endpoint} names no commit for it, but {commit!r}")
    if where.is_commit and commit != revision:
        raise ReleaseError(f"{name}: {hub.endpoint} answers with another commit, {commit}")
    check_pin(hub.endpoint, where.repo_id, revision, commit)

    def fetch(path: str) -> Path:
        with hub.explained(f"{name}: {path}"):
            return Path(
                hub.api.hf_hub_download(where.repo_id, path, repo_type="dataset", revision=commit)
            )

    listed = hub.files(where.repo_id, commit)
    manifest = _manifest(name, listed, fetch)
    if not where.is_commit and manifest.version != revision:
        raise ReleaseError(
            f"{name}: its manifest says {manifest.version}; the tag is on another version's commit"
        )
    _compare(name, manifest, listed)
    folder = _folder_of(fetch(MANIFEST))
    _read(manifest, only, fetch, "remove that file and run again")
    _nothing_else(folder, manifest)
    pin = Pin(commit=commit, manifest_sha256=sha256_file(folder / MANIFEST))
    write_pin(hub.endpoint, where.repo_id, revision, pin)
    return Opened(folder, manifest, where.repo_id, manifest.version, commit)


def _cached(where: HubId, only: Sequence[str] | None, endpoint: str | None) -> Opened:
    from huggingface_hub import constants, try_to_load_from_cache

    endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
    known = ", ".join(pinned_versions(endpoint, where.repo_id)) or "none"
    if where.revision is None:
        raise BadInput(f"{where}: --offline needs a version; read here before: {known}")
    pin = read_pin(endpoint, where.repo_id, where.revision)
    if pin is None:
        raise BadInput(
            f"{where} was never read here, so there is no copy to trust (read before: {known}); "
            "leave out --offline once"
        )

    def fetch(path: str) -> Path:
        cached = try_to_load_from_cache(
            where.repo_id, path, repo_type="dataset", revision=pin.commit
        )
        if not isinstance(cached, str):
            raise BadInput(
                f"{where}: {path} of commit {pin.commit} is not in the cache; leave out --offline "
                "once"
            )
        return Path(cached)

    path = fetch(MANIFEST)
    if sha256_file(path) != pin.manifest_sha256:
        raise ReleaseError(_changed(where, MANIFEST, path, "remove that file, leave out --offline"))
    folder = _folder_of(path)
    manifest = parse_manifest(path.read_bytes(), str(path))
    _read(manifest, only, fetch, "remove that file and leave out --offline once")
    _nothing_else(folder, manifest)
    return Opened(folder, manifest, where.repo_id, manifest.version, pin.commit)


def _highest(where: HubId, repo: Repo) -> str:
    if not repo.versions:
        raise BadInput(f"{where} has no version; its publisher has to tag one (cgankd publish)")
    return list(repo.versions)[-1]


def _manifest(name: str, listed: dict[str, HubFile], fetch: Fetch) -> Manifest:
    """The manifest of a commit, whose own hash the Hub's listing tells."""
    if MANIFEST not in listed:
        raise ReleaseError(f"{name} is not a release: it has no {MANIFEST}")
    path, expected = fetch(MANIFEST), listed[MANIFEST]
    if not expected.holds(path, sha256_file(path)):
        raise ReleaseError(_changed(name, MANIFEST, path, "remove that file and run again"))
    return parse_manifest(path.read_bytes(), f"{name}: {MANIFEST}")


def _compare(name: str, manifest: Manifest, listed: dict[str, HubFile]) -> None:
    """`ReleaseError` where the Hub lists other files, sizes or hashes than the manifest."""
    entries = {entry.path: entry for entry in manifest.files}
    problems = [
        f"{path} was added"
        for path in sorted(listed.keys() - entries.keys() - {MANIFEST, HUBS_OWN})
    ]
    for path, entry in entries.items():
        file = listed.get(path)
        if file is None:
            problems.append(f"{path} is missing")
        elif file.bytes != entry.bytes:
            problems.append(f"{path} has {file.bytes} bytes, the manifest says {entry.bytes}")
        elif file.sha256 not in (None, entry.sha256):
            problems.append(f"{path} has another sha256 than the manifest says")
    if problems:
        raise ReleaseError(f"{name} is not as its manifest says: {_few(problems)}")


def _read(manifest: Manifest, only: Sequence[str] | None, fetch: Fetch, remedy: str) -> None:
    """Fetches the wanted files, several at once; `ReleaseError` names one with other bytes."""

    def check(entry: FileEntry) -> None:
        path = fetch(entry.path)
        if not path.is_file():
            raise ReleaseError(f"{path} is missing; {remedy}")
        if path.stat().st_size != entry.bytes or sha256_file(path) != entry.sha256:
            raise ReleaseError(_changed(manifest.version, entry.path, path, remedy))

    wanted = [entry for entry in manifest.files if _is_wanted(entry.path, only)]
    pool = ThreadPoolExecutor(DOWNLOADS)
    try:
        for _ in pool.map(check, wanted):
            pass
    finally:
        pool.shutdown(cancel_futures=True)


def _is_wanted(path: str, only: Sequence[str] | None) -> bool:
    return only is None or any(fnmatchcase(path, pattern) for pattern in only)


def _nothing_else(folder: Path, manifest: Manifest) -> None:
    """`ReleaseError` if the cached folder holds a file that is not of the release."""
    known = {entry.path for entry in manifest.files} | {MANIFEST, HUBS_OWN}
    wanted = {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_symlink() or path.is_file()
    }
    if added := sorted(wanted - known):
        raise ReleaseError(f"{folder / added[0]} was added to the cached copy; remove that file")


def _folder_of(manifest: Path) -> Path:
    return manifest.parents[len(PurePosixPath(MANIFEST).parts) - 1]


def _changed(where: object, name: str, path: Path, remedy: str) -> str:
    # The cache links to where the bytes are, and removing the link alone would change nothing.
    return (
        f"{where}: {name} has other bytes than it must have, the copy at {path.resolve()} was "
        f"changed or cut; {remedy}"
    )


def _few(problems: Iterable[str]) -> str:
    problems = list(problems)
    more = f" and {len(problems) - NAMED} more" if len(problems) > NAMED else ""
    return "; ".join(problems[:NAMED]) + more
