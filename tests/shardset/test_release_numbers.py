"""A release with continuous labels: plain floats in their unit, counted by parts of the range."""

from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pytest
import yaml

from cgankd.shardset.errors import BadInput, ReleaseError
from cgankd.shardset.files import read_json
from cgankd.shardset.labels import LabelSettings
from cgankd.shardset.release.build import Sources, build_release
from cgankd.shardset.release.exports import write_fake_h5
from cgankd.shardset.release.manifest import read_manifest
from cgankd.shardset.release.verify import verify_release
from cgankd.shardset.sources.read import SourceColumns, read_source
from cgankd.shardset.tables import read_numbered, read_table, write_table
from cgankd.shardset.testing import (
    described,
    tiny_continuous_plan,
    tiny_continuous_space,
    tiny_facts,
    tiny_pixels,
    tiny_plan,
    write_tiny_release,
)

ACCEPTED = "data/accepted/train-00000-of-00001.parquet"
PARTS = ["−60 … −30", "−30 … 0", "0 … 30", "30 … 60"]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return write_tiny_release(tmp_path_factory.mktemp("numbers"), plan=tiny_continuous_plan())


def test_a_trainer_gets_images_and_float_labels(built, tmp_path):
    """`load_dataset` gives float64 in the label's unit, and the images of those labels."""
    from datasets import Value, load_dataset

    train = load_dataset(str(built.folder), cache_dir=str(tmp_path))["train"]
    plan = tiny_continuous_plan()

    assert [train.features[name] for name in ("label", "original_label", "condition")] == [
        Value("float64")
    ] * 3
    assert {"teacher_value", "teacher_error"} <= set(train.column_names)
    assert not {"teacher_label", "teacher_logits", "teacher_entropy"} & set(train.column_names)
    for row in train:
        expected = tiny_pixels(plan, row["key"], row["original_label"])[0]
        assert np.array_equal(expected, np.asarray(row["image"]))


def test_counts_go_by_parts_of_the_range(built):
    """Manifest and curation count what a histogram over the four parts counts."""
    manifest = read_manifest(built.folder)
    rows = read_table(built.folder / ACCEPTED)
    histogram = np.histogram(rows["label"].to_numpy(), bins=[-60, -30, 0, 30, 60])[0]
    curation = read_json(built.folder / "metadata/curation.json")["labels"]

    assert tiny_continuous_space() == manifest.space
    assert histogram.tolist() == list(manifest.accepted)
    assert set(curation) == set(PARTS)
    assert [curation[part]["produced"] for part in PARTS] == [6, 6, 6, 6]
    assert [curation[part]["kept"] for part in PARTS] == histogram.tolist()
    assert verify_release(built.folder) == []


def test_the_card_speaks_of_numbers(built):
    """Task, tag, unit and range; nothing of classes."""
    _, head, body = (built.folder / "README.md").read_text().split("---\n", 2)
    fields = yaml.safe_load(head)

    assert fields["task_categories"] == ["other"]
    assert "regression" in fields["tags"]
    assert f"{built.accepted} generated images labelled with a number of -60 to 60 degrees" in body
    assert "| degrees | images |" in body
    assert all(f"| {part} |" in body for part in PARTS)
    assert "`teacher_value`" in body
    assert "logits" not in body
    assert " class" not in body.replace("`reviewer`", "")


def test_replaced_labels_stay_within_the_range(built, tmp_path):
    """The teacher's value may be the label; one outside the range is refused by name."""
    run = built.folder.parent / "run"
    chosen = read_table(run / "selections/cgan-kd.parquet")
    values = read_numbered(run / "scores")["teacher_value"].to_numpy().copy()
    columns = {"key": chosen["key"], "kept": [True] * 24, "reason": pa.nulls(24, pa.string())}
    path = tmp_path / "replaced.parquet"
    facts = tiny_facts(space=tiny_continuous_space())
    given = (run / "pool", run / "scores", path)
    write_table(path, pa.table({**columns, "label": values}))
    replaced = build_release(tmp_path, "v1.0.0", Sources(*given, *described(facts), True))
    rows = read_table(replaced.folder / ACCEPTED).sort_by("key")

    assert values.tolist() == rows["label"].to_pylist()
    assert chosen["original_label"].to_pylist() == rows["original_label"].to_pylist()
    values[5] = 60.5
    write_table(path, pa.table({**columns, "label": values}))
    with pytest.raises(BadInput, match=r"label 60\.5 of sample 5 is not within -60 … 60 degrees"):
        build_release(tmp_path, "v1.0.1", Sources(*given, *described(facts), True))


@pytest.mark.parametrize("continuous", [False, True])
def test_a_release_is_exported_in_the_published_layout(tmp_path: Path, continuous: bool) -> None:
    """uint8 NCHW and labels as they are, gzip 6, in the order of the rows, the same bytes again."""
    plan = tiny_continuous_plan() if continuous else None
    built = write_tiny_release(tmp_path, plan=plan)
    facts = write_fake_h5(built.folder, tmp_path / "a" / "fake.h5")
    rows = read_table(built.folder / ACCEPTED)
    plan = plan or tiny_plan()
    expected = [
        tiny_pixels(plan, row["key"], row["original_label"])
        for row in rows.select(["key", "original_label"]).to_pylist()
    ]
    with h5py.File(facts.path) as file:
        assert set(file) == {"fake_images", "fake_labels"}
        images, labels = file["fake_images"], file["fake_labels"]
        assert (images.dtype, images.compression, images.compression_opts) == (np.uint8, "gzip", 6)
        assert np.array_equal(images[:], np.stack(expected))
        assert labels.dtype == (np.float64 if continuous else np.int64)
        assert labels[:].tolist() == rows["label"].to_pylist()
    assert (facts.images, facts.shape) == (built.accepted, (1, 8, 8))
    assert facts.bytes == facts.path.stat().st_size
    again = write_fake_h5(built.folder, tmp_path / "again.h5")
    assert again.path.read_bytes() == facts.path.read_bytes()


def test_what_was_exported_is_a_source_again(built, tmp_path):
    """`h5:` reads the file that a release was written to."""
    facts = write_fake_h5(built.folder, tmp_path / "fake.h5")
    reals = read_source(
        f"h5:{facts.path}",
        size=None,
        channels=None,
        columns=SourceColumns(),
        task="regression",
        label=LabelSettings(unit="degrees", range=(-60.0, 60.0)),
    )

    labels = read_table(built.folder / ACCEPTED)["label"].to_pylist()
    assert sorted(reals.labels.tolist()) == sorted(labels)


def test_a_release_that_is_not_whole_is_not_exported(tmp_path):
    """The first thing that is wrong is named, and no file is left."""
    built = write_tiny_release(tmp_path, plan=tiny_continuous_plan())
    path = built.folder / ACCEPTED
    path.write_bytes(path.read_bytes()[:-1])

    with pytest.raises(ReleaseError, match=r"is not whole.* data/accepted.*: cut to"):
        write_fake_h5(built.folder, tmp_path / "fake.h5")
    assert not list(tmp_path.glob("fake*"))
