"""Sets that are arrays in files: `idx:FOLDER`, the four files of the MNIST family, plain or gzip;
and `h5:FILE`: the data files that are published with CcGAN and cGAN-KD, in all their layouts.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cgankd.shardset.errors import SourceError
from cgankd.shardset.images import BadImage
from cgankd.shardset.sources.listing import Listing, Task

if TYPE_CHECKING:
    import h5py

CACHE_BYTES = 256 << 20  # whole chunks of compressed images are unpacked at once: keep them


class Layout(NamedTuple):
    """The names under which a file keeps its images and labels, and which rows are which."""

    images: str
    labels: str
    test_images: str | None = None
    test_labels: str | None = None
    train_rows: str | None = None
    test_rows: str | None = None


# The first that a file has all names of is its own; the test images of one are called "valid".
# https://github.com/UBCDingXin: cGAN-KD, improved_CcGAN
LAYOUTS = (
    Layout("images_train", "labels_train", "images_test", "labels_test"),
    Layout("images_train", "labels_train", "images_valid", "labels_valid"),
    Layout("images_odd", "labels_odd", "images_even", "labels_even", "indx_odd_train"),
    Layout("images_odd", "labels_odd", "images_even", "labels_even"),
    Layout("imgs", "labels", "imgs_val", "labels_val", "indx_subtrain"),
    Layout("imgs", "labels", "imgs_val", "labels_val"),
    Layout("images", "labels", None, None, "indx_train", "indx_test"),
    Layout("images", "labels", None, None, "indx_train"),
    Layout("images", "labels"),
    Layout("IMGs_grey", "CellCounts"),
    Layout("fake_images", "fake_labels"),
)


class Part(NamedTuple):
    """The training or the test images: `rows` int64 of `images`, and the labels of those rows."""

    images: h5py.Dataset
    labels: np.ndarray
    rows: np.ndarray


def list_h5(path: Path, task: Task) -> Listing:
    """The images of an HDF5 file, uint8 `[n, c, h, w]`, and its test images where it has any.

    Whole numbers are classes named "0", "1", … or continuous labels, as the task says. Where a
    file states training rows of its only images, the others are test images, unless it states
    those too. Raises `SourceError` for a file that cannot be read or does not fit together.
    """
    where = f"h5:{path}"
    try:
        parts = _parts(_open(path, where), where)
    except OSError as error:
        raise SourceError(f"{where} cannot be read ({error}); get it again") from error
    labels = np.concatenate([part.labels for part in parts])
    names = None
    if task == "classification" and np.issubdtype(labels.dtype, np.integer):
        names = _classes(labels, where)
    ends = np.cumsum([len(part.rows) for part in parts])

    def picture(i: int) -> np.ndarray:
        number = int(np.searchsorted(ends, i, side="right"))
        part = parts[number]
        row = int(part.rows[i - ends[number]])  # counted from the end of the part
        try:
            pixels = part.images[row]
        except OSError as error:
            raise BadImage(f"cannot be read ({error})") from error
        grey = pixels.ndim == 2 or len(pixels) == 1
        return pixels.reshape(pixels.shape[-2:]) if grey else pixels.transpose(1, 2, 0)

    return Listing(
        ids=tuple(
            f"{name}/{row}"
            for name, part in zip(("train", "test"), parts, strict=False)
            for row in part.rows.tolist()
        ),
        labels=labels.astype(np.float64 if names is None else np.int64),
        names=names,
        picture=picture,
        is_test=np.arange(len(labels)) >= ends[0] if len(parts) > 1 else None,
    )


def _open(path: Path, where: str) -> h5py.File:
    try:
        import h5py
    except ImportError as error:
        raise SourceError(f"{where} needs the extra 'hdf5': pip install 'cgankd[hdf5]'") from error
    if not path.is_file():
        raise SourceError(f"{where}: there is no such file")
    return h5py.File(path, rdcc_nbytes=CACHE_BYTES)


def _parts(file: h5py.File, where: str) -> list[Part]:
    """The training part and, if any, the test part."""
    layout = next((names for names in LAYOUTS if not set(filter(None, names)) - file.keys()), None)
    if layout is None:
        known = "; ".join(", ".join(filter(None, names)) for names in LAYOUTS)
        found = ", ".join(file) or "none"
        raise SourceError(f"{where} has the keys {found}; expected those of one layout: {known}")
    first = _part(file, layout.images, layout.labels, layout.train_rows, where)
    if layout.test_images and layout.test_labels:
        return [first, _part(file, layout.test_images, layout.test_labels, None, where)]
    if not layout.train_rows:
        return [first]
    test = _part(file, layout.images, layout.labels, layout.test_rows, where)
    if not layout.test_rows:
        rest = np.setdiff1d(test.rows, first.rows)
        test = Part(test.images, test.labels[rest], rest)
    return [first, test] if len(test.rows) else [first]


def _part(file: h5py.File, images: str, labels: str, rows: str | None, where: str) -> Part:
    for name in filter(None, (images, labels, rows)):
        if not hasattr(file[name], "shape") or not file[name].shape:
            raise SourceError(f"{where}: {name} is no array, expected one row for each image")
    pixels, values = file[images], file[labels][:]
    shape = pixels.shape
    if pixels.dtype != np.uint8 or not (
        len(shape) == 3 or (len(shape) == 4 and shape[1] in (1, 3))
    ):
        raise SourceError(
            f"{where}: {images} is {pixels.dtype} {list(shape)}, "
            "expected uint8 [n, c, h, w] with 1 or 3 channels"
        )
    if values.dtype.kind not in "iuf":
        raise SourceError(f"{where}: {labels} is {values.dtype}, expected numbers")
    if len(values) != len(pixels):
        raise SourceError(
            f"{where}: {images} has {len(pixels)} images and {labels} {len(values)} labels, "
            "expected as many of each; get the file again"
        )
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    chosen = np.arange(len(pixels))
    if rows is not None:
        stated = file[rows][:]
        if stated.dtype.kind not in "iu" and not (stated == np.rint(stated)).all():
            raise SourceError(f"{where}: {rows} is {stated.dtype}, expected row numbers")
        if stated.dtype.kind == "b":
            raise SourceError(f"{where}: {rows} is a mask, expected row numbers")
        if not set(stated.ravel().tolist()) <= set(chosen.tolist()):
            raise SourceError(f"{where}: {rows} names rows that {images} has not")
        chosen = np.unique(stated).astype(np.int64)
    return Part(pixels, values[chosen], chosen)


def _classes(labels: np.ndarray, where: str) -> tuple[str, ...]:
    if labels.ndim != 1:
        raise SourceError(f"{where}: labels are {list(labels.shape)}, expected one for each image")
    if not labels.size:
        return ()
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(labels):
        raise SourceError(
            f"{where}: labels go from {low} to {high}, expected classes 0, 1, 2, …; "
            "set task: regression for numbers"
        )
    return tuple(map(str, range(high + 1)))


def list_idx(folder: Path) -> Listing:
    """The images of the train and t10k files; the latter are the test split."""
    images, labels = [], []
    for part in ("train", "t10k"):
        images.append(_read_idx(folder, f"{part}-images", dimensions=3))
        labels.append(_read_idx(folder, f"{part}-labels", dimensions=1).astype(np.int64))
        if len(images[-1]) != len(labels[-1]):
            raise SourceError(
                f"idx:{folder}: {part} has {len(images[-1])} images and {len(labels[-1])} labels, "
                "expected as many of each; get the files again"
            )
    train, test = images
    every_label = np.concatenate(labels)
    return Listing(
        ids=(
            *(f"train/{i}" for i in range(len(train))),
            *(f"t10k/{i}" for i in range(len(test))),
        ),
        labels=every_label,
        names=tuple(map(str, range(int(every_label.max(initial=-1)) + 1))),
        picture=lambda i: train[i] if i < len(train) else test[i - len(train)],
        is_test=np.arange(len(every_label)) >= len(train),
    )


def _read_idx(folder: Path, stem: str, dimensions: int) -> np.ndarray:
    """The uint8 array of one idx file: magic 0x000008dd, dd sizes as big-endian uint32, bytes."""
    path = _find_idx(folder, stem, dimensions)
    header = struct.Struct(f">{1 + dimensions}I")
    expected = f"expected an idx{dimensions}-ubyte file, plain or gzip; get it again"
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            head = file.read(header.size)
            if len(head) < header.size:
                raise SourceError(f"{path} is truncated, {expected}")
            magic, *shape = header.unpack(head)
            if magic != 0x800 + dimensions:
                raise SourceError(f"{path} starts with {magic:#010x}, {expected}")
            data = file.read()
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{path} cannot be read ({error}), {expected}") from error
    count = math.prod(shape)
    if len(data) != count:
        raise SourceError(
            f"{path} has {len(data)} bytes after its header, which says {count}, {expected}"
        )
    return np.frombuffer(data, np.uint8).reshape(shape)


def _find_idx(folder: Path, stem: str, dimensions: int) -> Path:
    names = [f"{stem}{dot}idx{dimensions}-ubyte{gz}" for gz in ("", ".gz") for dot in "-."]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise SourceError(f"idx:{folder} has no {names[0]} (plain or .gz); expected the four idx files")
