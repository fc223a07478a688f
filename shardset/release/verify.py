"""Says whether a release folder is what its manifest says, byte for byte, and nothing else.

The folder may be anybody's, so nothing in it is believed before it was compared: names, hashes,
columns, the card's configurations, pictures, members of tars. Nothing is unpickled or run.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from cgankd.shardset.errors import BadInput, CorruptShard, ReleaseError
from cgankd.shardset.files import read_json, sha256_file
from cgankd.shardset.identity import KEYS, key_text, pool_id
from cgankd.shardset.images import BadImage, decode_png, pixel_sha256
from cgankd.shardset.labels import LabelSpace
from cgankd.shardset.release.card import configs_of, data_folders, infos_of
from cgankd.shardset.release.exports import tar_problems, wds_head
from cgankd.shardset.release.manifest import (
    CARD,
    CURATION,
    MANIFEST,
    SAMPLES,
    FileEntry,
    Manifest,
    read_manifest,
)
from cgankd.shardset.release.tables import ACCEPTED, REJECTED, SCORES, release_schema

# The manifest cannot list itself, and the Hub adds its own file to every repository.
UNLISTED = {MANIFEST, ".gitattributes"}
CARD_BYTES = 8 << 20
ALWAYS = ("label", "original_label", "condition", "key", "kept")  # never null
UNREADABLE = (pa.ArrowException, OSError, ValueError)  # the last of text that is not UTF-8


def verify_release(folder: Path, *, pixels: bool = True) -> list[str]:
    """One line for every missing, cut, changed or added file, and, where all files are as listed,
    for each thing in them that a release does not hold; empty if the release is whole.

    With `pixels`, every picture is decoded and compared with its row's hash; who decodes them all
    anyway may leave that out.
    """
    try:
        manifest = read_manifest(folder)
    except ReleaseError as error:
        return [str(error)]
    problems = [problem for entry in manifest.files for problem in _check(folder, entry)]
    problems += _added(folder, {entry.path for entry in manifest.files} | UNLISTED)
    return problems or _inside(folder, manifest, pixels)


def _check(folder: Path, entry: FileEntry) -> list[str]:
    path = folder / entry.path
    if _through_a_link(folder, entry.path):
        return [f"{entry.path}: is a link; a release holds its own files"]
    if not path.is_file():
        return [f"{entry.path}: missing"]
    size = path.stat().st_size
    if size != entry.bytes:
        what = "cut to" if size < entry.bytes else "grown to"
        return [f"{entry.path}: {what} {size} bytes, the manifest says {entry.bytes}"]
    if sha256_file(path) != entry.sha256:
        return [f"{entry.path}: changed, its sha256 is not the manifest's"]
    return []


def _through_a_link(folder: Path, path: str) -> bool:
    """Whether the file, or a folder above it within the release, is a link."""
    parts = Path(path).parts
    return any((folder / Path(*parts[: depth + 1])).is_symlink() for depth in range(len(parts)))


def _added(folder: Path, known: set[str]) -> list[str]:
    # Links to folders are not followed: they are names the manifest does not know.
    paths = (path for path in sorted(folder.rglob("*")) if path.is_symlink() or not path.is_dir())
    names = (path.relative_to(folder).as_posix() for path in paths)
    problems = [f"{name}: not in the manifest, it was added" for name in names if name not in known]
    linked = (folder / ".gitattributes").is_symlink()
    return [*problems, *([".gitattributes: is a link"] if linked else [])]


def _inside(folder: Path, manifest: Manifest, pixels: bool) -> list[str]:
    """What is wrong in files that are byte for byte as listed, by whoever wrote the manifest."""
    problems = _lineage_problems(manifest)
    names = {entry.path for entry in manifest.files}
    if CARD not in names:
        return [*problems, f"{CARD}: missing"]
    if manifest.layout == "webdataset":
        for entry in manifest.files:
            if entry.path.endswith(".tar"):
                problems += tar_problems(folder / entry.path, entry, manifest.space)
        rows = sum(entry.rows or 0 for entry in manifest.files)
        if rows != sum(manifest.accepted):
            problems.append(f"its tars have {rows} samples, not {sum(manifest.accepted)}")
        return problems or _card_problems(folder, wds_head(manifest))
    for entry in manifest.files:
        if entry.path.endswith(".parquet"):
            problem = _table_problem(folder / entry.path, entry, manifest, pixels)
            problems += [] if problem is None else [f"{entry.path}: {problem}"]
    if problems:
        return problems
    problems += _count_problems(folder, manifest)
    if SAMPLES in names:
        try:
            decode_png((folder / SAMPLES).read_bytes())
        except BadImage as error:
            problems.append(f"{SAMPLES}: {error}")
    data = data_folders(folder)
    head = {"configs": configs_of(data), "dataset_info": infos_of(data, manifest.space)}
    return [*problems, *_card_problems(folder, head)]


def _lineage_problems(manifest: Manifest) -> list[str]:
    """Whether the pool's name follows from the generator, seed and plan that it is of."""
    weights, made = manifest.lineage.weights, manifest.lineage.production
    if weights is None or made is None:
        return []
    if manifest.pool_id == pool_id(weights.generator, manifest.production_seed, made.plan_version):
        return []
    return [f"{MANIFEST}: pool {manifest.pool_id} is not of the generator, seed and plan it names"]


