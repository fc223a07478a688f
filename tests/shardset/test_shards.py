"""Shards hold samples, and a marker vouches for every byte of them."""

import gc
import io
import json
import tarfile
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cgankd.shardset.errors import CorruptShard, StaleStage
from cgankd.shardset.images import encode_png, encode_pngs, pixel_sha256, pixel_sha256s
from cgankd.shardset.pool.shards import (
    PoolShardWriter,
    is_done,
    marker_of,
    read_png,
    read_shard,
    verify_shard,
)
from cgankd.shardset.pool.tar import tar_header
from cgankd.shardset.tables import read_metadata

POOL = "0123456789abcdef"


def write(folder, pixels, labels=None, first_key=5, index=0, fingerprint="f"):
    labels = labels or list(range(len(pixels)))
    with PoolShardWriter(folder, index, fingerprint) as writer:
        for key, (image, label) in enumerate(zip(pixels, labels, strict=True), start=first_key):
            digest = pixel_sha256(image)
            writer.add(key, encode_png(image), label, label, digest, 9, POOL)


def some_pixels(count=4, channels=1, size=8):
    return np.random.default_rng(0).integers(0, 256, (count, channels, size, size), dtype=np.uint8)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@settings(max_examples=20, deadline=None)
@given(
    count=st.integers(1, 5),
    channels=st.sampled_from([1, 3]),
    size=st.integers(8, 20),
    first_key=st.integers(0, 10**9 - 10),
)
def test_pixels_and_rows_survive_the_disk(tmp_path_factory, count, channels, size, first_key):
    """Reading gives what was written, whatever the size and kind of images."""
    folder = tmp_path_factory.mktemp("pool")
    pixels = some_pixels(count, channels, size)
    write(folder, pixels, first_key=first_key)

    read, rows = read_shard(folder, 0)
    assert np.array_equal(pixels, read)
    assert list(range(first_key, first_key + count)) == rows["key"].to_pylist()
    assert [pixel_sha256(image) for image in pixels] == rows["pixel_sha256"].to_pylist()
    assert [encode_png(image) for image in pixels] == [
        read_png(folder, row) for row in rows.to_pylist()
    ]


