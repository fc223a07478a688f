"""Sets that need no download: `digits`, scikit-learn's 1,797 scanned digits, 8 × 8 px, and
`rotated-digits`, the same scans turned by angles that are their labels.
"""

import hashlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

from cgankd.shardset.errors import SourceError
from cgankd.shardset.images import pixel_sha256
from cgankd.shardset.sources.listing import Listing

SIDE = 16  # px, of rotated-digits
CANVAS = 24  # px: room for the corners of a scan while it turns
TURNS = 4  # of each scan
LIMIT = 60.0  # degrees to either side


def list_digits() -> Listing:
    """The digits, without a test split of their own; grey levels 0 … 16 become 0 … 255."""
    levels, labels = scanned_digits()
    pixels = np.rint(levels * (255 / 16)).astype(np.uint8)
    return Listing(
        ids=tuple(map(str, range(len(pixels)))),
        labels=labels,
        names=tuple(map(str, range(10))),
        picture=pixels.__getitem__,
    )


def scanned_digits() -> tuple[np.ndarray, np.ndarray]:
    """`images` float64 `[1797, 8, 8]`, 0 … 16, and `target` int64 of scikit-learn's `load_digits`.

    They are read from its data file: to import scikit-learn takes a hundred times as long.
    `SourceError` where the file is not.
    """
    package = find_spec("sklearn")
    if package is None or package.origin is None:
        raise SourceError("the digits need scikit-learn, which is not installed: install it")
    path = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz"
    if not path.is_file():
        raise SourceError(f"{path} is missing; install scikit-learn again")
    rows = np.loadtxt(path, delimiter=",")  # 64 levels and the digit
    return rows[:, :-1].reshape(-1, 8, 8), rows[:, -1].astype(np.int64)


def list_rotated_digits() -> Listing:
    """Turn 0 of every scan, then turn 1, …; labels are degrees, counter-clockwise.

    An angle is uniform in ±60° and comes from the scan's pixels alone, so that it is the same on
    every machine. The turns of one scan share it as their origin.
    """
    digits = list_digits()
    count = len(digits.ids)
    scans = [np.asarray(digits.picture(i)) for i in range(count)]
    hashes = [pixel_sha256(scan[None]) for scan in scans]
    angles = [_angle(scan, turn) for turn in range(TURNS) for scan in hashes]
    return Listing(
        ids=tuple(f"{name}/turn-{turn}" for turn in range(TURNS) for name in digits.ids),
        labels=np.array(angles, np.float64),
        names=None,
        picture=lambda i: _turned(scans[i % count], angles[i]),
        unit="degrees",
        range=(-LIMIT, LIMIT),
        origins=tuple(hashes) * TURNS,
    )


def _angle(scan: str, turn: int) -> float:
    digest = hashlib.sha256(f"{scan}/{turn}".encode()).digest()
    return (int.from_bytes(digest[:8]) / 2**64 * 2 - 1) * LIMIT


def _turned(scan: np.ndarray, angle: float) -> np.ndarray:
    """The pixels uint8 `[16, 16]`; what the turn brings in from outside is black."""
    canvas = Image.new("L", (CANVAS, CANVAS))
    edge = (CANVAS - SIDE) // 2
    large = Image.fromarray(scan).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    canvas.paste(large, (edge, edge))
    turned = canvas.rotate(angle, Image.Resampling.BICUBIC)
    return np.array(turned.crop((edge, edge, edge + SIDE, edge + SIDE)))
