"""Sources whose labels are numbers: what comes out of each, and what is said of wrong labels."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cgankd.shardset.errors import BadInput, SourceError
from cgankd.shardset.images import pixel_sha256
from cgankd.shardset.labels import ContinuousLabels, LabelSettings
from cgankd.shardset.sources.read import SourceColumns, read_source
from tests.shardset.source_files import (
    by_id,
    noise,
    read,
    read_numbers,
    save,
    write_classes,
    write_idx_folder,
    write_numbered,
)


def labels_by_id(reals) -> dict[str, float]:
    return dict(zip(reals.ids, reals.labels.tolist(), strict=True))


# --- rotated digits ---


def test_rotated_digits_are_turned_by_angles_that_their_pixels_fix() -> None:
    """Four turns of each scan, in ±60° uniformly, with the angle that sha256 gives by hand."""
    from sklearn.datasets import load_digits

    reals = read_numbers("rotated-digits", LabelSettings())
    labels = labels_by_id(reals)
    scan = np.rint(load_digits().images[12] * (255 / 16)).astype(np.uint8)[None]
    digest = hashlib.sha256(f"{pixel_sha256(scan)}/3".encode()).hexdigest()

    assert reals.pixels.shape == (4 * 1797, 1, 16, 16)
    assert reals.space == ContinuousLabels(unit="degrees", low=-60, high=60)
    assert labels["12/turn-3"] == pytest.approx(int(digest[:16], 16) / 2**64 * 120 - 60)
    assert np.quantile(reals.labels, [0, 0.25, 0.5, 0.75, 1]) == pytest.approx(
        [-60, -30, 0, 30, 60], abs=2
    )
    assert (reals.labels.dtype, reals.rejected) == (np.float64, ())


def test_a_turn_is_counter_clockwise_about_the_centre() -> None:
    """The line through a slim "1" leans as its label says: its slope is found from moments."""
    from sklearn.datasets import load_digits

    reals = read_numbers("rotated-digits", LabelSettings())
    ones = set(np.flatnonzero(load_digits().target == 1).tolist())
    leans, labels = [], []
    for name, pixels, label in zip(reals.ids, reals.pixels, reals.labels, strict=True):
        if int(name.partition("/")[0]) in ones:
            y, x = np.nonzero(pixels[0] > 100)
            covariance = np.cov(x, y)
            # The main axis, measured from the vertical; upwards y falls.
            leans.append(
                0.5 * np.arctan2(2 * covariance[0, 1], covariance[1, 1] - covariance[0, 0])
            )
            labels.append(label)

    assert np.corrcoef(leans, labels)[0, 1] > 0.75


def test_the_turns_of_a_scan_share_their_origin() -> None:
    """Each origin has four images, whose names tell the same scan."""
    reals = read_numbers("rotated-digits", LabelSettings())
    assert reals.origins is not None
    scans: dict[str, set[str]] = {}
    for name, origin in zip(reals.ids, reals.origins, strict=True):
        scans.setdefault(origin, set()).add(name.partition("/")[0])

    assert len(scans) == 1797
    assert all(len(names) == 1 for names in scans.values())


# --- image folders with a table ---


def test_a_folder_with_a_table_is_read_with_its_numbers(tmp_path: Path) -> None:
    """Labels are those of the table, unit and range those that were given."""
    write_numbered(tmp_path, [1, 2.5, 1e1, " 0.125"])
    reals = read_numbers(f"imagefolder:{tmp_path}")

    assert labels_by_id(reals) == {"0.png": 1.0, "1.png": 2.5, "2.png": 10.0, "3.png": 0.125}
    assert reals.space == ContinuousLabels(unit="bar", low=0, high=10)
    assert by_id(reals)["2.png"][0] == noise(4, 12, 12)[2].tobytes()
    assert (reals.is_test, reals.origins, reals.labels.dtype) == (None, None, np.float64)


@pytest.mark.parametrize("at_root", [False, True])
def test_train_and_test_tables_are_honoured(tmp_path: Path, at_root: bool) -> None:
    """The images below test/ are the test split, whether each part has a table or the root one."""
    write_numbered(tmp_path / "train", [1, 2, 3])
    write_numbered(tmp_path / "validation", [4], seed=1)
    write_numbered(tmp_path / "test", [5, 6], seed=2)
    if at_root:
        rows = ["label,more,file_name"]
        for part in ("train", "validation", "test"):
            lines = (tmp_path / part / "metadata.csv").read_text().splitlines()[1:]
            rows += ["{1},,{2}/{0}".format(*line.split(","), part) for line in lines]
            (tmp_path / part / "metadata.csv").unlink()
        (tmp_path / "metadata.csv").write_text("\n".join(rows), encoding="utf-8-sig")
    reals = read_numbers(f"imagefolder:{tmp_path}")

    assert reals.is_test is not None
    tests = {
        n: v for (n, v), t in zip(labels_by_id(reals).items(), reals.is_test, strict=True) if t
    }
    assert tests == {"test/0.png": 5.0, "test/1.png": 6.0}
    assert len(reals.ids) == 6


def test_images_with_wrong_labels_or_without_a_file_are_rejected_by_name(tmp_path: Path) -> None:
    """NaN, a label outside the range and a missing file each become a row with its reason."""
    write_numbered(tmp_path, [1, "nan", 10.5, -1, 3, 10, 0])
    (tmp_path / "4.png").unlink()
    reals = read_numbers(f"imagefolder:{tmp_path}")

    assert {image.id: image.reason for image in reals.rejected} == {
        "1.png": "has the label nan, expected 0 … 10 bar",
        "2.png": "has the label 10.5, expected 0 … 10 bar",
        "3.png": "has the label -1, expected 0 … 10 bar",
        "4.png": "does not decode (No such file or directory)",
    }
    assert labels_by_id(reals) == {"0.png": 1.0, "5.png": 10.0, "6.png": 0.0}


def test_the_fingerprint_covers_numbers_unit_range_and_origins(tmp_path: Path) -> None:
    """Any of the four changes it; file names do not."""
    write_numbered(tmp_path / "a", [1, 2, 3])
    write_numbered(tmp_path / "b", [1, 2, 3 + 1e-12])
    spec = f"imagefolder:{tmp_path / 'a'}"
    reals = read_numbers(spec)
    found = [
        reals,
        read_numbers(f"imagefolder:{tmp_path / 'b'}"),
        read_numbers(spec, LabelSettings(unit="psi", range=(0.0, 10.0))),
        read_numbers(spec, LabelSettings(unit="bar", range=(0.0, 11.0))),
        replace(reals, origins=("a", "a", "b")),
    ]
    (tmp_path / "a").rename(tmp_path / "c")

    assert len({each.fingerprint for each in found}) == 5
    assert read_numbers(f"imagefolder:{tmp_path / 'c'}").fingerprint == reals.fingerprint


def no_table(folder: Path) -> None:
    write_classes(folder, {"a": 2, "b": 2})


def no_test_table(folder: Path) -> None:
    write_numbered(folder / "train", [1, 2])
    save(folder / "test" / "0.png", noise(1, 9, 9)[0])


def no_column(folder: Path) -> None:
    write_numbered(folder, [1, 2])
    (folder / "metadata.csv").write_text("file,label\n0.png,1\n")


def no_number(folder: Path) -> None:
    write_numbered(folder / "train", [1, "three", 2])


def no_label(folder: Path) -> None:
    write_numbered(folder, [1, 2])
    (folder / "metadata.csv").write_text("file_name,label\n0.png,1\n1.png\n")


def an_outside_path(folder: Path) -> None:
    write_numbered(folder, [1, 2])
    (folder / "metadata.csv").write_text("file_name,label\n../secret.png,1\n")


def an_absolute_path(folder: Path) -> None:
    write_numbered(folder, [1, 2])
    (folder / "metadata.csv").write_text("file_name,label\n/etc/secret.png,1\n")


def a_name_twice(folder: Path) -> None:
    write_numbered(folder, [1, 2])
    with open(folder / "metadata.csv", "a") as table:
        table.write("./0.png,3\n")


def not_text(folder: Path) -> None:
    write_numbered(folder, [1, 2])
    (folder / "metadata.csv").write_bytes(b"file_name,label\n\xff\xfe,1\n")


def one_label(folder: Path) -> None:
    write_numbered(folder, [7, 7, 7, 12])


def all_outside(folder: Path) -> None:
    write_numbered(folder, [11, 12])


def an_empty_table(folder: Path) -> None:
    write_numbered(folder, [])


def a_test_without_labels(folder: Path) -> None:
    write_numbered(folder / "train", [1, 2])
    write_numbered(folder / "test", ["nan"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (no_table, r"has no metadata.csv with the columns file_name, label .* classification"),
        (no_test_table, r"test/ has no metadata.csv"),
        (no_column, r"metadata.csv has no column 'file_name' \(it has file, label\)"),
        (no_number, r"train/metadata.csv line 3: label 'three' is not a number"),
        (no_label, r"metadata.csv line 3: label '' is not a number"),
        (an_outside_path, r"line 2: file_name '../secret.png' is not inside the folder"),
        (an_absolute_path, r"line 2: file_name '/etc/secret.png' is not inside the folder"),
        (a_name_twice, r"line 4 names 0.png a second time"),
        (not_text, r"metadata.csv cannot be read"),
        (one_label, r"all its images have the label 7 bar, expected at least 2 different"),
        (all_outside, r"none of its 2 images can be used \(the first, 0.png, has the label 11"),
        (an_empty_table, r"has no images"),
        (a_test_without_labels, r"the test split has no usable image"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_table_that_cannot_be_used_is_refused_in_one_line(
    tmp_path: Path, make: Callable[[Path], None], message: str
) -> None:
    """File, line and what is wrong are named."""
    make(tmp_path)

    with pytest.raises(SourceError, match=message) as caught:
        read_numbers(f"imagefolder:{tmp_path}")
    assert "\n" not in str(caught.value)


# --- task, unit and range ---


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (LabelSettings(), "says no unit and no range of its labels; give label.unit and"),
        (LabelSettings(range=(0.0, 10.0)), "says no unit of its labels"),
        (LabelSettings(unit="bar"), "says no range of its labels"),
        (LabelSettings(unit="bar", range=(3.0, 3.0)), r"label.range \[3, 3\] is empty"),
        (LabelSettings(unit="degrees", range=(0.0, 360.0)), "circular labels are not supported"),
    ],
)
def test_unit_and_range_must_be_known_and_make_sense(
    tmp_path: Path, label: LabelSettings, message: str
) -> None:
    """A folder says neither, so both must be given."""
    write_numbered(tmp_path, [1, 2, 3])

    with pytest.raises(SourceError, match=message):
        read_numbers(f"imagefolder:{tmp_path}", label)


def test_what_the_recipe_says_comes_before_what_the_source_knows() -> None:
    """A narrower range leaves images out by name; the number of groups is the recipe's."""
    label = LabelSettings(unit="°", range=(-30.0, 60.0), groups=9)
    reals = read_numbers("rotated-digits", label)

    assert reals.space == ContinuousLabels(unit="°", low=-30, high=60, groups=9)
    assert reals.labels.min() >= -30
    assert len(reals.rejected) + len(reals.ids) == 4 * 1797
    assert len(reals.rejected) == pytest.approx(1797, rel=0.1)
    assert reals.origins is not None
    assert len(reals.origins) == len(reals.ids)


