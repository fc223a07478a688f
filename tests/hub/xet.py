"""Files that a client sent through Xet, read out of the local store that it was told to use.

A Xet client sends no file to the Hub itself: it cuts files into chunks and writes those to a store,
here a folder, with shards that say which chunks make which file.
"""

import struct
from pathlib import Path

SHARD_HEADER = 48  # bytes; each record of a shard has as many
FAR_FUTURE = 4_000_000_000  # seconds since 1970
END = b"\xff" * 32
HAS_VERIFICATION = 1 << 31
HAS_SHA256 = 1 << 30


def xet_address(folder: Path) -> str:
    """What a client is told to write to."""
    return f"local://{folder.absolute()}"


def xet_hashes(folder: Path) -> dict[str, str]:
    """The Xet hash of every file in the store, by its sha256."""
    hashes: dict[str, str] = {}
    for path in sorted(folder.glob("xet/xorbs/shards/*.mdb")):
        hashes.update(_hashes_in_shard(path.read_bytes()))
    return hashes


def _hashes_in_shard(shard: bytes) -> dict[str, str]:
    hashes = {}
    at = SHARD_HEADER
    while (file_hash := shard[at : at + 32]) != END:
        flags, segments = struct.unpack_from("<II", shard, at + 32)
        at += 48 * (1 + segments)
        if flags & HAS_VERIFICATION:
            at += 48 * segments
        if flags & HAS_SHA256:
            hashes[_hex(shard[at : at + 32])] = _hex(file_hash)
            at += 48
    return hashes


def _hex(value: bytes) -> str:
    """A hash as Xet writes it: four 64-bit words, each stored with its lowest byte first."""
    return "".join(f"{word:016x}" for word in struct.unpack("<4Q", value))


def fetch_from_xet(folder: Path, xet_hash: str, target: Path) -> None:
    """Puts a file together from its chunks."""
    from hf_xet import XetFileInfo, XetSession

    session = XetSession()
    with session.new_file_download_group(
        endpoint=xet_address(folder), token="loopback", token_expiry_unix_secs=FAR_FUTURE
    ) as group:
        group.start_download_file(XetFileInfo(xet_hash, None), str(target.absolute()))
