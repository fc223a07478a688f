"""A release that was published before this version, stored as it was, is still read."""

import shutil
from pathlib import Path

import datasets
import numpy as np
import pytest

from cgankd.app.console import Console
from cgankd.app.diff import diff
from cgankd.app.review.subject import open_subject
from cgankd.shardset.hub.read import opened
from cgankd.shardset.release.decoded import decoded_pixels, read_rows
from cgankd.shardset.release.verify import verify_release
from cgankd.shardset.samples import open_samples
from cgankd.shardset.testing import tiny_pixels, tiny_plan, write_tiny_release

STORED = Path(__file__).parents[1] / "data" / "release-v1"
QUIET = Console(json=True)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A copy, so that nothing is ever written beside the stored one."""
    return shutil.copytree(STORED, tmp_path / "v1.0.0")


def test_a_stored_release_is_what_its_manifest_says(release: Path) -> None:
    """Byte for byte, with pictures and card; whoever opens it by folder gets it."""
    assert verify_release(release) == []
    assert opened(str(release)).version == "v1.0.0"


def test_a_stored_release_loads_with_plain_datasets(release: Path, tmp_path: Path) -> None:
    """By the configurations of its card."""
    rows = datasets.load_dataset(str(release), split="train", cache_dir=str(tmp_path / "cache"))
    assert (len(rows), rows.features["label"].names) == (21, ["class 0", "class 1", "class 2"])


def test_a_stored_release_tells_all_that_regenerating_needs(release: Path) -> None:
    """The plan is the one that it was made by."""
    production = open_samples(release, images=False).production()
    assert production.plan == tiny_plan()
    assert (production.device, production.generator_sha256) == ("cpu", "0" * 64)


def test_students_can_be_trained_from_a_stored_release(release: Path, tmp_path: Path) -> None:
    """Its images and labels are the ones that were released."""
    manifest = opened(str(release)).manifest
    pixels = decoded_pixels(release, manifest, tmp_path / "cache")
    rows = read_rows(release, manifest, logits=True)

    assert rows.logits is not None
    assert rows.logits.shape == (21, 3)
    keys = datasets.load_dataset(str(release), split="train", cache_dir=str(tmp_path / "c"))["key"]
    expected = [tiny_pixels(tiny_plan(), k, n) for k, n in zip(keys, rows.labels, strict=True)]
    assert np.array_equal(pixels, np.stack(expected))


def test_a_stored_release_is_compared_with_one_of_today(release: Path, tmp_path: Path) -> None:
    """The samples are the same, and the lineage that was added since is no other policy."""
    today = write_tiny_release(tmp_path / "today").folder
    result = diff(str(release), str(today), console=QUIET)
    assert (result["changed"], result["policy"], result["columns"]) == (0, [], [])


def test_a_stored_release_is_reviewed(release: Path) -> None:
    """With its decisions and reasons."""
    subject = open_subject(release)
    assert (len(subject), int(subject.kept.sum())) == (24, 21)
