"""The loopback Hub's repositories on disk: objects by their sha256, commits and refs as JSON.

Every file is written whole or not at all, and a branch or tag moves last, so that whatever dies in
the middle leaves each repository at its old state or its new one.

    objects/ab/abcdef…                        bytes, by sha256
    incoming/                                 uploads that are not complete
    xet/                                      what came through Xet, as its client stores it
    repos/datasets/user/name/repo.json        whether it is private
    repos/datasets/user/name/commits/….json   a commit with all its files
    repos/datasets/user/name/refs.json        branches and tags
"""

import hashlib
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from cgankd.shardset.files import canonical_json, read_json, write_bytes, write_json
from tests.hub.objects import Objects, Refused

MAIN = "main"
REPO_TYPES = ("datasets", "models")
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")
COMMIT = re.compile(r"[0-9a-f]{40}")
LFS_SUFFIXES = (
    "7z", "arrow", "avro", "bin", "bz2", "ckpt", "gif", "gz", "h5", "jpeg", "jpg", "npy", "npz",
    "onnx", "parquet", "pkl", "png", "pt", "pth", "safetensors", "tar", "tgz", "webp", "zip", "zst",
)  # fmt: skip
LFS_BYTES = 10_000_000
GIT_ATTRIBUTES = "".join(
    f"*.{s} filter=lfs diff=lfs merge=lfs -text\n" for s in sorted(LFS_SUFFIXES)
)


class StoredFile(BaseModel):
    """A file of a commit; `blob` is git's hash of the file, or of its pointer where it is LFS."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    sha256: str
    size: int
    blob: str
    lfs: bool

    @property
    def pointer_size(self) -> int:
        """The bytes of the pointer that git would hold for an LFS file."""
        return len(_pointer(self.sha256, self.size))


class Commit(BaseModel):
    """One state of a repository, with everything that is in it."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: str
    parent: str | None
    title: str
    message: str
    date: str
    files: dict[str, StoredFile]


class Refs(BaseModel):
    """The commits that branches and tags name."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    branches: dict[str, str]
    tags: dict[str, str]


@dataclass(frozen=True)
class Change:
    """What a commit does: files written, files removed, folders removed."""

    written: Mapping[str, StoredFile]
    deleted_files: tuple[str, ...] = ()
    deleted_folders: tuple[str, ...] = ()


def git_hash(data: bytes) -> str:
    """The sha1 that git gives these bytes as a blob."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _pointer(sha256: str, size: int) -> bytes:
    return (
        f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
    )


def lfs_file(sha256: str, size: int) -> StoredFile:
    """An LFS file as a commit holds it."""
    return StoredFile(sha256=sha256, size=size, blob=git_hash(_pointer(sha256, size)), lfs=True)


def is_lfs(path: str, size: int) -> bool:
    """Whether the Hub wants a file through LFS rather than inside the commit."""
    return size >= LFS_BYTES or path.rpartition(".")[2].lower() in LFS_SUFFIXES


def check_path(path: str) -> str:
    """`path` if it names a file inside a repository; else `Refused` 400."""
    parts = path.split("/")
    if any(part in ("", ".", "..", ".git") for part in parts) or "\\" in path or "\0" in path:
        raise Refused(400, f"{path!r} is not a path inside a repository")
    return path


