"""Sources as they lie on disk, written by hand: idx files, class folders, single pictures."""

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cgankd.shardset.labels import LabelSettings
from cgankd.shardset.sources.read import RealImages, SourceColumns, read_source

BAR = LabelSettings(unit="bar", range=(0.0, 10.0))


def read(spec: str, size: int | None = None, channels: int | None = None) -> RealImages:
    return read_source(spec, size=size, channels=channels, columns=SourceColumns())


def read_numbers(spec: str, label: LabelSettings = BAR, size: int | None = None) -> RealImages:
    """The images of a source whose labels are numbers, of 0 to 10 bar if nothing else is said."""
    columns = SourceColumns()
    return read_source(
        spec, size=size, channels=None, columns=columns, task="regression", label=label
    )


def write_numbered(folder: Path, labels: list[object], *, side: int = 12, seed: int = 0) -> None:
    """Pictures 0.png, 1.png, … and the metadata.csv that gives them these labels."""
    rows = ["file_name,label"]
    for i, (picture, label) in enumerate(
        zip(noise(len(labels), side, side, seed=seed), labels, strict=True)
    ):
        save(folder / f"{i}.png", picture)
        rows.append(f"{i}.png,{label}")
    (folder / "metadata.csv").write_text("\n".join(rows) + "\n")


def write_idx(path: Path, values: np.ndarray) -> None:
    """An idx file as LeCun's page describes it: type 8 = unsigned byte, number of dimensions."""
    header = struct.pack(">BBBB", 0, 0, 8, values.ndim) + struct.pack(
        f">{values.ndim}I", *values.shape
    )
    data = header + values.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)


def noise(count: int, *shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape)).astype(np.uint8)


def write_idx_folder(folder: Path, *, suffix: str = "", dot: str = "-") -> dict[str, np.ndarray]:
    """Three classes, 7 training and 4 test images of 9 × 9 px."""
    arrays = {
        "train-images": noise(7, 9, 9),
        "train-labels": np.array([0, 1, 2, 0, 1, 2, 2]),
        "t10k-images": noise(4, 9, 9, seed=1),
        "t10k-labels": np.array([2, 1, 0, 0]),
    }
    for name, values in arrays.items():
        write_idx(folder / f"{name}{dot}idx{values.ndim}-ubyte{suffix}", values)
    return arrays


def by_id(reals: RealImages) -> dict[str, tuple[bytes, int]]:
    rows = zip(reals.ids, reals.pixels, reals.labels, strict=True)
    return {name: (pixels.tobytes(), int(label)) for name, pixels, label in rows}


def save(path: Path, picture: np.ndarray | Image.Image, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    picture.save(path, **options)


def write_classes(folder: Path, counts: dict[str, int], side: int = 12, seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    for name, count in counts.items():
        for i in range(count):
            save(folder / name / f"{i}.png", rng.integers(0, 256, (side, side)).astype(np.uint8))


def one_picture(
    folder: Path, picture: np.ndarray | Image.Image, name: str = "0.png", **options: Any
) -> np.ndarray:
    """The pixels that a picture becomes in an image folder, at its natural size."""
    save(folder / "a" / name, picture, **options)
    save(folder / "b" / "0.png", np.zeros((8, 8), np.uint8))
    size = min(picture.size if isinstance(picture, Image.Image) else picture.shape[:2])
    reals = read(f"imagefolder:{folder}", size=size)
    return reals.pixels[reals.ids.index(f"a/{name}")]
