"""The decoded images of a release: what it holds, made once, and made anew when damaged."""

import errno
import io
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cgankd.shardset.errors import BadInput, ReleaseError
from cgankd.shardset.images import encode_png
from cgankd.shardset.release import decoded
from cgankd.shardset.release.decoded import decoded_pixels, read_rows
from cgankd.shardset.release.manifest import read_manifest
from cgankd.shardset.release.tables import release_schema
from cgankd.shardset.testing import tiny_continuous_plan, tiny_pixels, tiny_plan, write_tiny_release

PLAN = tiny_plan()
PARQUET = "data/accepted/train-00000-of-00001.parquet"


@pytest.fixture
def release(tmp_path):
    """A release folder."""
    return write_tiny_release(tmp_path / "built", plan=PLAN).folder


@pytest.fixture
def rows(release):
    """The Parquet rows of its accepted images."""
    return pq.read_table(release / PARQUET)


def read(release, cache, **more):
    return decoded_pixels(release, read_manifest(release), cache, **more)


def rewritten(release, rows, **columns):
    """The release with other columns in the Parquet file of its accepted images."""
    for name, values in columns.items():
        place = rows.column_names.index(name)
        rows = rows.set_column(place, name, pa.array(values, rows.schema.field(name).type))
    pq.write_table(rows, release / PARQUET)


def with_image(rows, row, png):
    images = rows["image"].to_pylist()
    images[row] = {"bytes": png, "path": "x.png"}
    return images


@pytest.fixture
def done(monkeypatch):
    """The jobs that decoding did."""
    found = []
    work = decoded._decode

    def counted(job):
        work(job)
        found.append((job.first, job.rows))

    monkeypatch.setattr(decoded, "_decode", counted)
    return found


def test_every_image_is_the_one_that_was_produced(release, rows, tmp_path):
    """In the order of the rows, whatever number of jobs it takes."""
    labels = {int(key): int(label) for key, label in zip(*keys_and_labels(rows), strict=True)}
    expected = np.stack([tiny_pixels(PLAN, key, label) for key, label in labels.items()])
    pixels = read(release, tmp_path / "cache")

    assert pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, expected)


def keys_and_labels(rows):
    return rows["key"].to_pylist(), rows["original_label"].to_pylist()


def test_every_row_group_is_a_job(release, rows, tmp_path, done):
    """However small, the file is the same."""
    whole = read(release, tmp_path / "whole")
    pq.write_table(rows, release / PARQUET, row_group_size=8)
    done.clear()
    parts = read(release, tmp_path / "parts")

    np.testing.assert_array_equal(parts, whole)
    assert sorted(done) == [(0, 8), (8, 8), (16, 5)]


def test_pngs_that_another_program_wrote_are_decoded_too(release, rows, tmp_path):
    """Lines filtered otherwise, several chunks; the pixels are the same."""
    expected = read(release, tmp_path / "own")
    images = []
    for pixels in expected:
        data = io.BytesIO()
        Image.fromarray(pixels[0]).save(data, "PNG", compress_level=len(images) % 10)
        images.append({"bytes": data.getvalue(), "path": "x.png"})
    # Half of them, so that both kinds are in one file.
    rewritten(release, rows, image=[*images[:11], *rows["image"].to_pylist()[11:]])

    np.testing.assert_array_equal(read(release, tmp_path / "foreign"), expected)


def test_the_second_opening_decodes_nothing(release, tmp_path, done):
    """And maps the same file."""
    first = read(release, tmp_path)
    done.clear()
    again = read(release, tmp_path)

    assert done == []
    assert isinstance(again, np.memmap)
    np.testing.assert_array_equal(again, first)


def test_writing_to_the_pixels_leaves_the_file_alone(release, tmp_path):
    """They are a private copy."""
    pixels = read(release, tmp_path)
    before = pixels.copy()
    pixels[:] = 0

    np.testing.assert_array_equal(read(release, tmp_path), before)


