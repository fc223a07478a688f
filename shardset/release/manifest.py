"""What a pool and a release say about themselves: every file's hash, and where all of it came from.

Nothing here depends on the clock or the machine, so the sha256 of a manifest names its content.
"""

import hashlib
import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import from_json

from cgankd.shardset.errors import CorruptShard, ReleaseError
from cgankd.shardset.files import canonical_json, write_bytes
from cgankd.shardset.labels import LabelSpace
from cgankd.shardset.pool.plan import Plan
from cgankd.shardset.pool.shards import checked_marker, verify_shard
from cgankd.shardset.records import CheckSummary, Record

POOL_FORMAT_VERSION = 1
VERSION_PATTERN = r"^v(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)$"
MAX_BYTES = 256 << 20  # the salted hashes of ten million real images
SALTED_DIGITS = 16
Level = Literal["major", "minor", "patch"]
CARD = "README.md"
MANIFEST = "metadata/manifest.json"
CURATION = "metadata/curation.json"
REPORT = "metadata/report.json"
SAMPLES = "assets/samples.png"
TABLE = re.compile(r"(data/accepted|data/rejected|scores)/train-\d{5}-of-\d{5}\.parquet")
TAR = re.compile(r"data/train-\d{6}\.tar")


class FileEntry(Record):
    """One file of a release; `rows` of a Parquet file, or samples of a tar, for these alone."""

    path: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=0)
    rows: int | None

    @field_validator("path")
    @classmethod
    def _is_a_file_of_a_release(cls, path: str) -> str:
        """No other name is ever opened or written: not `..`, not `/etc/passwd`, not `x.pkl`."""
        if (
            path in (CARD, CURATION, REPORT, SAMPLES)
            or TABLE.fullmatch(path)
            or TAR.fullmatch(path)
        ):
            return path
        raise ValueError(f"{path!r} is not the name of a file that a release holds")


class Changes(Record):
    """What a version changed in the one before it."""

    level: Level
    reasons: tuple[str, ...]
    accepted_before: int
    came: int
    went: int
    relabelled: int
    policy: dict[str, tuple[Any, Any]] = Field(description="fields that changed: before, now")


class LineagePart(BaseModel):
    """A part of a release's lineage, written and read by one class; what other versions add to it
    is not read.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


class Weights(LineagePart):
    """The sha256 of the weights that made and judged the samples."""

    generator: str
    teacher: str | None = None
    ratio: str | None = Field(None, description="null where no density ratio was used")
    features: str | None = Field(None, description="of the net that selects")


class ProductionFacts(LineagePart):
    """How the pool was produced: with the rows, all that its plan is made again from."""

    seed: int | None = None
    batch: int
    threads: int
    precision: Literal["float32", "bfloat16"]
    device: str
    libraries: dict[str, str] = Field({}, description="versions that computed the pixels")
    plan_version: int
    shard_size: int
    rounds: tuple[int, ...] = Field(description="samples of each round")


class RealFacts(LineagePart):
    """The real set that a release was made from; its images are known by salted hashes alone."""

    spec: str
    revision: str | None = None
    fingerprint: str
    split_seed: int
    salt: str | None = None
    hashes: dict[str, tuple[str, ...]] = Field({}, description="of train, validation and test")


class Lineage(Record):
    """Where a release comes from, as far as its maker says; nothing of clock or machine.

    Recipe and policy are plain JSON: what they mean is not known here.
    """

    name: str | None = Field(None, description="of the set")
    license: str | None = Field(None, description="of the real set")
    citation: str | None = None
    homepage: str | None = None
    generator_repo: str | None = Field(None, description="where the generator is published")
    recipe: dict[str, Any] | None = None
    policy: dict[str, Any] | None = None
    reviews: dict[str, int | str] | None = Field(None, description="sha256 and counts of verdicts")
    seeds: dict[str, int] | None = None
    normalisation: dict[str, tuple[float, ...]] | None = Field(
        None, description="mean and standard deviation of the real channels, on [0, 1]"
    )
    weights: Weights | None = None
    production: ProductionFacts | None = None
    stages: tuple[dict[str, Any], ...] = Field((), description="each step's name and numbers")
    ratio_problems: tuple[str, ...] = Field((), description="why the density ratio was not used")
    real: RealFacts | None = None
    check: CheckSummary | None = Field(None, description="what was measured of the selection")
    parquet_manifest_sha256: str | None = Field(None, description="of a tar copy's release")

    def plain(self) -> dict[str, Any]:
        """The values of all fields as JSON has them."""
        return self.model_dump(mode="json")


class Manifest(Record):
    """`metadata/manifest.json` of a release; it lists every file but itself."""

    format_version: Literal[2] = 2
    layout: Literal["parquet", "webdataset"] = "parquet"
    version: str = Field(pattern=VERSION_PATTERN)
    parent_version: str | None = Field(None, pattern=VERSION_PATTERN)
    parent_manifest_sha256: str | None = None
    changes: Changes | None = None
    space: LabelSpace
    pool_id: str
    production_seed: int
    accepted: Annotated[
        tuple[int, ...], Field(description="images for each class or part of the range")
    ]
    rejected: Annotated[tuple[int, ...], Field(description="the same; zeros if left out")]
    files: tuple[FileEntry, ...]
    lineage: Lineage

    @model_validator(mode="after")
    def _names_each_file_once(self) -> "Manifest":
        seen: set[str] = set()
        for entry in self.files:
            if entry.path in seen:
                raise ValueError(f"{entry.path} is listed twice")
            seen.add(entry.path)
            if (entry.rows is None) != entry.path.endswith((".json", ".md", ".png")):
                raise ValueError(f"{entry.path} has rows {entry.rows}")
            if TAR.fullmatch(entry.path) and self.layout == "parquet":
                raise ValueError(f"{entry.path} is of another layout")
            if TABLE.fullmatch(entry.path) and self.layout == "webdataset":
                raise ValueError(f"{entry.path} is of another layout")
        return self


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a release folder; `ReleaseError` in one line if there is none to trust."""
    path = folder / MANIFEST
    if not path.is_file():
        raise ReleaseError(f"{folder} is not a release: {MANIFEST} is missing")
    if path.is_symlink() or path.parent.is_symlink():
        raise ReleaseError(f"{path} is a link; a release holds its own files")
    if path.stat().st_size > MAX_BYTES:
        raise ReleaseError(
            f"{path} has {path.stat().st_size} bytes, expected at most {MAX_BYTES}: not read"
        )
    return parse_manifest(path.read_bytes(), str(path))


