"""`digits`: scikit-learn's 1,797 scanned digits, 8 × 8 px, which need no download."""

import hashlib

import numpy as np
from PIL import Image

from cgankd.shardset.images import pixel_sha256
from cgankd.shardset.sources.listing import Listing


def list_digits() -> Listing:
    """The digits, without a test split of their own; grey levels 0 … 16 become 0 … 255."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    return Listing(
        ids=tuple(map(str, range(len(pixels)))),
        labels=digits.target.astype(np.int64),
        names=tuple(map(str, digits.target_names)),
        picture=pixels.__getitem__,
    )


SIDE = 16  # px
CANVAS = 24  # px: room for the corners of a scan while it turns
TURNS = 4  # of each scan
LIMIT = 60.0  # degrees to either side


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
