"""Names of releases: a folder, or `user/name[@v1.2.0]` on the Hub."""

import re
from dataclasses import dataclass
from pathlib import Path

from shardset.errors import BadInput
from shardset.manifest import MANIFEST, VERSION_PATTERN

REPO_PATTERN = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"
COMMIT_PATTERN = r"[0-9a-f]{40}"


@dataclass(frozen=True)
class HubId:
    """A repository of the Hub; `revision` is a version, a commit, or None for the highest."""

    repo_id: str
    revision: str | None

    def __str__(self) -> str:
        return self.repo_id if self.revision is None else f"{self.repo_id}@{self.revision}"

    @property
    def is_commit(self) -> bool:
        """Whether the revision is a commit, which needs no looking up."""
        return bool(self.revision and re.fullmatch(COMMIT_PATTERN, self.revision))


def release_at(spec: str) -> Path | HubId:
    """The release folder, or the Hub id, that a spec names; `BadInput` where it is neither.

    A folder counts only if it holds a manifest: a mistyped path never becomes a Hub id, nor an id
    a path.
    """
    path = Path(spec).expanduser()
    if (path / MANIFEST).is_file():
        return path
    if path.exists():
        raise BadInput(
            f"{spec} exists here and holds no {MANIFEST}; give a release folder, or a Hub id with "
            "its version (user/name@v1.0.0)"
        )
    if spec.startswith(("/", ".", "~")) or spec.partition("@")[0].count("/") > 1:
        raise BadInput(f"{spec} does not exist; give a release folder or user/name@v1.0.0")
    return hub_id(spec)


def hub_id(spec: str) -> HubId:
    """The Hub id that `user/name[@vX.Y.Z]` or `user/name@COMMIT` names; `BadInput` for others."""
    repo_id, at, revision = spec.partition("@")
    if not re.fullmatch(REPO_PATTERN, repo_id):
        raise BadInput(
            f"{spec!r} is neither a release folder nor an id of the Hub; expected user/name@v1.0.0"
        )
    if not at:
        return HubId(repo_id, None)
    if not re.fullmatch(f"{VERSION_PATTERN}|^{COMMIT_PATTERN}$", revision):
        raise BadInput(
            f"{spec!r}: {revision!r} is neither a version (v1.0.0) nor a commit of 40 digits; "
            "branches move and are not read"
        )
    return HubId(repo_id, revision)
