"""A release in other layouts: as tars for readers of WebDataset, and as one HDF5 file in the layout
of the fake data published with cGAN-KD.

The tar copy lies in a repository of its own: `data/train-000000.tar`, … hold `{key}.png`,
`{key}.cls` (for classes) and `{key}.json` of every accepted image. Time and owner are fixed, so the
same release gives the same bytes.
"""

import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from cgankd.shardset.errors import BadInput, ReleaseError
from cgankd.shardset.files import atomic_path, canonical_json, sha256_file, sync_file, write_bytes
from cgankd.shardset.identity import key_text
from cgankd.shardset.images import BadImage, decode_png
from cgankd.shardset.labels import ClassLabels, LabelSpace
from cgankd.shardset.pool.tar import BLOCK, RECORD, tar_member
from cgankd.shardset.release.build import ReleaseFacts, release_facts, whole_folder
from cgankd.shardset.release.card import common_head, name_of, rendered, yaml_text
from cgankd.shardset.release.manifest import (
    CARD,
    MANIFEST,
    FileEntry,
    Lineage,
    Manifest,
    read_manifest,
)
from cgankd.shardset.release.tables import ACCEPTED, class_label
from cgankd.shardset.tables import read_table

TAR_BYTES = 1 << 30
SUFFIX = "-wds"
LINEAGE = ("name", "license", "weights", "production", "check", "generator_repo")  # of the release
COLUMNS = ["image", "label", "original_label", "condition", "key", "pixel_sha256"]
MEMBER = re.compile(r"(\d{9})\.(png|cls|json)")
MOST_BYTES = {"png": 64 << 20, "cls": 32, "json": 1 << 16}
H5_BATCH = 1000  # images
H5_GZIP = 6


def build_wds(release: Path) -> ReleaseFacts:
    """Builds the tar copy of a release folder beside it, named like it and `-wds`.

    `BadInput` where it exists, `ReleaseError` where the release's files are not as listed.
    """
    folder = release.with_name(release.name + SUFFIX)
    if folder.exists():
        raise BadInput(f"{folder} exists and a release never changes; remove it to build it again")
    origin = read_manifest(release)
    lineage = Lineage(
        **{name: getattr(origin.lineage, name) for name in LINEAGE},
        parquet_manifest_sha256=sha256_file(release / MANIFEST),
    )
    with whole_folder(folder) as partial:
        tars = _write_tars(partial, release, origin)
        manifest = Manifest(
            layout="webdataset",
            version=origin.version,
            space=origin.space,
            pool_id=origin.pool_id,
            production_seed=origin.production_seed,
            accepted=origin.accepted,
            rejected=tuple(0 for _ in origin.rejected),
            files=(),
            lineage=lineage,
        )
        card = rendered(
            "card_wds.md.j2",
            head=yaml_text({**common_head(manifest), **wds_head(manifest)}),
            manifest=manifest,
            name=name_of(manifest),
            images=sum(manifest.accepted),
            tars=len(tars),
        )
        write_bytes(partial / CARD, card.encode())
        entries = tuple(_entry(partial, path, rows) for path, rows in {CARD: None, **tars}.items())
        manifest = manifest.model_copy(update={"files": entries})
        write_bytes(partial / MANIFEST, canonical_json(manifest.model_dump(mode="json")))
    return release_facts(folder)


def wds_head(manifest: Manifest) -> dict[str, Any]:
    """The configuration and columns that a tar copy's card must name, and no others."""
    label = "int64" if isinstance(manifest.space, ClassLabels) else "float64"
    facts = {"condition": label, "label": label, "original_label": label}
    facts |= {"pixel_sha256": "string", "pool_id": "string"}
    features: list[dict[str, Any]] = [
        {"name": "__key__", "dtype": "string"},
        {"name": "png", "dtype": "image"},
    ]
    if isinstance(manifest.space, ClassLabels):
        features.append({"name": "cls", "dtype": class_label(manifest.space)})
    struct = [{"name": name, "dtype": dtype} for name, dtype in sorted(facts.items())]
    features.append({"name": "json", "struct": struct})
    files = [{"split": "train", "path": ["data/train-*.tar"]}]
    return {
        "configs": [{"config_name": "curated", "data_files": files, "default": True}],
        "dataset_info": [{"config_name": "curated", "features": features}],
    }


def tar_problems(path: Path, entry: FileEntry, space: LabelSpace) -> list[str]:
    """What in a tar is not a member of a release's tar copy: the first such thing, in a line."""
    samples, before, keys = 0, ("", ""), set[str]()
    order = ("png", "cls", "json") if isinstance(space, ClassLabels) else ("png", "json")
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                match = MEMBER.fullmatch(member.name)
                if match is None or member.type != tarfile.REGTYPE or member.pax_headers:
                    return [f"{entry.path}: member {member.name!r} is none of a release"]
                key, part = match.groups()
                expected = order[(order.index(before[1]) + 1) % len(order)] if before[1] else "png"
                belongs = key not in keys if part == "png" else key == before[0]
                if part != expected or not belongs:
                    return [f"{entry.path}: member {member.name!r} is out of order"]
                if member.size > MOST_BYTES[part]:
                    return [f"{entry.path}: member {member.name!r} has {member.size} bytes"]
                file = tar.extractfile(member)
                if part == "png" and file is not None:
                    decode_png(file.read())
                    samples += 1
                before = key, part
                keys.add(key)
    except BadImage as error:
        return [f"{entry.path}: member {member.name!r} {error}"]
    except (tarfile.TarError, OSError, ValueError):  # the last of a malformed header
        return [f"{entry.path}: not a tar, or a cut one"]
    if before[1] not in ("", order[-1]) or samples != entry.rows:
        return [f"{entry.path}: has {samples} samples, the manifest says {entry.rows}"]
    return []


