"""A full disk is one line, and what was there before is still whole."""

import errno
import os
import resource
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pytest
import torch

from cgankd.shardset.errors import BadInput
from cgankd.shardset.files import write_json
from cgankd.shardset.pool.shards import PoolShardWriter
from cgankd.shardset.tables import write_table
from cgankd.shardset.testing import write_tiny_release
from cgankd.shardset.weights import save_weights

NOISE = np.random.default_rng(0).bytes(100_000)


@contextmanager
def files_of_at_most(size):
    """Makes the system refuse to let any file grow beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def write_shard(path, count=20):  # by default more bytes than the writer holds back
    with PoolShardWriter(path.parent, 0, "f") as writer:
        for key in range(count):
            writer.add(key, NOISE, 0, 0, "", 0, "pool")


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("x.json", lambda path: write_json(path, NOISE.hex())),
        ("x.parquet", lambda path: write_table(path, pa.table({"x": [NOISE]}))),
        ("000000.tar", write_shard),
        ("model.safetensors", lambda p: save_weights(p.parent, {"x": torch.ones(9999)}, {})),
    ],
)
def test_a_file_that_finds_no_room_leaves_the_old_one(tmp_path, name, write):
    """No half file, no temporary file, one line with the path."""
    path = tmp_path / name
    path.write_text("old")
    with files_of_at_most(20_000), pytest.raises(BadInput, match=f"{name}: the disk is full") as e:
        write(path)

    assert "\n" not in str(e.value)
    assert path.read_text() == "old"
    assert {name} | ({"config.json"} & set(os.listdir(tmp_path))) == set(os.listdir(tmp_path))


def test_a_shard_whose_last_byte_finds_no_room_leaves_nothing(tmp_path, monkeypatch):
    """Also when the disk fills up at the very end."""

    def write(handle, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(BadInput, match=r"000000\.tar: the disk is full"):
        write_shard(tmp_path / "000000.tar", count=1)

    assert os.listdir(tmp_path) == []


def test_a_write_that_takes_part_of_the_bytes_is_continued(tmp_path, monkeypatch):
    """The system may write less than asked for; nothing is lost."""
    write = os.write
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    write_shard(whole / "000000.tar")
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:300_000]))
    write_shard(parts / "000000.tar")

    assert (whole / "000000.tar").read_bytes() == (parts / "000000.tar").read_bytes()


def test_a_release_that_finds_no_room_is_not_there(tmp_path):
    """Neither the version's folder nor a part of it; with room, it is built."""
    write_tiny_release(tmp_path)
    with files_of_at_most(5_000), pytest.raises(BadInput, match="the disk is full"):
        write_tiny_release(tmp_path, "v1.0.1")
    assert {"run", "v1.0.0"} == set(os.listdir(tmp_path))

    assert write_tiny_release(tmp_path, "v1.0.1").version == "v1.0.1"