def test_the_tar_is_what_the_standard_library_would_write(tmp_path):
    """Byte for byte a ustar archive, so every tar program can read it."""
    pixels = some_pixels()
    write(tmp_path, pixels)

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for key, image in enumerate(pixels, start=5):
            facts = {"condition": key - 5, "label": key - 5, "pool_id": POOL, "seed": 9}
            for end, data in (
                ("png", encode_png(image)),
                ("cls", str(key - 5).encode()),
                ("json", json.dumps(facts).encode()),
            ):
                member = tarfile.TarInfo(f"{key:09d}.{end}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    assert buffer.getvalue() == (tmp_path / "000000.tar").read_bytes()


@given(st.from_regex(r"[0-9a-z.]{1,100}", fullmatch=True), st.integers(0, 8**11 - 1))
def test_headers_have_the_checksum_that_tar_demands(name, size):
    """The standard library accepts every header and reads name and size back."""
    member = tarfile.TarInfo.frombuf(tar_header(name.encode(), size), "latin-1", "strict")

    assert (name, size) == (member.name, member.size)
    assert (member.mtime, member.uid, member.gid, member.mode) == (0, 0, 0, 0o644)


def test_samples_added_together_are_those_added_one_by_one(tmp_path):
    """The same three files, also where PNGs differ in length and labels from sample to sample."""
    pixels = some_pixels(60, size=40)
    pixels[::2] = 7  # these deflate to less
    labels = [key % 3 for key in range(60)]
    write(tmp_path / "single", pixels, labels, first_key=970)
    with PoolShardWriter(tmp_path / "together", 0, "f") as writer:
        for rows in (slice(0, 1), slice(1, 45), slice(45, 60)):
            pngs, hashes = encode_pngs(pixels[rows]), pixel_sha256s(pixels[rows])
            keys = range(970, 1030)[rows]
            writer.add_all(keys, pngs, labels[rows], labels[rows], hashes, 9, POOL)

    assert contents(tmp_path / "together") == contents(tmp_path / "single")


def test_webdataset_reads_the_shard(tmp_path):
    """The project's pool format is WebDataset's."""
    import webdataset

    pixels = some_pixels()
    write(tmp_path, pixels)

    with warnings.catch_warnings():  # webdataset leaves closing its files to the collector
        warnings.simplefilter("ignore", ResourceWarning)
        samples = list(webdataset.WebDataset(str(tmp_path / "000000.tar"), shardshuffle=False))
        gc.collect()
    assert [s["__key__"] for s in samples] == ["000000005", "000000006", "000000007", "000000008"]
    assert [encode_png(image) for image in pixels] == [s["png"] for s in samples]
    assert [s["cls"] for s in samples] == [b"0", b"1", b"2", b"3"]
    assert json.loads(samples[1]["json"]) == {
        "condition": 1,
        "label": 1,
        "pool_id": POOL,
        "seed": 9,
    }


def test_datasets_reads_the_shard(tmp_path):
    """`datasets` decodes images and classes from the same tar."""
    from datasets import load_dataset

    pixels = some_pixels()
    write(tmp_path / "pool", pixels)

    rows = load_dataset(
        "webdataset",
        data_files={"train": str(tmp_path / "pool" / "000000.tar")},
        cache_dir=str(tmp_path / "cache"),
    )["train"]
    assert list(rows["cls"]) == [0, 1, 2, 3]
    assert all(
        np.array_equal(p[0], np.asarray(i)) for p, i in zip(pixels, rows["png"], strict=True)
    )


def test_the_same_samples_give_the_same_bytes(tmp_path):
    """No clock, no owner, no folder in any of the three files."""
    for name in ("a", "b"):
        write(tmp_path / name, some_pixels())

    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_the_marker_counts_and_the_rows_know_their_origin(tmp_path):
    """What later stages need is in the small files."""
    write(tmp_path, some_pixels(3))

    marker = verify_shard(tmp_path, 0)
    assert tuple(marker[name] for name in ("count", "first_key", "last_key", "failed")) == (
        3,
        5,
        7,
        0,
    )
    assert read_metadata(tmp_path / "000000.parquet") == {"seed": 9, "pool_id": POOL}


def test_a_failed_sample_is_a_row_with_a_status_and_a_black_image(tmp_path):
    """It is not in the tar, and pixels and rows keep step."""
    pixels = some_pixels(3)
    with PoolShardWriter(tmp_path, 0, "f") as writer:
        writer.add(0, encode_png(pixels[0]), 0, 0, pixel_sha256(pixels[0]), 9, POOL)
        writer.add(1, None, 0, 0, None, 9, POOL, status="not finite")
        writer.add(2, encode_png(pixels[2]), 0, 0, pixel_sha256(pixels[2]), 9, POOL)

    read, rows = read_shard(tmp_path, 0)
    assert np.array_equal(pixels[[0, 2]], read[[0, 2]])
    assert not read[1].any()
    assert rows["status"].to_pylist() == ["ok", "not finite", "ok"]
    assert marker_of(tmp_path, 0)["failed"] == 1
    with pytest.raises(CorruptShard, match="key 1 has no image"):
        read_png(tmp_path, rows.to_pylist()[1])


def test_continuous_labels_keep_their_type(tmp_path):
    """A float label is a float column, and no class file is written for it."""
    write(tmp_path, some_pixels(2), labels=[0.5, 7.0])

    assert read_shard(tmp_path, 0)[1]["label"].to_pylist() == [0.5, 7.0]
    with tarfile.open(tmp_path / "000000.tar") as tar:
        assert [name.split(".")[1] for name in tar.getnames()] == ["png", "json"] * 2


def test_an_exception_leaves_nothing(tmp_path):
    """Not even a temporary file; an older shard of that number is no longer vouched for."""
    write(tmp_path, some_pixels())
    with pytest.raises(KeyboardInterrupt):
        write_and(tmp_path, KeyboardInterrupt)

    assert {"000000.tar", "000000.parquet"} == set(contents(tmp_path))
    assert not is_done(tmp_path, 0, "f")


def write_and(folder, error):
    """A producer that fails after its first sample."""
    with PoolShardWriter(folder, 0, "f") as writer:
        writer.add(0, b"png", 0, 0, "", 9, POOL)
        raise error


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([(3, 9), (3, 9)], "key 3 was added after key 3"),
        ([(3, 9), (4, 8)], "key 4 has another seed or pool"),
        ([], "shard 0 has no samples"),
    ],
)
def test_mistakes_of_a_producer_are_errors(tmp_path, samples, message):
    """Keys out of order, samples of two pools, a shard without samples: nothing is written."""

    def produce():
        with PoolShardWriter(tmp_path, 0, "f") as writer:
            for key, seed in samples:
                writer.add(key, b"png", 0, 0, "", seed, POOL)

    with pytest.raises(ValueError, match=message):
        produce()
    assert contents(tmp_path) == {}


