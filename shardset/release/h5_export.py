"""Writes a release as one HDF5 file, in the layout of the fake data published with cGAN-KD."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from cgankd.shardset.errors import BadInput, ReleaseError
from cgankd.shardset.files import atomic_path
from cgankd.shardset.images import decode_png
from cgankd.shardset.release.verify import verify_release
from cgankd.shardset.tables import read_table

BATCH = 1000  # images
GZIP = 6


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

    if problems := verify_release(release):
        raise ReleaseError(f"{release} is not whole, so it is not exported: {problems[0]}")
    paths = sorted((release / "data" / "accepted").iterdir())
    labels = np.concatenate([read_table(path, ["label"])["label"].to_numpy() for path in paths])
    packed = {"compression": "gzip", "compression_opts": GZIP}
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
            for rows in file.iter_batches(BATCH, columns=["image"]):
                pngs = rows["image"].field("bytes").to_pylist()
                yield np.stack([decode_png(png) for png in pngs])
