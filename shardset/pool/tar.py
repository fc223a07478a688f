"""The members of a tar, the same bytes wherever and whenever they are written."""

from collections.abc import Sequence

import numpy as np

from cgankd.shardset.identity import key_text

BLOCK = 512
RECORD = 20 * BLOCK  # tar pads a file to whole records; GNU tar and tarfile write it so
# Of a header: the key, which begins the name, the file's size, and the sum of all bytes.
KEY, SIZE, CHECKSUM = slice(0, 9), slice(124, 135), slice(148, 154)


def tar_member(name: str, data: bytes) -> bytes:
    """A file in a tar: its header, and its bytes padded to whole blocks."""
    return tar_header(name.encode(), len(data)) + padded(data)


def tar_headers(keys: Sequence[int], end: str, sizes: Sequence[int]) -> list[bytes]:
    """`tar_header` of the files `{key}.{end}` of so many bytes; they differ in a few digits, which
    are worked out for all of them at once.
    """
    zero = tar_header(f"{key_text(0)}.{end}".encode(), 0)
    key_text(max(keys, default=0))  # refuses one with more digits
    of_key, of_size = _digits(keys, 10, 9), _digits(sizes, 8, 11)
    sums = int(zero[CHECKSUM], 8) + of_key.sum(1) + of_size.sum(1)
    headers = np.tile(np.frombuffer(zero, np.uint8), (len(keys), 1))
    headers[:, KEY] += of_key
    headers[:, SIZE] += of_size
    headers[:, CHECKSUM] = ord("0") + _digits(sums, 8, 6)
    data = headers.tobytes()
    return [data[start : start + BLOCK] for start in range(0, len(data), BLOCK)]


def padded(data: bytes) -> bytes:
    """A file's bytes, and zeros until they fill whole blocks."""
    return data + bytes(-len(data) % BLOCK)


def _digits(numbers: Sequence[int] | np.ndarray, base: int, count: int) -> np.ndarray:
    """The digits uint8 `[n, count]` of numbers `[n]`, the highest first."""
    powers = base ** np.arange(count - 1, -1, -1, dtype=np.int64)
    return (np.asarray(numbers, np.int64)[:, None] // powers % base).astype(np.uint8)


def tar_header(name: bytes, size: int) -> bytes:
    """The 512 bytes of a POSIX ustar header: mode 644, owner 0, time 0, a regular file."""
    # name 100, mode 8, uid 8, gid 8, size 12, mtime 12, checksum 8, type 1, link 100, magic 8,
    # user 32, group 32, device 16, prefix 155, rest 12; the checksum counts itself as blanks.
    length = b"%011o" % size
    total = _HEADER_SUM + sum(name) + sum(length)
    return b"%b%b%b%b%06o%b" % (name, bytes(100 - len(name)), _OWNER + length, _TIME, total, _TAIL)


_OWNER = b"0000644\0" + b"0000000\0" * 2
_TIME = b"\0" + b"00000000000\0"
_TAIL = b"\0 " + b"0" + bytes(100) + b"ustar\00000" + bytes(247)
_HEADER_SUM = sum(_OWNER) + sum(_TIME) + 8 * ord(" ") + sum(_TAIL[2:])
