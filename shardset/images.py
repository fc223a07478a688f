"""Images as networks see them, pixels as disks hold them, and the PNG between the two.

images  float32 `[n, c, h, w]` in [−1, 1]
pixels  uint8 `[n, c, h, w]` (or one sample `[c, h, w]`), c = 1 grey or 3 red, green, blue
"""

from __future__ import annotations

import hashlib
import io
import math
import struct
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from cgankd.shardset.errors import BadInput

if TYPE_CHECKING:
    import torch

MAX_SIDE = 4096
SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER = struct.Struct(">4sIIBB")  # chunk type, width, height, depth, colour
COLOUR_OF_CHANNELS = {1: 0, 3: 2}  # PNG specification, 11.2.1: greyscale, truecolour
# A tar pads to blocks of 512 bytes and Parquet compresses what it holds: deflating so little only
# takes time, a fifth of what a small generator takes for the image.
STORED = 1024
# What Pillow raises for bytes that are not the picture they claim to be.
UNDECODABLE = (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error)


class BadImage(ValueError):
    """Bytes that are not a picture this tool can use; the message is the reason, `row` the number
    of the picture where several were decoded.
    """

    def __init__(self, reason: str, row: int = 0) -> None:
        super().__init__(reason)
        self.row = row


def to_pixels(images: np.ndarray | torch.Tensor) -> np.ndarray:
    """The uint8 pixels of float images of any shape: 127.5·x + 127.5, rounded and clipped.

    A tensor is converted where it lies, so that a quarter of the bytes leaves the accelerator.
    Raises `BadInput` for other dtypes, and for NaN or infinity.
    """
    if isinstance(images, np.ndarray):
        if not np.issubdtype(images.dtype, np.floating):
            raise BadInput(f"images are {images.dtype}, expected floats in [-1, 1]")
        if not np.isfinite(images).all():
            raise BadInput("images hold NaN or infinity, expected values in [-1, 1]")
        return np.clip(np.rint(images * 127.5 + 127.5), 0, 255).astype(np.uint8)
    if not images.is_floating_point():
        raise BadInput(f"images are {images.dtype}, expected floats in [-1, 1]")
    if not images.isfinite().all():
        raise BadInput("images hold NaN or infinity, expected values in [-1, 1]")
    values = images.detach().float().mul(127.5).add_(127.5).round_().clamp_(0, 255)
    return values.byte().cpu().contiguous().numpy()


def encode_png(pixels: np.ndarray) -> bytes:
    """The PNG of one sample `[c, h, w]`, the same bytes for the same pixels and zlib."""
    return encode_pngs(pixels[None])[0]


def encode_pngs(pixels: np.ndarray) -> list[bytes]:
    """The PNG of each sample of a batch `[n, c, h, w]`.

    Every row is written as its difference to the row above and deflated by run lengths, in one
    chunk: on samples of 8 to 64 px that is about twice as fast as Pillow (which tries five filters
    a row) at its fastest level, and as small. Samples of up to `STORED` bytes are not deflated.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1] not in COLOUR_OF_CHANNELS:
        raise BadInput(
            f"cannot write {pixels.dtype} {list(pixels.shape[1:])} as PNG, "
            "expected uint8 [c, h, w] with 1 or 3 channels"
        )
    count, channels, height, width = pixels.shape
    rows = pixels.transpose(0, 2, 3, 1).reshape(count, height, width * channels)
    filtered = np.empty((count, height, 1 + width * channels), np.uint8)
    filtered[:, :, 0] = 2  # filter "Up"
    filtered[:, 0, 1:] = rows[:, 0]
    np.subtract(rows[:, 1:], rows[:, :-1], out=filtered[:, 1:, 1:])
    header = struct.pack(">IIBBBBB", width, height, 8, COLOUR_OF_CHANNELS[channels], 0, 0, 0)
    start = SIGNATURE + _chunk(b"IHDR", header)
    samples, size = filtered.tobytes(), height * (1 + width * channels)
    parts = [samples[first : first + size] for first in range(0, len(samples), size)]
    if size <= STORED:
        return _stored(start, parts, size)
    return [start + _chunk(b"IDAT", _run_lengths(part)) + END for part in parts]


def _stored(start: bytes, parts: Sequence[bytes], size: int) -> list[bytes]:
    """The PNGs of parts of `size` bytes, none of them deflated, behind the same `start`.

    They are what `zlib.compress(part, 0)` makes of them, which takes ten times as long to set up.
    """
    head = _stored_head(size)
    before = start + struct.pack(">I", len(head) + size + LENGTH) + b"IDAT" + head
    checksum = zlib.crc32(b"IDAT" + head)
    pngs = []
    for part in parts:
        adler = zlib.adler32(part).to_bytes(LENGTH, "big")
        check = zlib.crc32(adler, zlib.crc32(part, checksum)).to_bytes(LENGTH, "big")
        pngs.append(b"".join((before, part, adler, check, END)))
    return pngs


def _stored_head(size: int) -> bytes:
    """What stands before so many bytes that were not deflated: RFC 1950 and RFC 1951, 3.2.4."""
    return b"\x78\x01\x01" + struct.pack("<HH", size, size ^ 0xFFFF)


def _run_lengths(data: bytes) -> bytes:
    deflate = zlib.compressobj(1, strategy=zlib.Z_RLE)
    return deflate.compress(data) + deflate.flush()


def decode_png(data: bytes) -> np.ndarray:
    """The pixels `[c, h, w]` of an 8-bit grey or RGB PNG; anything else raises `BadImage`.

    The size is read before anything is decoded: at most 4096 × 4096.
    """
    if not data.startswith(SIGNATURE):
        raise BadImage("is not a PNG")
    if len(data) < len(SIGNATURE) + 4 + HEADER.size or not data.endswith(END):
        raise BadImage("is a truncated PNG")
    kind, width, height, depth, colour = HEADER.unpack_from(data, len(SIGNATURE) + 4)
    if kind != b"IHDR" or depth != 8 or colour not in COLOUR_OF_CHANNELS.values():
        raise BadImage("is not an 8-bit grey or RGB PNG")
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise BadImage(f"is {width}×{height} px, expected at most {MAX_SIDE}×{MAX_SIDE}")
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as picture:
            if picture.size != (width, height):
                raise BadImage("has two headers")
            return channels_first(np.array(picture))
    except BadImage:
        raise
    except UNDECODABLE as error:
        raise BadImage(f"does not decode ({error})") from error


def channels_first(picture: np.ndarray) -> np.ndarray:
    """The contiguous pixels `[c, h, w]` of a picture `[h, w]` or `[h, w, c]`."""
    if picture.ndim == 2:
        return picture[None]
    return np.ascontiguousarray(picture.transpose(2, 0, 1))


def pixel_sha256(pixels: np.ndarray) -> str:
    """The sha256, in hex, of one sample's shape and pixel bytes."""
    return pixel_sha256s(pixels[None])[0]