def _table_problem(path: Path, entry: FileEntry, manifest: Manifest, pixels: bool) -> str | None:
    """The first thing that is wrong in a Parquet file; None if nothing is."""
    schema = release_schema(Path(entry.path).parent.as_posix(), manifest.space)
    try:
        with pq.ParquetFile(path) as file:
            actual, rows = file.schema_arrow, file.metadata.num_rows
            columns = {(f.name, str(f.type)) for f in actual} ^ {
                (f.name, str(f.type)) for f in schema
            }
            if columns:
                names = sorted({name for name, _ in columns})
                return f"other columns than a release has: {', '.join(names)}"
            if not actual.equals(schema, check_metadata=True):
                return "its note on features, or the order of columns, is another"
            if rows != entry.rows:
                return f"has {rows} rows, the manifest says {entry.rows}"
            pictures = _picture_problems(file, pixels) if "image" in actual.names else ()
            return _row_problem(file) or next(iter(pictures), None)
    except UNREADABLE:
        return f"not Parquet, the manifest says {entry.rows} rows"


def _row_problem(file: pq.ParquetFile) -> str | None:
    """What is wrong with what every row must have: labels, and keys of nine digits, each once.
    Those of scores ascend.
    """
    always = [name for name in ALWAYS if name in file.schema_arrow.names]
    rows = file.read(columns=always)
    for name in always:
        if rows[name].null_count:
            return f"{name} is missing in {rows[name].null_count} rows"
    keys = rows["key"].to_numpy()
    if (keys < 0).any() or (keys >= KEYS).any() or (np.diff(np.sort(keys)) <= 0).any():
        return "its keys are not numbers of nine digits, each once"
    if "image" not in file.schema_arrow.names and (np.diff(keys) <= 0).any():
        return "its keys do not ascend"
    return None


def _picture_problems(file: pq.ParquetFile, pixels: bool) -> Iterator[str]:
    """What is wrong with the pictures, row group by row group."""
    shape = None
    for group in range(file.num_row_groups if pixels else 0):
        rows = file.read_row_group(group, columns=["image", "key", "pixel_sha256"])
        for row in rows.to_pylist():
            image, key = row["image"], row["key"]
            if image is None:
                continue
            if image["path"] != f"{key_text(key)}.png":
                yield f"key {key} has a picture named {image['path']!r}"
                continue
            try:
                picture = decode_png(image["bytes"] or b"")
            except BadImage as error:
                yield f"the picture of key {key} {error}"
                continue
            shape = shape or picture.shape
            if picture.shape != shape:
                yield f"the picture of key {key} is {picture.shape}, others are {shape}"
            elif pixel_sha256(picture) != row["pixel_sha256"]:
                yield f"the picture of key {key} has other pixels than its row says"


def _count_problems(folder: Path, manifest: Manifest) -> list[str]:
    """Whether tables, manifest and curation tell the same story."""
    problems = []
    space = manifest.space

    def column(part: str, name: str) -> np.ndarray:
        empty = release_schema(part, space).empty_table().select([name])
        paths = sorted((folder / part).glob("*.parquet"))
        tables = [pq.read_table(path, columns=[name]) for path in paths]
        tables = [table.replace_schema_metadata(None) for table in (empty, *tables)]
        return pa.concat_tables(tables)[name].to_numpy()

    for part, counts in ((ACCEPTED, manifest.accepted), (REJECTED, manifest.rejected)):
        labels = column(part, "label")
        if len(labels) != sum(counts):
            problems.append(
                f"{part}: its files have {len(labels)} rows, the manifest counts {sum(counts)} "
                "images"
            )
        elif _counted(space, labels) != list(counts):
            problems.append(f"{part}: its labels are not those that the manifest counts")
    keys, kept = column(SCORES, "key"), column(SCORES, "kept")
    accepted = column(ACCEPTED, "key")
    if not np.array_equal(keys[kept], np.sort(accepted)):
        problems.append(f"{ACCEPTED}: its keys are not those that {SCORES} says are kept")
    try:
        curation = read_json(folder / CURATION)
        counted = sum(row["kept"] for row in curation["labels"].values())
    except (CorruptShard, OSError, KeyError, TypeError, AttributeError):
        return [*problems, f"{CURATION}: is not what a release says of its curation"]
    if counted != len(accepted):
        problems.append(f"{CURATION}: counts {counted} kept images, there are {len(accepted)}")
    return problems


def _counted(space: LabelSpace, labels: np.ndarray) -> list[int]:
    try:
        space.check(labels, "labels")
    except BadInput:
        return []
    return np.bincount(space.group_of(labels), minlength=len(space.group_names)).tolist()


def _card_problems(folder: Path, expected: dict[str, Any]) -> list[str]:
    """Whether the card makes `datasets` read what the manifest says, and nothing else."""
    if (folder / CARD).stat().st_size > CARD_BYTES:
        return [f"{CARD}: has more than {CARD_BYTES} bytes"]
    text = (folder / CARD).read_text("utf-8", errors="replace")
    start, end = text.startswith("---\n"), text.find("\n---\n", 3)
    try:
        head = yaml.safe_load(text[4:end]) if start and end > 0 else None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError):
        head = None
    if not isinstance(head, dict):
        return [f"{CARD}: has no head of YAML between two lines of ---"]
    return [
        f"{CARD}: its {name} are not those of the files of this release"
        for name, value in expected.items()
        if head.get(name) != value
    ]
