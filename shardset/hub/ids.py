"""Names of releases: a folder, or `user/name[@v1.2.0]` on the Hub."""

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from pydantic import Field, ValidationError

from cgankd.shardset.errors import BadInput, CorruptShard, ReleaseError
from cgankd.shardset.files import canonical_json
from cgankd.shardset.records import Record
from cgankd.shardset.release.manifest import MANIFEST, VERSION_PATTERN

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


class Pin(Record):
    """The commit that a version is, and the hash that names its content."""

    commit: str = Field(pattern=f"^{COMMIT_PATTERN}$")
    manifest_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


def pin_path(endpoint: str, repo_id: str, revision: str) -> Path:
    """Where the pin of a version, or of a commit, lies."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HOME) / "cgankd" / "pins" / quote(endpoint, safe="")
    return folder / repo_id / f"{revision}.json"


def read_pin(endpoint: str, repo_id: str, revision: str) -> Pin | None:
    """The pin of a version; None if it was never seen here."""
    path = pin_path(endpoint, repo_id, revision)
    try:
        return Pin.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise CorruptShard(f"{path} is not a pinned version; remove it and run again") from error


def pinned_versions(endpoint: str, repo_id: str) -> list[str]:
    """The revisions of a repository that were seen here."""
    return sorted(path.stem for path in pin_path(endpoint, repo_id, "").parent.glob("*.json"))


def check_pin(endpoint: str, repo_id: str, revision: str, commit: str) -> None:
    """`ReleaseError` if the version was another commit when it was first seen here."""
    pin = read_pin(endpoint, repo_id, revision)
    if pin is not None and pin.commit != commit:
        raise ReleaseError(
            f"{repo_id}@{revision}: the tag moved from {pin.commit} to {commit}, and a version "
            f"never changes; read {repo_id}@{pin.commit}, or ask its publisher and, if you trust "
            f"the new one, remove {pin_path(endpoint, repo_id, revision)}"
        )


def write_pin(endpoint: str, repo_id: str, revision: str, pin: Pin) -> None:
    """Records a version, whole or not at all, also where several processes do so at once."""
    path = pin_path(endpoint, repo_id, revision)
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".partial", delete=False) as file:
        file.write(canonical_json(pin.model_dump(mode="json")))
        file.flush()
        os.fsync(file.fileno())
    os.replace(file.name, path)