def pixel_sha256s(pixels: np.ndarray) -> list[str]:
    """The `pixel_sha256` of each sample of a batch `[n, …]`."""
    shape = "×".join(map(str, pixels.shape[1:])).encode() + b"\n"
    data, size = pixels.tobytes(), math.prod(pixels.shape[1:])
    return [
        hashlib.sha256(shape + data[first : first + size]).hexdigest()
        for first in range(0, len(data), size)
    ]


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(data, zlib.crc32(kind))
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)


END = _chunk(b"IEND", b"")

LENGTH = 4  # of a chunk's length, kind and checksum each
BLOCK_BYTES = 4 << 20  # unpacked at a time, so that it stays within the cache


def decode_pngs(pngs: Sequence[bytes | None], into: np.ndarray | None = None) -> np.ndarray:
    """The pixels uint8 `[n, c, h, w]` of n PNGs of one size and mode, in `into` where it is given.

    Raises `BadImage` for the first that is missing, no PNG, or unlike the others.
    """
    if into is None:
        into = np.empty((len(pngs), *decode_png(pngs[0] or b"").shape), np.uint8)
    for row in _fill_plain(into, pngs):
        try:
            decoded = decode_png(pngs[row] or b"")
        except BadImage as error:
            raise BadImage(str(error), row) from error
        if decoded.shape != into.shape[1:]:
            sizes = _size(decoded.shape), _size(into.shape[1:])
            raise BadImage("is {}, expected {} as the first; all must be alike".format(*sizes), row)
        into[row] = decoded
    return into


def _size(shape: tuple[int, ...]) -> str:
    channels, height, width = shape
    return f"{width}×{height} px {'grey' if channels == 1 else 'RGB'}"


def _fill_plain(pixels: np.ndarray, pngs: Sequence[bytes | None]) -> list[int]:
    """Fills pixels uint8 `[n, c, h, w]` with n PNGs; the rows it left alone.

    Left alone is whatever is not of that size and mode, whole, in one chunk, every line stored as
    its difference to the one above: for Pillow to decode, or to say what is wrong.
    """
    count, channels, height, width = pixels.shape
    start = encode_png(np.zeros(pixels.shape[1:], np.uint8))[: 8 + 13 + 3 * LENGTH]
    line = 1 + width * channels
    block = max(1, BLOCK_BYTES // (height * line))
    left: list[int] = []
    for first in range(0, count, block):
        rows = range(first, min(first + block, count))
        unpacked = {row: _unpacked(pngs[row], start, height * line) for row in rows}
        plain = [row for row, data in unpacked.items() if data is not None]
        lines = np.frombuffer(b"".join(unpacked[row] or b"" for row in plain), np.uint8)
        lines = lines.reshape(len(plain), height, line)
        usable = (lines[:, :, 0] == 2).all(axis=1)  # filter "Up"
        summed = np.add.accumulate(lines[:, :, 1:], axis=1, dtype=np.uint8)
        pictures = summed.reshape(-1, height, width, channels).transpose(0, 3, 1, 2)
        chosen = np.array(plain, np.int64)[usable]
        pixels[chosen] = pictures[usable]
        left += sorted({*rows} - {*chosen.tolist()})
    return left


def _unpacked(png: bytes | None, start: bytes, size: int) -> bytes | None:
    """The lines of a PNG that begins with `start`; None if it is not one IDAT of so many bytes."""
    data = len(start) + 2 * LENGTH  # behind length and kind
    if png is None or not png.startswith(start) or not png.endswith(END):
        return None
    stop = len(png) - len(END) - LENGTH
    if png[data - LENGTH : data] != b"IDAT" or stop - data != int.from_bytes(
        png[len(start) : len(start) + LENGTH]
    ):
        return None
    if zlib.crc32(png[data - LENGTH : stop]) != int.from_bytes(png[stop : stop + LENGTH]):
        return None
    head = _stored_head(size)
    if stop - data == len(head) + size + LENGTH and png.startswith(head, data):
        lines = png[data + len(head) : stop - LENGTH]
        adler = int.from_bytes(png[stop - LENGTH : stop])
        return lines if zlib.adler32(lines) == adler else None
    inflate = zlib.decompressobj()
    try:
        lines = inflate.decompress(png[data:stop], size + 1)
    except zlib.error:
        return None
    return lines if len(lines) == size and inflate.eof else None
