"""Which commit each version of the Hub was when it was first seen here, so that none can move.

One small file per version under `HF_HOME/cgankd/pins`: written once, never changed, and what
`--offline` reads by.
"""

import os
import tempfile
from pathlib import Path
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shardset.errors import CorruptShard, ReleaseError
from shardset.files import canonical_json
from shardset.hub_id import COMMIT_PATTERN


class Pin(BaseModel):
    """The commit that a version is, and the hash that names its content."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

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