def test_done_needs_the_marker_and_the_fingerprint(tmp_path):
    """Absent is not done, other settings are refused by the shard's name."""
    assert not is_done(tmp_path, 0, "f")
    write(tmp_path, some_pixels())

    assert is_done(tmp_path, 0, "f")
    with pytest.raises(StaleStage, match=r"000000\.tar was made with other settings"):
        is_done(tmp_path, 0, "g")


def cuts(tar: bytes) -> dict[str, int]:
    """Where a tar can be cut, one offset of each kind."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        members = opened.getmembers()
    return {
        "nothing left": 0,
        "sample boundary": members[3].offset,
        "member boundary": members[4].offset,
        "inside a header": members[4].offset + 100,
        "inside the data": members[3].offset_data + 20,
        "inside the padding": members[-1].offset_data + members[-1].size + 1,
        "before the end marks": members[-1].offset_data + 512,
        "last byte": len(tar) - 1,
    }


@pytest.mark.parametrize(
    "kind",
    [
        "nothing left",
        "sample boundary",
        "member boundary",
        "inside a header",
        "inside the data",
        "inside the padding",
        "before the end marks",
        "last byte",
    ],
)
def test_every_kind_of_truncation_is_detected(tmp_path, kind):
    """Most of these cuts open without an error in every tar reader."""
    write(tmp_path, some_pixels())
    path = tmp_path / "000000.tar"
    path.write_bytes(path.read_bytes()[: cuts(path.read_bytes())[kind]])

    assert not is_done(tmp_path, 0, "f")
    for read in (verify_shard, read_shard):
        with pytest.raises(CorruptShard, match=r"000000\.tar has \d+ bytes, its marker says"):
            read(tmp_path, 0)


@pytest.mark.parametrize("name", ["000000.tar", "000000.parquet"])
def test_changed_cut_grown_and_missing_files_are_detected(tmp_path, name):
    """A byte changed in place costs a full read to find; the rest is seen from sizes."""
    write(tmp_path, some_pixels())
    path, whole = tmp_path / name, (tmp_path / name).read_bytes()
    path.write_bytes(whole[:100] + bytes([whole[100] ^ 1]) + whole[101:])
    with pytest.raises(CorruptShard, match=f"{name} has other bytes"):
        verify_shard(tmp_path, 0)
    for broken in (whole[:-1], whole + b"\0"):
        path.write_bytes(broken)
        with pytest.raises(CorruptShard, match=name):
            read_shard(tmp_path, 0)
    path.unlink()
    assert not is_done(tmp_path, 0, "f")
    with pytest.raises(CorruptShard, match=f"{name} is missing"):
        read_shard(tmp_path, 0)


def test_an_unfinished_shard_is_not_read(tmp_path):
    """Without its marker a tar means nothing."""
    write(tmp_path, some_pixels())
    (tmp_path / "000000.json").unlink()

    with pytest.raises(CorruptShard, match="has no marker"):
        read_shard(tmp_path, 0)


def test_images_that_do_not_decode_or_fit_are_named(tmp_path):
    """A marker can vouch for bytes that are no picture; the error names the key."""
    good, small = encode_png(some_pixels(1)[0]), encode_png(some_pixels(1, 1, 9)[0])
    for second, what in ((b"no picture", "key 1 is not a PNG"), (small, "key 1 is .*expected")):
        with PoolShardWriter(tmp_path, 0, "f") as writer:
            writer.add(0, good, 0, 0, "", 9, POOL)
            writer.add(1, second, 0, 0, "", 9, POOL)
        with pytest.raises(CorruptShard, match=what):
            read_shard(tmp_path, 0)
    with PoolShardWriter(tmp_path, 0, "f") as writer:
        writer.add(0, None, 0, 0, None, 9, POOL, status="not finite")
    with pytest.raises(CorruptShard, match="no sample has an image"):
        read_shard(tmp_path, 0)
