"""`idx:FOLDER`: the four files of the MNIST family, plain or gzip."""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from cgankd.shardset.errors import SourceError
from cgankd.shardset.sources.listing import Listing


def list_idx(folder: Path) -> Listing:
    """The images of the train and t10k files; the latter are the test split."""
    images, labels = [], []
    for part in ("train", "t10k"):
        images.append(_read(folder, f"{part}-images", dimensions=3))
        labels.append(_read(folder, f"{part}-labels", dimensions=1).astype(np.int64))
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


def _read(folder: Path, stem: str, dimensions: int) -> np.ndarray:
    """The uint8 array of one idx file: magic 0x000008dd, dd sizes as big-endian uint32, bytes."""
    path = _find(folder, stem, dimensions)
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


def _find(folder: Path, stem: str, dimensions: int) -> Path:
    names = [f"{stem}{dot}idx{dimensions}-ubyte{gz}" for gz in ("", ".gz") for dot in "-."]
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise SourceError(f"idx:{folder} has no {names[0]} (plain or .gz); expected the four idx files")
