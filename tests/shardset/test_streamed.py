"""The stream of a release: its order, going on from anywhere, and what it refuses."""

from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgankd.shardset.errors import HubError, ReleaseError
from cgankd.shardset.files import sha256_file
from cgankd.shardset.hub.client import Hub
from cgankd.shardset.hub.read import opened
from cgankd.shardset.release.decoded import decoded_pixels
from cgankd.shardset.release.manifest import FileEntry, read_manifest
from cgankd.shardset.release.streamed import Stream, from_folder, from_hub
from cgankd.shardset.testing import write_tiny_release
from tests.hub.faults import Fault
from tests.shardset.hubs import REPO, hub_and_client, published, tags

ROWS = (3, 1, 6, 2, 5, 4)  # of its files, in all 21
PARQUET = "data/accepted/train-00000-of-00001.parquet"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A release of one file."""
    return write_tiny_release(tmp_path_factory.mktemp("whole")).folder


@pytest.fixture(scope="module")
def pieces(whole, tmp_path_factory):
    """The same rows in six files, and their manifest."""
    folder = tmp_path_factory.mktemp("pieces")
    rows = pq.read_table(whole / PARQUET)
    entries, first = [], 0
    (folder / "data" / "accepted").mkdir(parents=True)
    for number, count in enumerate(ROWS):
        name = f"data/accepted/train-{number:05d}-of-00006.parquet"
        path = folder / name
        pq.write_table(rows.slice(first, count), path)
        size = path.stat().st_size
        entries.append(FileEntry(path=name, sha256=sha256_file(path), bytes=size, rows=count))
        first += count
    return folder, read_manifest(whole).model_copy(update={"files": tuple(entries)})


def stream(pieces, *, seed=0, logits=True, window_files=2, fetch=None):
    folder, manifest = pieces
    fetch = fetch or from_folder(folder)
    return Stream(manifest, fetch, seed=seed, logits=logits, window_files=window_files)


def lent(folder, log):
    """A way of lending files that notes which."""
    lend = from_folder(folder)

    @contextmanager
    def fetch(entry):
        log.append(entry.path)
        with lend(entry) as path:
            yield path

    return fetch


def images(stream, start, stop):
    return [pixels.tobytes() for pixels in stream.rows(start, stop)[0]]


@pytest.fixture(scope="module")
def everything(pieces):
    """Three epochs in one go: pixels, labels, logits."""
    with stream(pieces) as source:
        pixels, rows = source.rows(0, 63)
    return pixels, rows.labels, rows.logits


@given(st.lists(st.integers(0, 63), min_size=2, max_size=5))
def test_from_any_position_the_rest_is_the_same(pieces, everything, places):
    """However the reading is cut up and wherever it begins."""
    places = sorted(places)
    with stream(pieces) as source:
        for start, stop in pairwise(places):
            if start == stop:
                continue
            pixels, rows = source.rows(start, stop)
            found = (pixels, rows.labels, rows.logits)
            for one, all_of_it in zip(found, everything, strict=True):
                np.testing.assert_array_equal(one, all_of_it[start:stop])


@pytest.mark.parametrize("window_files", [1, 2, 4, 6, 9])
def test_every_epoch_has_every_row_once(pieces, whole, tmp_path, window_files):
    """Its image with its label and its logits, in an order that differs from epoch to epoch."""
    expected = decoded_pixels(whole, read_manifest(whole), tmp_path)
    rows = pq.read_table(whole / PARQUET)
    about = {
        pixels.tobytes(): (row["label"], row["teacher_logits"])
        for pixels, row in zip(expected, rows.to_pylist(), strict=True)
    }
    orders = []
    with stream(pieces, window_files=window_files) as source:
        assert len(source) == 21
        assert source.image_shape == (1, 8, 8)
        for epoch in range(3):
            pixels, found = source.rows(21 * epoch, 21 * (epoch + 1))
            orders.append([one.tobytes() for one in pixels])
            assert sorted(orders[-1]) == sorted(about)
            for image, label, logits in zip(orders[-1], found.labels, found.logits, strict=True):
                assert about[image] == (label, logits.tolist())

    assert orders[0] != orders[1] != orders[2]


def test_a_seed_is_an_order(pieces):
    """The same for the same seed, another for another."""
    with stream(pieces) as one, stream(pieces) as same, stream(pieces, seed=1) as other:
        assert images(one, 0, 21) == images(same, 0, 21)
        assert images(one, 0, 21) != images(other, 0, 21)


def test_rows_are_mixed_within_a_window_alone(pieces, whole):
    """What comes first is of two files: in memory are never more than two windows."""
    log: list[str] = []
    with stream(pieces, fetch=lent(pieces[0], log)) as source:
        source.rows(0, 1)
    assert len(set(log)) == 4  # its own, and the one that is fetched meanwhile

    log.clear()
    with stream(pieces, fetch=lent(pieces[0], log)) as source:
        for start in range(0, 21, 3):
            source.rows(start, start + 3)
        assert sorted(log[:6]) == sorted(entry.path for entry in pieces[1].files)


def test_a_set_of_one_window_is_read_once(pieces):
    """However many epochs it is asked for."""
    log: list[str] = []
    with stream(pieces, window_files=6, fetch=lent(pieces[0], log)) as source:
        source.rows(0, 100)

    assert len(log) == 6


def test_logits_are_read_only_where_they_are_asked_for(pieces):
    """They are the larger part of small images' rows."""
    with stream(pieces, logits=False) as source:
        assert source.rows(0, 5)[1].logits is None


