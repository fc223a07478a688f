"""What a pool and a release say about themselves: every file's hash, and where all of it came from.

Nothing here depends on the clock or the machine, so the sha256 of a manifest names its content.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shardset.errors import CorruptShard, ReleaseError
from shardset.files import canonical_json, write_bytes
from shardset.labels import LabelSpace
from shardset.plan import Plan
from shardset.shards import verify_shard

FORMAT_VERSION = 1  # of both manifests
MANIFEST = "metadata/manifest.json"
CURATION = "metadata/curation.json"
CARD = "README.md"
VERSION_PATTERN = r"^v(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)$"
SALTED_DIGITS = 16


class FileEntry(BaseModel):
    """One file of a release; `rows` for Parquet alone."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    path: str
    sha256: str
    bytes: int
    rows: int | None


class Manifest(BaseModel):
    """`metadata/manifest.json` of a release; it lists every file but itself."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    format_version: Literal[1] = 1
    version: str = Field(pattern=VERSION_PATTERN)
    space: LabelSpace
    pool_id: str
    production_seed: int
    accepted: Annotated[
        tuple[int, ...], Field(description="images for each class or part of the range")
    ]
    rejected: Annotated[tuple[int, ...], Field(description="the same; zeros if left out")]
    files: tuple[FileEntry, ...]
    facts: dict[str, Any] = Field(description="lineage, as `build_release` was given it")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a release folder; `ReleaseError` in one line if there is none to trust."""
    path = folder / MANIFEST
    if not path.is_file():
        raise ReleaseError(f"{folder} is not a release: {MANIFEST} is missing")
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise ReleaseError(
            f"{path} is not a manifest of format {FORMAT_VERSION} ({place}: {first['msg']})"
        ) from error


def salted_hashes(pixel_hashes: Iterable[str], salt: str) -> list[str]:
    """Sorted salted hashes of images, 16 hex digits each.

    With the salt, which is published beside them, one can ask whether an image that one has is
    among them; a lookup table made for another release does not answer it.
    """
    return sorted(
        hashlib.sha256(f"{salt}\n{pixel_hash}".encode()).hexdigest()[:SALTED_DIGITS]
        for pixel_hash in pixel_hashes
    )


def write_pool_manifest(pool: Path, plan: Plan) -> str:
    """The sha256 of the `manifest.json` written to a finished pool: its plan and its shards.

    Reads every byte of the pool; `CorruptShard` names the first shard that is not as its marker
    says.
    """
    shards = []
    for spec in plan.shards:
        marker = verify_shard(pool, spec.index)
        if (marker["first_key"], marker["count"]) != (spec.first_key, spec.count):
            raise CorruptShard(
                f"shard {spec.index:06d} in {pool} holds {marker['count']} samples from key "
                f"{marker['first_key']}, the plan says {spec.count} from {spec.first_key}; "
                "replace the pool with --redo pool"
            )
        shards.append(marker)
    manifest = {
        "format_version": FORMAT_VERSION,
        "plan": plan.model_dump(mode="json"),
        "count": sum(shard["count"] for shard in shards),
        "failed": sum(shard["failed"] for shard in shards),
        "shards": shards,
    }
    data = canonical_json(manifest)
    write_bytes(pool / "manifest.json", data)
    return hashlib.sha256(data).hexdigest()