@pytest.mark.parametrize("damage", ["cut", "flipped", "emptied", "removed", "marker", "other"])
def test_a_damaged_cache_is_noticed_and_made_anew(release, tmp_path, damage):
    """Whatever became of the file or its marker."""
    expected = np.array(read(release, tmp_path))
    (path,) = tmp_path.glob("*.npy")
    data = path.read_bytes()
    if damage == "cut":
        os.truncate(path, len(data) - 1)
    elif damage == "flipped":
        path.write_bytes(data[:-5] + bytes([data[-5] ^ 1]) + data[-4:])
    elif damage == "emptied":
        path.write_bytes(b"")
    elif damage == "removed":
        path.unlink()
    elif damage == "marker":
        path.with_suffix(".json").write_text("{")
    else:
        path.with_suffix(".json").write_text('{"format_version": 1}')
    told: list[str] = []
    again = read(release, tmp_path, note=told.append)

    np.testing.assert_array_equal(again, expected)
    assert len(told) == 1
    assert path.name in told[0]


def test_an_interrupted_decoding_leaves_nothing_that_counts(release, tmp_path, monkeypatch):
    """The next opening decodes again."""

    def interrupted(job):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(decoded, "_decode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            read(release, tmp_path)

    assert not list(tmp_path.glob("*.npy"))
    assert len(read(release, tmp_path)) == sum(read_manifest(release).accepted)


def test_another_content_has_another_file(release, tmp_path):
    """The name is the manifest's hash."""
    other = write_tiny_release(tmp_path / "other", plan=tiny_plan(seed=1)).folder
    read(release, tmp_path / "cache")
    read(other, tmp_path / "cache")

    assert len(list((tmp_path / "cache").glob("*.npy"))) == 2


def cut(png):
    return png[:-20]


def huge(_png):
    """A header that promises more pixels than any image has."""
    return encode_png(np.zeros((1, 8, 8), np.uint8)).replace(
        b"\0\0\0\x08\0\0\0\x08", b"\0\0\xff\xff\0\0\xff\xff", 1
    )


def larger(_png):
    return encode_png(np.zeros((1, 9, 9), np.uint8))


def coloured(_png):
    return encode_png(np.zeros((3, 8, 8), np.uint8))


def nothing(_png):
    return b""


@pytest.mark.parametrize("spoil", [cut, huge, larger, coloured, nothing])
def test_a_bad_image_is_refused_by_its_key(release, rows, tmp_path, spoil):
    """Malformed, huge, of another size or mode."""
    key = rows["key"][5].as_py()
    png = rows["image"][5].as_py()["bytes"]
    rewritten(release, rows, image=with_image(rows, 5, spoil(png)))

    with pytest.raises(ReleaseError, match=rf"{PARQUET}: the image of key {key} "):
        read(release, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.npy*"))


def test_a_first_image_that_is_bad_is_refused_too(release, rows, tmp_path):
    """It decides what the others must be like."""
    rewritten(release, rows, image=with_image(rows, 0, b"PNG?"))

    with pytest.raises(ReleaseError, match=f"key {rows['key'][0]} is not a PNG"):
        read(release, tmp_path)


def test_a_disk_without_room_is_refused_before_decoding(release, tmp_path, monkeypatch):
    """With what to do."""
    usage = decoded.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(
        decoded.shutil, "disk_usage", lambda _path: usage._replace(free=21 * 64 - 1)
    )
    with pytest.raises(BadInput, match=r"take 1,344 bytes, 1,343 are free; .*--streaming"):
        read(release, tmp_path)


def test_a_disk_that_fills_up_is_one_line(release, tmp_path, monkeypatch):
    """And leaves nothing; writing to a mapping without room would end the process."""

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(decoded.os, "posix_fallocate", full)
    with pytest.raises(BadInput, match="the disk is full"):
        read(release, tmp_path)
    assert not list(tmp_path.glob("*.npy*"))


def test_a_table_of_other_columns_is_refused(release, rows, tmp_path):
    """Missing, or of another type."""
    pq.write_table(rows.drop_columns(["key"]), release / PARQUET)
    with pytest.raises(ReleaseError, match="column 'key' is missing"):
        read(release, tmp_path)

    place = rows.column_names.index("key")
    text = rows.set_column(place, "key", rows["key"].cast(pa.string()))
    pq.write_table(text, release / PARQUET)
    with pytest.raises(ReleaseError, match="column 'key' is string, expected int64"):
        read(release, tmp_path)

    (release / PARQUET).write_bytes(b"PAR1")
    with pytest.raises(ReleaseError, match="cut or not Parquet"):
        read(release, tmp_path)


def test_a_table_of_other_length_than_the_manifest_says_is_refused(release, rows, tmp_path):
    """It would be written past the end."""
    pq.write_table(pa.concat_tables([rows, rows]), release / PARQUET)

    with pytest.raises(ReleaseError, match=r"has 42 rows, the manifest says 21"):
        read(release, tmp_path)


def test_labels_and_logits_are_the_rows(release, rows):
    """In the same order as the images."""
    found = read_rows(release, read_manifest(release), logits=True)

    assert found.labels.tolist() == rows["label"].to_pylist()
    assert found.logits is not None
    np.testing.assert_array_equal(
        found.logits, np.array(rows["teacher_logits"].to_pylist(), np.float32)
    )
    assert read_rows(release, read_manifest(release), logits=False).logits is None


def test_labels_and_logits_that_cannot_be_are_refused(release, rows):
    """A class that is none, a list that is short."""
    labels = rows["label"].to_pylist()
    rewritten(release, rows, label=[3, *labels[1:]])
    with pytest.raises(BadInput, match=f"{PARQUET}: label 3 of sample 0"):
        read_rows(release, read_manifest(release), logits=False)

    logits = rows["teacher_logits"].to_pylist()
    rewritten(release, rows, teacher_logits=[logits[0][:2], *logits[1:]])
    with pytest.raises(ReleaseError, match="does not hold 3 numbers for every image"):
        read_rows(release, read_manifest(release), logits=True)


def test_continuous_labels_are_in_their_unit(tmp_path):
    """And have no logits."""
    folder = write_tiny_release(tmp_path, plan=tiny_continuous_plan()).folder
    manifest = read_manifest(folder)
    found = read_rows(folder, manifest, logits=True)

    assert found.logits is None
    assert found.labels.dtype == np.float64
    assert np.abs(found.labels).max() <= 60
    assert release_schema("data/accepted", manifest.space).field("label").type == pa.float64()


def test_a_release_without_accepted_images_is_refused(release, tmp_path):
    """In one line."""
    manifest = read_manifest(release)
    emptied = manifest.model_copy(
        update={"files": tuple(e for e in manifest.files if "accepted" not in e.path)}
    )
    with pytest.raises(ReleaseError, match=r"release v1.0.0 holds no accepted images"):
        decoded_pixels(release, emptied, tmp_path)


def test_two_processes_at_once_decode_once(release, tmp_path):
    """The second waits for the first."""
    code = """
import sys
from pathlib import Path
from cgankd.shardset.release import decoded
from cgankd.shardset.release.manifest import read_manifest

release, cache = map(Path, sys.argv[1:])
write, count = decoded._write, []
decoded._write = lambda *given: count.append(1) or write(*given)
print(decoded.decoded_pixels(release, read_manifest(release), cache).sum(), len(count))
"""
    command = [sys.executable, "-c", code, str(release), str(tmp_path / "shared")]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told = [process.communicate()[0].split() for process in running]

    assert sorted(count for _, count in told) == ["0", "1"]
    assert told[0][0] == told[1][0]