def _write_tars(partial: Path, release: Path, manifest: Manifest) -> dict[str, int]:
    """The paths of the tars with the number of samples in each."""
    tars: dict[str, int] = {}
    samples = _samples(release, manifest)
    sample = next(samples, None)
    (partial / "data").mkdir()
    while sample is not None:
        path = partial / "data" / f"train-{len(tars):06d}.tar"
        count = size = 0
        with open(path, "wb") as file:
            while sample is not None and size < TAR_BYTES:
                for name, data in sample:
                    size += file.write(tar_member(name, data))
                count += 1
                sample = next(samples, None)
            end = size + 2 * BLOCK
            file.write(bytes(2 * BLOCK + -end % RECORD))
        sync_file(path)
        tars[path.relative_to(partial).as_posix()] = count
    return tars


def _samples(release: Path, manifest: Manifest) -> Iterator[list[tuple[str, bytes]]]:
    """The members of each accepted sample, in the release's order; PNG bytes are not decoded."""
    for entry in manifest.files:
        if not entry.path.startswith(f"{ACCEPTED}/"):
            continue
        path = release / entry.path
        if sha256_file(path) != entry.sha256:
            raise ReleaseError(f"{path} is not as its manifest says; no copy was made")
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(1024, columns=COLUMNS):
                for row in batch.to_pylist():
                    key = key_text(row.pop("key"))
                    members = [(f"{key}.png", row.pop("image")["bytes"])]
                    if isinstance(manifest.space, ClassLabels):
                        members.append((f"{key}.cls", str(row["label"]).encode()))
                    facts = {**row, "pool_id": manifest.pool_id}
                    members.append((f"{key}.json", json.dumps(facts, sort_keys=True).encode()))
                    yield members


def _entry(folder: Path, path: str, rows: int | None) -> FileEntry:
    size = (folder / path).stat().st_size
    return FileEntry(path=path, sha256=sha256_file(folder / path), bytes=size, rows=rows)


@dataclass(frozen=True)
class FakeH5:
    """A written file: `images` uint8 `[images, c, h, w]` with as many labels."""

    path: Path
    images: int
    shape: tuple[int, int, int]
    bytes: int


def require_h5py() -> None:
    """Raises `BadInput` that names the extra where h5py is missing."""
    try:
        import h5py  # noqa: F401
    except ImportError as error:
        raise BadInput("HDF5 needs the extra of that name: pip install 'cgankd[hdf5]'") from error


def write_fake_h5(release: Path, out: Path) -> FakeH5:
    """Writes `fake_images` (uint8 NCHW, gzip 6) and `fake_labels` (int64 classes, or float64 in
    their unit) of a release's accepted images to `out`, atomically.

    The layout is that of `*_fake_images_*.h5`, https://github.com/UBCDingXin/cGAN-KD. Raises
    `ReleaseError` where the release is not what its manifest says, `BadInput` without h5py.
    """
    require_h5py()
    import h5py

    from cgankd.shardset.release.verify import verify_release  # which reads tar copies by this file

    if problems := verify_release(release):
        raise ReleaseError(f"{release} is not whole, so it is not exported: {problems[0]}")
    paths = sorted((release / "data" / "accepted").iterdir())
    labels = np.concatenate([read_table(path, ["label"])["label"].to_numpy() for path in paths])
    packed = {"compression": "gzip", "compression_opts": H5_GZIP}
    with atomic_path(out) as partial, h5py.File(partial, "w") as file:
        batches = _batches(paths)
        first = next(batches)
        shape = first.shape[1:]
        images = file.create_dataset(
            "fake_images", (len(labels), *shape), np.uint8, chunks=first.shape, **packed
        )
        start = 0
        for pixels in chain([first], batches):
            images[start : start + len(pixels)] = pixels
            start += len(pixels)
        file.create_dataset("fake_labels", data=labels, **packed)
    return FakeH5(out, len(labels), shape, out.stat().st_size)


def _batches(paths: list[Path]) -> Iterator[np.ndarray]:
    """The pixels uint8 `[n, c, h, w]` of all images, in the release's order."""
    for path in paths:
        with pq.ParquetFile(path) as file:
            for rows in file.iter_batches(H5_BATCH, columns=["image"]):
                pngs = rows["image"].field("bytes").to_pylist()
                yield np.stack([decode_png(png) for png in pngs])