def test_a_file_of_other_length_than_the_manifest_says_is_refused(pieces):
    """By its name."""
    folder, manifest = pieces
    first = manifest.files[0]
    other = first.model_copy(update={"rows": 4})
    changed = manifest.model_copy(update={"files": (other, *manifest.files[1:])})
    with (
        stream((folder, changed), window_files=6) as source,
        pytest.raises(ReleaseError, match=rf"{first.path} has 3 rows, the manifest says 4"),
    ):
        source.rows(0, 1)


@pytest.fixture
def hub(whole, tmp_path, monkeypatch):
    """A Hub that has the release, and a client that has read nothing."""
    with hub_and_client(tmp_path, monkeypatch) as hub:
        published(whole)
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
        (tmp_path / "temporary").mkdir()
        yield hub


def from_the_hub(seed=0):
    found = opened(f"{REPO}@v1.0.0", only=["metadata/*"])
    fetch = from_hub(Hub(), REPO, tags()["v1.0.0"])
    return Stream(found.manifest, fetch, seed=seed, logits=True)


def test_the_hub_gives_what_the_folder_gives_and_leaves_no_file(hub, whole, tmp_path):
    """Neither in the cache nor in the temporary folder."""
    with (
        from_the_hub() as source,
        Stream(read_manifest(whole), from_folder(whole), seed=0, logits=True) as local,
    ):
        assert images(source, 0, 50) == images(local, 0, 50)

    assert list((tmp_path / "temporary").iterdir()) == []
    assert list((tmp_path / "home").rglob("*.parquet")) == []


def test_other_bytes_than_the_manifest_says_are_not_read(hub):
    """A bit that changed on the way."""
    with from_the_hub() as source:
        hub.faults.append(Fault(r"resolve/.*accepted", method="GET", times=9, corrupt=True))
        with pytest.raises(ReleaseError, match=f"{PARQUET} has other bytes"):
            source.rows(0, 1)


def test_a_hub_that_is_gone_is_said_so(hub, monkeypatch):
    """Nothing is served from anywhere else."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the client's, between its tries
    with from_the_hub() as source:
        hub.stop()
        with pytest.raises(HubError, match="does not answer"):
            source.rows(0, 1)


def test_a_temporary_file_is_gone_when_reading_fails(hub, tmp_path):
    """However it fails."""
    manifest = opened(f"{REPO}@v1.0.0", only=["metadata/*"]).manifest
    (entry,) = (entry for entry in manifest.files if entry.path == PARQUET)

    def interrupted():
        with from_hub(Hub(), REPO, tags()["v1.0.0"])(entry) as path:
            assert sha256_file(path) == entry.sha256
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list((tmp_path / "temporary").iterdir()) == []
