"""The published HDF5 layouts, written by hand with h5py."""

import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from cgankd.shardset.errors import BadInput, SourceError
from cgankd.shardset.labels import LabelSettings
from tests.shardset.source_files import noise, read, read_numbers

YEARS = LabelSettings(unit="years", range=(0.0, 60.0))


def write(path: Path, **arrays: np.ndarray) -> str:
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values)
    return f"h5:{path}"


def images(count: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    return noise(count, channels, 9, 9, seed=seed)


def ages(count: int, start: int = 1) -> np.ndarray:
    return np.arange(start, start + count)


FIRST, SECOND = images(6), images(4, seed=1)

# For each layout: the arrays, then the rows of FIRST that are trained on, then those of SECOND
# (or of FIRST, where there is no SECOND) that are the test images.
LAYOUTS = {
    "train and test": (
        {"images_train": FIRST, "labels_train": 0, "images_test": SECOND, "labels_test": 1},
        range(6),
        range(4),
    ),
    "train and valid": (
        {"images_train": FIRST, "labels_train": 0, "images_valid": SECOND, "labels_valid": 1},
        range(6),
        range(4),
    ),
    "RC-49": (
        {"images_odd": FIRST, "labels_odd": 0, "images_even": SECOND, "labels_even": 1},
        range(6),
        range(4),
    ),
    "RC-49, fewer": (
        {
            "images_odd": FIRST,
            "labels_odd": 0,
            "images_even": SECOND,
            "labels_even": 1,
            "indx_odd_train": np.array([4, 0, 3]),
        },
        [0, 3, 4],
        range(4),
    ),
    "tiny-imagenet": (
        {
            "imgs": FIRST,
            "labels": 0,
            "imgs_val": SECOND,
            "labels_val": 1,
            "indx_subtrain": np.array([1, 2, 5]),
        },
        [1, 2, 5],
        range(4),
    ),
    "rows of both": (
        {
            "images": FIRST,
            "labels": 0,
            "indx_train": np.array([0, 1, 4]),
            "indx_test": np.array([3, 2]),
        },
        [0, 1, 4],
        [2, 3],
    ),
    "rows to train on": (
        {"images": FIRST, "labels": 0, "indx_train": np.array([5, 1, 4])},
        [1, 4, 5],
        [0, 2, 3],
    ),
    "images alone": ({"images": FIRST, "labels": 0}, range(6), []),
    "all rows": ({"images": FIRST, "labels": 0, "indx_train": np.arange(6)}, range(6), []),
    "Cell-200": ({"IMGs_grey": FIRST, "CellCounts": 0}, range(6), []),
    "grey without channels": ({"IMGs_grey": FIRST[:, 0], "CellCounts": 0}, range(6), []),
    "generated": ({"fake_images": FIRST, "fake_labels": 0}, range(6), []),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_published_layout_is_read(tmp_path: Path, layout: str) -> None:
    """Pixels, labels and who is a test image are those of the arrays, row by row."""
    arrays, train, test = LAYOUTS[layout]
    labels = {0: ages(6).astype(np.float32) + 0.5, 1: ages(4, 50).astype(np.float64)}
    filled = {k: labels[v] if isinstance(v, int) else v for k, v in arrays.items()}
    reals = read_numbers(write(tmp_path / "a.h5", **filled), YEARS)
    found = {
        name: (pixels.tobytes(), label)
        for name, pixels, label in zip(reals.ids, reals.pixels, reals.labels, strict=True)
    }
    tests = (
        (SECOND, labels[1]) if len(arrays) > 3 and "images" not in arrays else (FIRST, labels[0])
    )
    expected = {f"train/{i}": (FIRST[i].tobytes(), labels[0][i]) for i in train}
    expected |= {f"test/{i}": (tests[0][i].tobytes(), tests[1][i]) for i in test}

    assert found == expected
    assert reals.labels.dtype == np.float64
    if len(test):
        assert reals.is_test is not None
        assert reals.is_test.tolist() == [name.startswith("test/") for name in reals.ids]
    else:
        assert reals.is_test is None


def test_whole_numbers_are_classes_or_numbers_as_the_task_says(tmp_path: Path) -> None:
    """The same file either way; colour stays colour."""
    labels = np.array([0, 1, 2, 0, 1, 2], np.uint8)
    colour = images(6, channels=3)
    spec = write(tmp_path / "a.h5", images=colour, labels=labels[:, None])
    classes = read(spec)
    numbers = read_numbers(spec, YEARS)

    assert classes.space.group_names == ("0", "1", "2")
    assert (classes.labels.dtype, numbers.labels.dtype) == (np.int64, np.float64)
    assert np.array_equal(classes.labels, numbers.labels)
    assert np.array_equal(classes.pixels[classes.ids.index("train/4")], colour[4])


def test_compressed_chunks_of_many_images_are_read_row_by_row(tmp_path: Path) -> None:
    """Chunks of several images, as the authors' scripts leave them."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        options = {"chunks": (4, 1, 9, 9), "compression": "gzip", "compression_opts": 6}
        file.create_dataset("images", data=FIRST, **options)
        file.create_dataset("labels", data=ages(6))
    reals = read_numbers(f"h5:{tmp_path / 'a.h5'}", YEARS)

    assert {pixels.tobytes() for pixels in reals.pixels} == {row.tobytes() for row in FIRST}


def no_file(path: Path) -> None:
    path.unlink()


def no_hdf5(path: Path) -> None:
    path.write_bytes(b"not HDF5" * 100)


def other_keys(path: Path) -> None:
    write(path, pictures=FIRST, labels=ages(6))


def no_keys(path: Path) -> None:
    write(path)


def floats(path: Path) -> None:
    write(path, images=FIRST / 255, labels=ages(6))


def channels_last(path: Path) -> None:
    write(path, images=noise(6, 9, 9, 3), labels=ages(6))


def too_few_labels(path: Path) -> None:
    write(path, images=FIRST, labels=ages(5))


def strange_rows(path: Path) -> None:
    write(path, images=FIRST, labels=ages(6), indx_train=np.array([0, 6]))


def no_numbers(path: Path) -> None:
    write(path, images=FIRST, labels=np.array([b"young"] * 6))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (no_file, "there is no such file"),
        (no_hdf5, "cannot be read"),
        (other_keys, "has the keys labels, pictures; expected .* images_train, labels_train, "),
        (no_keys, "has the keys none"),
        (floats, r"images is float64 \[6, 1, 9, 9\], expected uint8 \[n, c, h, w\]"),
        (channels_last, r"images is uint8 \[6, 9, 9, 3\], expected uint8"),
        (too_few_labels, "images has 6 images and labels 5 labels"),
        (strange_rows, "indx_train names rows that images has not"),
        (no_numbers, r"labels is .*, expected numbers"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_file_that_cannot_be_used_is_refused_in_one_line(
    tmp_path: Path, make: Callable[[Path], None], message: str
) -> None:
    """What was found and what was expected are named."""
    path = tmp_path / "a.h5"
    path.touch()
    make(path)

    with pytest.raises(SourceError, match=message) as caught:
        read_numbers(f"h5:{path}", YEARS)
    assert "\n" not in str(caught.value)


def test_labels_that_do_not_suit_the_task_are_refused(tmp_path: Path) -> None:
    """Several labels for an image, ages as classes, floats as classes, no unit."""
    pairs = write(tmp_path / "pairs.h5", images=FIRST, labels=np.ones((6, 2)))
    with pytest.raises(BadInput, match=r"labels \[6, 2\] are several numbers .* choose one"):
        read_numbers(pairs, YEARS)
    codes = write(tmp_path / "codes.h5", images=FIRST, labels=np.ones((6, 2), int))
    with pytest.raises(SourceError, match=r"labels are \[6, 2\], expected one for each image"):
        read(codes)
    old = write(tmp_path / "old.h5", images=FIRST, labels=ages(6, 50))
    with pytest.raises(SourceError, match=r"go from 50 to 55, expected classes .* regression"):
        read(old)
    fine = write(tmp_path / "fine.h5", images=FIRST, labels=ages(6) / 2)
    with pytest.raises(SourceError, match="are numbers, not classes; set task: regression"):
        read(fine)
    with pytest.raises(SourceError, match=r"give label\.unit and label\.range"):
        read_numbers(fine, LabelSettings())


def test_without_h5py_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install is said."""
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(SourceError, match=r"pip install 'cgankd\[hdf5\]'"):
        read_numbers(f"h5:{tmp_path / 'a.h5'}", YEARS)


def test_every_layout_is_named_whole_where_none_fits(tmp_path: Path) -> None:
    """Training arrays without test arrays are told what is missing."""
    spec = write(tmp_path / "half.h5", images_train=images(4), labels_train=ages(4))

    with pytest.raises(SourceError, match="images_train, labels_train, images_test, labels_test"):
        read_numbers(spec, label=YEARS)


def test_what_is_no_array_is_refused(tmp_path: Path) -> None:
    """A scalar and a group have no rows."""
    spec = write(tmp_path / "scalar.h5", images=images(4), labels=np.float64(3))
    with pytest.raises(SourceError, match="labels is no array"):
        read_numbers(spec, label=YEARS)
    with h5py.File(tmp_path / "group.h5", "w") as file:
        file.create_group("images")
        file["labels"] = ages(4)
    with pytest.raises(SourceError, match="images is no array"):
        read_numbers(f"h5:{tmp_path / 'group.h5'}", label=YEARS)


def test_a_mask_is_not_taken_for_row_numbers(tmp_path: Path) -> None:
    """True and False would be rows 1 and 0."""
    mask = np.array([True, False, True, True])
    spec = write(tmp_path / "mask.h5", images=images(4), labels=ages(4), indx_train=mask)

    with pytest.raises(SourceError, match="mask"):
        read_numbers(spec, label=YEARS)