class Repo:
    """One repository's commits and refs. Changes are made under the storage's lock."""

    def __init__(self, folder: Path, kind: str, name: str) -> None:
        self.folder = folder
        self.kind = kind
        self.name = name

    @property
    def exists(self) -> bool:
        return (self.folder / "repo.json").is_file()

    @property
    def address(self) -> str:
        """The repository's place below the endpoint; a model's has no prefix."""
        return self.name if self.kind == "models" else f"{self.kind}/{self.name}"

    @property
    def private(self) -> bool:
        return bool(read_json(self.folder / "repo.json")["private"])

    @property
    def refs(self) -> Refs:
        return Refs.model_validate_json((self.folder / "refs.json").read_bytes())

    def commit(self, revision: str) -> Commit:
        """The commit that a branch, a tag or a commit's id names; else 404."""
        refs = self.refs
        plain = re.sub(r"^refs/(heads|tags)/", "", revision)
        commit_id = refs.branches.get(plain) or refs.tags.get(plain) or revision
        path = self.folder / "commits" / f"{commit_id}.json"
        if not COMMIT.fullmatch(commit_id) or not path.is_file():
            raise Refused(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return Commit.model_validate_json(path.read_bytes())

    def history(self, revision: str) -> Iterator[Commit]:
        """A commit and its ancestors, newest first."""
        commit: Commit | None = self.commit(revision)
        while commit is not None:
            yield commit
            commit = None if commit.parent is None else self.commit(commit.parent)

    def add_commit(
        self, branch: str, change: Change, title: str, message: str, expected: str | None = None
    ) -> Commit:
        """The new head of a branch; 412 where the branch is not at the `expected` parent."""
        refs = self.refs
        if branch not in refs.branches:
            raise Refused(404, f"{branch} is not a branch", "RevisionNotFound")
        head = self.commit(refs.branches[branch])
        if expected not in (None, head.id):
            raise Refused(412, "A commit has happened since. Please refresh and try again.")
        files = dict(head.files)
        for path in change.deleted_files:
            if path not in files:
                raise Refused(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
            del files[path]
        for folder in change.deleted_folders:
            inside = [path for path in files if path.startswith(folder.rstrip("/") + "/")]
            if not inside:
                raise Refused(404, f"No folder of this name: {folder}", "EntryNotFound")
            for path in inside:
                del files[path]
        files.update(change.written)
        commit = self._write_commit(head.id, files, title, message)
        self._write_refs(Refs(branches={**refs.branches, branch: commit.id}, tags=refs.tags))
        return commit

    def add_tag(self, tag: str, revision: str) -> None:
        """Names a commit; 409 where the tag is taken, whatever it names."""
        commit, refs = self.commit(revision), self.refs
        if tag in refs.tags:
            raise Refused(409, f"Tag {tag} already exists")
        self._write_refs(Refs(branches=refs.branches, tags={**refs.tags, tag: commit.id}))

    def delete_tag(self, tag: str) -> None:
        """Removes a tag; 404 where there is none."""
        refs = self.refs
        if tag not in refs.tags:
            raise Refused(404, f"{tag} is not a tag", "RevisionNotFound")
        tags = {name: commit for name, commit in refs.tags.items() if name != tag}
        self._write_refs(Refs(branches=refs.branches, tags=tags))

    def add_branch(self, branch: str, revision: str) -> None:
        """A branch from a commit; 409 where it exists."""
        commit, refs = self.commit(revision), self.refs
        if branch in refs.branches:
            raise Refused(409, f"Branch {branch} already exists")
        self._write_refs(Refs(branches={**refs.branches, branch: commit.id}, tags=refs.tags))

    def begin(self, private: bool, objects: Objects) -> None:
        """Writes a new repository with the Hub's first commit; `repo.json` last: then it exists."""
        attributes = GIT_ATTRIBUTES.encode()
        first = StoredFile(
            sha256=objects.receive([attributes]),
            size=len(attributes),
            blob=git_hash(attributes),
            lfs=False,
        )
        commit = self._write_commit(None, {".gitattributes": first}, "initial commit", "")
        self._write_refs(Refs(branches={MAIN: commit.id}, tags={}))
        write_json(self.folder / "repo.json", {"private": private})

    def _write_commit(
        self, parent: str | None, files: Mapping[str, StoredFile], title: str, message: str
    ) -> Commit:
        commit = Commit(
            id="",
            parent=parent,
            title=title,
            message=message,
            date=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            files=dict(files),
        )
        commit_id = hashlib.sha1(canonical_json(commit.model_dump())).hexdigest()
        commit = commit.model_copy(update={"id": commit_id})
        write_json(self.folder / "commits" / f"{commit_id}.json", commit.model_dump())
        return commit

    def _write_refs(self, refs: Refs) -> None:
        write_bytes(self.folder / "refs.json", canonical_json(refs.model_dump()))


class HubStorage:
    """All repositories in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.objects = Objects(folder)
        self.xet = folder / "xet"  # where Xet clients write
        self.lock = threading.Lock()  # held while anything in a repository changes

    def place(self, kind: str, name: str) -> Repo:
        """Where a repository is, or would be made; 400 for what cannot be the name of one."""
        owner, _, short = name.partition("/")
        if kind not in REPO_TYPES or not all(
            NAME.fullmatch(part) and ".." not in part for part in (owner, short)
        ):
            raise Refused(400, f"{name!r} is not the name of a repository of {kind}")
        return Repo(self.folder / "repos" / kind / owner / short, kind, name)

    def repo(self, kind: str, name: str) -> Repo:
        """A repository that exists; else 404."""
        repo = self.place(kind, name)
        if not repo.exists:
            raise Refused(404, "Repository not found", "RepoNotFound")
        return repo
