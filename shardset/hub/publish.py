"""One version on the Hub: one commit on the head it was planned for, then the tag.

Whatever is lost on the way, a killed process, an answer, a tag, running again goes on from what the
Hub holds: a head with these very files needs only its tag, a tag on them nothing at all.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cgankd.shardset.errors import BadInput, HubError, ReleaseError
from cgankd.shardset.files import sha256_file
from cgankd.shardset.hub.client import HUBS_OWN, Hub, HubFile, RepoType
from cgankd.shardset.release.manifest import CARD, MANIFEST, Manifest
from cgankd.shardset.release.versions import numbers_of


@dataclass(frozen=True)
class LocalFile:
    """A file to publish."""

    path: Path
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Change:
    """What a publication does to one file; `bytes` of a deleted file are those it had."""

    path: str
    kind: Literal["added", "replaced", "deleted", "unchanged"]
    bytes: int


@dataclass(frozen=True)
class Publication:
    """What publishing a version would do; `tagged` is its commit where it was published before."""

    repo_id: str
    repo_type: RepoType
    version: str
    files: Mapping[str, LocalFile]
    exists: bool
    head: str | None
    changes: tuple[Change, ...]
    tagged: str | None

    @property
    def is_sent(self) -> bool:
        """Whether a commit is needed."""
        return any(change.kind != "unchanged" for change in self.changes)


def release_files(folder: Path, manifest: Manifest) -> dict[str, LocalFile]:
    """The files of a verified release by their paths, the manifest among them."""
    files = {
        entry.path: LocalFile(folder / entry.path, entry.bytes, entry.sha256)
        for entry in manifest.files
    }
    return {**files, MANIFEST: local_file(folder / MANIFEST)}


def local_file(path: Path) -> LocalFile:
    """A file with its size and hash."""
    return LocalFile(path, path.stat().st_size, sha256_file(path))


def plan_publication(
    hub: Hub,
    repo_id: str,
    version: str,
    files: Mapping[str, LocalFile],
    *,
    repo_type: RepoType = "dataset",
    private: bool = False,
) -> Publication:
    """What publishing `files` as `version` would do; sends nothing.

    A dataset repository is made to hold these files alone, a model repository keeps its others.
    `BadInput` for a token that may not write, a taken or too low version, a repository that holds
    something else than releases, or one that is public where `private` was asked for.
    """
    repo = hub.repo(repo_id, repo_type)
    hub.check_may_write(repo_id, repo_type, repo)
    if repo is None:
        changes = _changes(files, {}, repo_type)
        return Publication(repo_id, repo_type, version, files, False, None, changes, None)
    if private and not hub.is_private(repo_id, repo_type):
        raise BadInput(
            f"{repo_id} is public already; make it private in its settings, or leave out --private"
        )
    tagged = repo.versions.get(version)
    if tagged is not None:
        changes = _changes(files, hub.files(repo_id, tagged, repo_type), repo_type)
        if any(change.kind != "unchanged" for change in changes):
            raise BadInput(_taken(repo_id, version, tagged))
        return Publication(repo_id, repo_type, version, files, True, repo.head, changes, tagged)
    if repo.versions:
        highest = list(repo.versions)[-1]
        if numbers_of(version) < numbers_of(highest):
            raise BadInput(f"{repo_id} has {highest} already; choose a version above it")
    there = hub.files(repo_id, repo.head, repo_type) if repo.head else {}
    if repo_type == "dataset" and MANIFEST not in there and there.keys() - {HUBS_OWN, CARD}:
        raise BadInput(
            f"{repo_id} holds other files and no release ({_example(there)}), and they would be "
            "deleted; choose another name"
        )
    changes = _changes(files, there, repo_type)
    others = [change.path for change in changes if change.kind == "replaced"]
    if repo_type == "model" and not repo.versions and set(others) - {CARD}:
        raise BadInput(
            f"{repo_id} holds another model and no version of ours ({others[0]}), and it would be "
            "replaced; choose another name"
        )
    return Publication(repo_id, repo_type, version, files, True, repo.head, changes, None)


def publish(hub: Hub, plan: Publication, *, private: bool, message: str) -> str:
    """The commit that now carries the version; what is there already is not sent again.

    `HubError` where the Hub fails: nothing or the whole version is then in `main`, and running
    again completes it.
    """
    if plan.tagged is not None:
        return plan.tagged
    if not plan.exists:
        with hub.explained(plan.repo_id):
            hub.api.create_repo(
                plan.repo_id, repo_type=plan.repo_type, private=private, exist_ok=True
            )
        # Somebody else may have made and filled it meanwhile.
        plan = plan_publication(
            hub, plan.repo_id, plan.version, plan.files, repo_type=plan.repo_type, private=private
        )
        if plan.tagged is not None:
            return plan.tagged
    commit = plan.head
    if commit is None or plan.is_sent:
        commit = _committed(hub, plan, message)
    # Also what the Hub may have left out, such as files a .gitignore names.
    if not _is_there(hub, plan, commit):
        raise ReleaseError(
            f"{plan.repo_id}: commit {commit} does not hold the files of {plan.version} alone, so "
            "it was not tagged; run again"
        )
    _tagged(hub, plan, commit)
    return commit


def _committed(hub: Hub, plan: Publication, message: str) -> str:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    where = f"{plan.repo_id}@{plan.version}"
    additions = [
        CommitOperationAdd(change.path, str(plan.files[change.path].path))
        for change in plan.changes
        if change.kind in ("added", "replaced")
    ]
    deletions = [
        CommitOperationDelete(change.path) for change in plan.changes if change.kind == "deleted"
    ]
    with hub.explained(where):
        # Large files first: what was sent stays with the Hub, should this be killed.
        hub.api.preupload_lfs_files(
            plan.repo_id, additions, repo_type=plan.repo_type, free_memory=False
        )
    try:
        with hub.explained(where):
            return hub.api.create_commit(
                plan.repo_id,
                [*additions, *deletions],
                commit_message=message,
                repo_type=plan.repo_type,
                parent_commit=plan.head,
            ).oid
    except HubError:
        # The answer may have been lost after the commit was made.
        repo = hub.repo(plan.repo_id, plan.repo_type)
        if repo and repo.head and repo.head != plan.head and _is_there(hub, plan, repo.head):
            return repo.head
        raise


def _tagged(hub: Hub, plan: Publication, commit: str) -> None:
    try:
        with hub.explained(f"{plan.repo_id}@{plan.version}"):
            hub.api.create_tag(
                plan.repo_id, tag=plan.version, revision=commit, repo_type=plan.repo_type
            )
    except HubError:
        repo = hub.repo(plan.repo_id, plan.repo_type)
        there = repo.versions.get(plan.version) if repo else None
        if there is None:
            raise
        if there != commit:
            raise BadInput(_taken(plan.repo_id, plan.version, there)) from None


def _changes(
    files: Mapping[str, LocalFile], there: Mapping[str, HubFile], repo_type: RepoType
) -> tuple[Change, ...]:
    changes = []
    for path, file in sorted(files.items()):
        if path not in there:
            changes.append(Change(path, "added", file.bytes))
        elif there[path].holds(file.path, file.sha256):
            changes.append(Change(path, "unchanged", file.bytes))
        else:
            changes.append(Change(path, "replaced", file.bytes))
    if repo_type == "dataset":
        gone = sorted(there.keys() - files.keys() - {HUBS_OWN})
        changes += [Change(path, "deleted", there[path].bytes) for path in gone]
    return tuple(changes)


def _is_there(hub: Hub, plan: Publication, commit: str) -> bool:
    there = hub.files(plan.repo_id, commit, plan.repo_type)
    return all(c.kind == "unchanged" for c in _changes(plan.files, there, plan.repo_type))


def _taken(repo_id: str, version: str, commit: str) -> str:
    return (
        f"{repo_id} has another {version} already (commit {commit}), and a version never changes; "
        "release these files under a higher version"
    )


def _example(there: Mapping[str, HubFile]) -> str:
    return next(path for path in sorted(there) if path not in (HUBS_OWN, CARD))