def parse_manifest(data: bytes, where: str) -> Manifest:
    """The manifest of a JSON text; `ReleaseError` names where it came from if it is none."""
    try:
        return Manifest.model_validate_json(_of_format_2(data))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        message = first["msg"].removeprefix("Value error, ")
        raise ReleaseError(
            f"{where} is not a manifest of format 1 or 2 ({place}: {message})"
        ) from error


def _of_format_2(data: bytes) -> bytes:
    """A manifest as format 2 has it; the lineage of format 1 was a mapping of anything."""
    try:
        fields = from_json(data)
    except ValueError:
        return data  # it is refused as it is
    if not isinstance(fields, dict) or fields.get("format_version") != 1:
        return data
    facts = fields.pop("facts", None)
    if isinstance(facts, dict):
        known = (name for name in Lineage.model_fields if facts.get(name) is not None)
        fields |= {"format_version": 2, "lineage": {name: facts[name] for name in known}}
    return canonical_json(fields)


def salted_hashes(pixel_hashes: Iterable[str], salt: str) -> list[str]:
    """Sorted salted hashes of images, 16 hex digits each.

    With the salt, which is published beside them, one can ask whether an image that one has is
    among them; a lookup table made for another release does not answer it.
    """
    return sorted(
        hashlib.sha256(f"{salt}\n{pixel_hash}".encode()).hexdigest()[:SALTED_DIGITS]
        for pixel_hash in pixel_hashes
    )


def write_pool_manifest(pool: Path, plan: Plan, made: Collection[int] = ()) -> str:
    """The sha256 of the `manifest.json` written to a finished pool: its plan and its shards.

    Reads every byte of the pool but those of shards that were `made` just now: their writer
    has hashed them, and sizes are compared. `CorruptShard` names the first shard that is not as its
    marker says.
    """
    data = pool_manifest(pool, plan, made)
    write_bytes(pool / "manifest.json", data)
    return hashlib.sha256(data).hexdigest()


def verify_pool(pool: Path, plan: Plan, manifest_sha256: str | None) -> None:
    """Compares every byte of a pool with its markers, and these with the hash that the pool stage
    recorded, if it did; `CorruptShard` says what is not as it was made. Nothing is written.
    """
    actual = hashlib.sha256(pool_manifest(pool, plan)).hexdigest()
    if manifest_sha256 not in (None, actual):
        raise CorruptShard(
            f"{pool} is whole but is not the pool that was made: its shards and plan have the "
            f"sha256 {actual[:16]}…, the pool stage recorded {str(manifest_sha256)[:16]}…; "
            "after a top-up that was cut, run produce again, else replace it with --redo pool"
        )


def pool_manifest(pool: Path, plan: Plan, made: Collection[int] = ()) -> bytes:
    """The JSON of a pool's plan and shards; `CorruptShard` as `write_pool_manifest` raises it."""
    shards = []
    for spec in plan.shards:
        check = checked_marker if spec.index in made else verify_shard
        marker = check(pool, spec.index)
        if (marker["first_key"], marker["count"]) != (spec.first_key, spec.count):
            raise CorruptShard(
                f"shard {spec.index:06d} in {pool} holds {marker['count']} samples from key "
                f"{marker['first_key']}, the plan says {spec.count} from {spec.first_key}; "
                "replace the pool with --redo pool"
            )
        shards.append(marker)
    manifest = {
        "format_version": POOL_FORMAT_VERSION,
        "plan": plan.model_dump(mode="json"),
        "count": sum(shard["count"] for shard in shards),
        "failed": sum(shard["failed"] for shard in shards),
        "shards": shards,
    }
    return canonical_json(manifest)