def test_labels_that_are_not_the_tasks_are_refused(tmp_path: Path) -> None:
    """Classes are no numbers and numbers no classes; the message says which task to set."""
    write_idx_folder(tmp_path)
    for spec in ("digits", f"idx:{tmp_path}"):
        with pytest.raises(SourceError, match="are classes, not numbers; set task: classification"):
            read_numbers(spec)
    with pytest.raises(SourceError, match="are numbers, not classes; set task: regression"):
        read("rotated-digits")
    write_numbered(tmp_path / "numbers", [1, 2])
    with pytest.raises(SourceError, match="set task: regression for the numbers"):
        read(f"imagefolder:{tmp_path / 'numbers'}")


# --- Hugging Face data sets ---


@pytest.mark.parametrize("numbers", [[0.5, 2.0, None, 9.0], [1, -1, None, 3]])
def test_a_data_set_with_a_column_of_numbers_is_read(tmp_path: Path, numbers) -> None:
    """Integers are numbers too where the task says so; a row without one is rejected by name."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from cgankd.shardset.images import encode_png

    images = [encode_png(pixels[None]) for pixels in noise(4, 9, 9)]
    (tmp_path / "data").mkdir()
    table = pa.table({"image": images, "label": numbers})
    pq.write_table(table, tmp_path / "data" / "train-0.parquet")
    reals = read_numbers(f"hf:{tmp_path}", LabelSettings(unit="bar", range=(-5.0, 10.0)))

    assert sorted(reals.labels.tolist()) == sorted(float(n) for n in numbers if n is not None)
    assert [image.id for image in reals.rejected] == ["train/2"]
    with pytest.raises(BadInput, match=r"column 'label' is .* expected images"):
        read_source(
            f"hf:{tmp_path}",
            size=None,
            channels=None,
            columns=SourceColumns(image="label"),
            task="regression",
        )
