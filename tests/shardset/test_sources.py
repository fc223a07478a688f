"""Real-image sources: what comes out of each, and what is said where something is wrong."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cgankd.shardset.errors import SourceError
from cgankd.shardset.images import encode_png, pixel_sha256
from cgankd.shardset.sources.digits import scanned_digits
from cgankd.shardset.sources.read import SourceColumns, read_source
from tests.shardset.source_files import (
    by_id,
    noise,
    read,
    save,
    write_classes,
    write_idx,
    write_idx_folder,
)

# --- digits ---


def test_digits_are_the_1797_scans_with_sixteen_grey_steps() -> None:
    """Every scan is there under its number, 0 … 16 spread over 0 … 255, grey, 8 px."""
    from sklearn.datasets import load_digits

    reals = read("digits")
    scans = load_digits()
    rows = np.array([int(name) for name in reals.ids])

    assert reals.pixels.shape == (1797, 1, 8, 8)
    assert reals.space.names == tuple("0123456789")
    assert np.array_equal(reals.labels, scans.target[rows])
    assert np.array_equal(np.rint(reals.pixels[:, 0] / 255 * 16), scans.images[rows])
    assert (reals.pixels.min(), reals.pixels.max()) == (0, 255)
    assert (reals.is_test, reals.rejected, reals.cropped, reals.revision) == (None, (), 0, None)


def test_digits_are_those_that_scikit_learn_loads() -> None:
    """The same values of the same types, read without importing it."""
    from sklearn.datasets import load_digits

    scans = load_digits()
    images, labels = scanned_digits()

    assert (images.dtype, labels.dtype) == (scans.images.dtype, scans.target.dtype)
    assert images.tobytes() == scans.images.tobytes()
    assert labels.tobytes() == scans.target.tobytes()


def test_images_stand_in_the_order_of_their_content() -> None:
    """The order is that of the pixel hashes, so that nothing later depends on file names."""
    reals = read("digits")

    assert list(reals.pixel_hashes) == sorted(map(pixel_sha256, reals.pixels))


def test_a_source_can_be_read_larger_and_in_colour() -> None:
    """Size and channels are obeyed; grey in three channels stays grey."""
    reals = read("digits", size=16, channels=3)

    assert reals.pixels.shape == (1797, 3, 16, 16)
    assert np.array_equal(reals.pixels[:, 0], reals.pixels[:, 2])


# --- idx ---


@pytest.mark.parametrize(("suffix", "dot"), [("", "-"), (".gz", "-"), ("", "."), (".gz", ".")])
def test_idx_files_are_read_plain_or_gzipped(tmp_path: Path, suffix: str, dot: str) -> None:
    """Pixels, labels and the test split are those of the four files."""
    arrays = write_idx_folder(tmp_path, suffix=suffix, dot=dot)
    reals = read(f"idx:{tmp_path}")
    expected = {
        f"{part}/{i}": (pixels.tobytes(), int(label))
        for part in ("train", "t10k")
        for i, (pixels, label) in enumerate(
            zip(arrays[f"{part}-images"], arrays[f"{part}-labels"], strict=True)
        )
    }

    assert reals.pixels.shape == (11, 1, 9, 9)
    assert reals.space.names == ("0", "1", "2")
    assert expected == by_id(reals)
    assert reals.is_test is not None
    assert [name.startswith("t10k") for name in reals.ids] == reals.is_test.tolist()


def test_oblong_idx_images_are_centre_cropped_and_counted(tmp_path: Path) -> None:
    """12 × 8 images lose two columns on each side."""
    write_idx_folder(tmp_path)
    wide = noise(7, 8, 12)
    write_idx(tmp_path / "train-images-idx3-ubyte", wide)
    write_idx(tmp_path / "t10k-images-idx3-ubyte", noise(4, 8, 8))
    reals = read(f"idx:{tmp_path}")

    assert reals.cropped == 7
    assert by_id(reals)["train/3"][0] == wide[3, :, 2:10].tobytes()


def break_missing(folder: Path) -> None:
    (folder / "t10k-labels-idx1-ubyte").unlink()


def break_short(folder: Path) -> None:
    path = folder / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])


def break_long(folder: Path) -> None:
    path = folder / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes() + b"\0")


def break_shape(folder: Path) -> None:
    header = struct.pack(">4I", 0x803, *[2**32 - 1] * 3)
    (folder / "train-images-idx3-ubyte").write_bytes(header + b"few")


def break_header(folder: Path) -> None:
    (folder / "train-labels-idx1-ubyte").write_bytes(b"\0\0\x08")


def break_magic(folder: Path) -> None:
    write_idx(folder / "train-images-idx3-ubyte", noise(7, 81))


def break_count(folder: Path) -> None:
    write_idx(folder / "train-labels-idx1-ubyte", np.arange(6) % 3)


def break_gzip(folder: Path) -> None:
    path = folder / "train-images-idx3-ubyte"
    path.with_suffix(".gz").write_bytes(gzip.compress(path.read_bytes())[:-20])
    path.unlink()
    path.with_suffix(".gz").rename(path.with_name(path.name + ".gz"))


def break_not_gzip(folder: Path) -> None:
    path = folder / "train-images-idx3-ubyte"
    path.rename(path.with_name(path.name + ".gz"))


def break_class(folder: Path) -> None:
    write_idx(folder / "train-labels-idx1-ubyte", np.array([0, 1, 3, 0, 1, 3, 3]))


def break_size(folder: Path) -> None:
    write_idx(folder / "train-images-idx3-ubyte", noise(7, 7, 7))


def break_test(folder: Path) -> None:
    write_idx(folder / "t10k-images-idx3-ubyte", noise(0, 9, 9))
    write_idx(folder / "t10k-labels-idx1-ubyte", noise(0))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_missing, r"has no t10k-labels-idx1-ubyte \(plain or .gz\)"),
        (break_short, r"566 bytes after its header, which says 567"),
        (break_long, r"568 bytes after its header, which says 567"),
        (break_shape, r"3 bytes after its header, which says 79228162458924105385300197375"),
        (break_header, r"train-labels-idx1-ubyte is truncated"),
        (break_magic, r"starts with 0x00000802, expected an idx3-ubyte"),
        (break_count, r"7 images and 6 labels"),
        (break_gzip, r"\.gz cannot be read"),
        (break_not_gzip, r"\.gz cannot be read"),
        (break_class, r"class '2' \(3 of 4\) has no training images"),
        (break_size, r"none of its 2 images can be used \(the first, train/0, is 7×7 px"),
        (break_test, r"the test split has no usable image"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_damaged_idx_files_are_refused_in_one_line(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    """The file, what is wrong and what was expected are named."""
    write_idx_folder(tmp_path)
    damage(tmp_path)

    with pytest.raises(SourceError, match=message) as caught:
        read(f"idx:{tmp_path}")
    assert "\n" not in str(caught.value)


# --- image folders ---


def test_a_folder_per_class_is_read_with_unbalanced_classes(tmp_path: Path) -> None:
    """Classes are the sorted folder names, each with all its files, deeper ones included."""
    write_classes(tmp_path, {"owl": 5, "ant": 2, "cat": 1})
    write_classes(tmp_path / "cat", {"more/of them": 2}, seed=1)
    reals = read(f"imagefolder:{tmp_path}")

    assert reals.space.names == ("ant", "cat", "owl")
    assert np.bincount(reals.labels).tolist() == [2, 3, 5]
    assert "cat/more/of them/1.png" in reals.ids
    assert (reals.pixels.shape, reals.is_test) == ((10, 1, 12, 12), None)


def test_train_and_test_folders_are_honoured(tmp_path: Path) -> None:
    """test/ is the test split; validation/ joins train/, because the run splits that itself."""
    write_classes(tmp_path / "train", {"a": 3, "b": 2})
    write_classes(tmp_path / "validation", {"a": 1, "b": 1}, seed=1)
    write_classes(tmp_path / "test", {"a": 2, "b": 1}, seed=2)
    reals = read(f"imagefolder:{tmp_path}")

    assert reals.is_test is not None
    assert {name for name, test in zip(reals.ids, reals.is_test, strict=True) if test} == {
        "test/a/0.png",
        "test/a/1.png",
        "test/b/0.png",
    }
    assert len(reals.ids) == 10


def test_renamed_files_change_neither_order_nor_fingerprint(tmp_path: Path) -> None:
    """The fingerprint speaks of content: another folder and other names give the same images."""
    write_classes(tmp_path / "one", {"a": 4, "b": 3})
    for i, path in enumerate(sorted((tmp_path / "one").rglob("*.png"), reverse=True)):
        save(tmp_path / "two" / path.parent.name / f"{i}.bmp", Image.open(path))
    one, two = (read(f"imagefolder:{tmp_path / name}") for name in ("one", "two"))

    assert np.array_equal(one.pixels, two.pixels)
    assert np.array_equal(one.labels, two.labels)
    assert one.fingerprint == two.fingerprint


def test_the_fingerprint_covers_pixels_labels_names_and_the_test_split(tmp_path: Path) -> None:
    """Any of the four changes it."""
    layouts = {"plain": "a", "renamed": "z", "split": "train/a", "pixels": "a"}
    for number, (name, first) in enumerate(layouts.items()):
        second = first.replace("a", "b") if first.endswith("a") and name != "split" else "zz"
        write_classes(tmp_path / name, {first: 4}, seed=number == 3)
        write_classes(tmp_path / name, {"train/b" if name == "split" else second: 3}, seed=9)
    write_classes(tmp_path / "split" / "test", {"a": 1}, seed=5)
    write_classes(tmp_path / "moved", {"a": 3, "b": 3})
    found = {read(f"imagefolder:{path}").fingerprint for path in tmp_path.iterdir()}

    assert len(found) == 5


def test_a_broken_picture_is_named_counted_and_kept_as_a_row(tmp_path: Path) -> None:
    """Nothing stops for it: the others are read, and each rejected file has its reason."""
    write_classes(tmp_path, {"a": 3, "b": 3})
    whole = (tmp_path / "a" / "0.png").read_bytes()
    (tmp_path / "a" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "a" / "empty.jpg").write_bytes(b"")
    (tmp_path / "b" / "notes.txt").write_text("not a picture")
    (tmp_path / "b" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "b" / ".hidden").write_text("passed over")
    save(tmp_path / "b" / "tiny.png", np.zeros((20, 7), np.uint8))
    reals = read(f"imagefolder:{tmp_path}")
    reasons = {image.id: image.reason for image in reals.rejected}

    assert len(reals.ids) == 6
    assert reasons.pop("a/cut.png").startswith("does not decode (")
    assert reasons == {
        "a/empty.jpg": "is not a picture in a format that is read here",
        "b/notes.txt": "is not a picture in a format that is read here",
        "b/gone.png": "does not decode (No such file or directory)",
        "b/tiny.png": "is 7×20 px, expected at least 8 px",
    }


def test_a_picture_that_would_start_another_program_is_not_opened(tmp_path: Path) -> None:
    """PostScript is rejected unread, whatever its name says."""
    write_classes(tmp_path, {"a": 1, "b": 1})
    (tmp_path / "a" / "x.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")

    assert [image.id for image in read(f"imagefolder:{tmp_path}").rejected] == ["a/x.png"]


def test_a_decompression_bomb_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures above Pillow's limit are rejected by their header."""
    write_classes(tmp_path, {"a": 2, "b": 2})
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    save(tmp_path / "a" / "large.png", np.zeros((40, 40), np.uint8))
    save(tmp_path / "b" / "huge.png", np.zeros((60, 60), np.uint8))
    reals = read(f"imagefolder:{tmp_path}")

    assert {(image.id, image.reason) for image in reals.rejected} == {
        ("a/large.png", "has more than 1,000 px"),
        ("b/huge.png", "has more than 1,000 px"),
    }


def test_the_natural_size_is_the_median_shorter_side_up_to_64(tmp_path: Path) -> None:
    """Mixed sizes meet in the middle; photographs come down to 64 px."""
    for i, side in enumerate((10, 14, 14, 30, 90)):
        save(tmp_path / "mixed" / "ab"[i % 2] / f"{i}.png", noise(1, side, side + i, seed=i)[0])
        save(tmp_path / "photos" / "ab"[i % 2] / f"{i}.jpg", noise(1, 200, 300, 3, seed=i)[0])

    mixed = read(f"imagefolder:{tmp_path / 'mixed'}")
    assert (mixed.pixels.shape, mixed.cropped) == ((5, 1, 14, 14), 4)
    assert read(f"imagefolder:{tmp_path / 'photos'}").pixels.shape == (5, 3, 64, 64)


def test_colour_in_any_image_makes_three_channels(tmp_path: Path) -> None:
    """RGB files that hold only greys count as grey; one coloured pixel does not."""
    write_classes(tmp_path, {"a": 2, "b": 2})
    grey = np.repeat(noise(1, 12, 12)[0][..., None], 3, axis=2)
    save(tmp_path / "a" / "rgb.png", grey)
    assert read(f"imagefolder:{tmp_path}").pixels.shape[1] == 1

    grey[5, 5] = (200, 0, 0)
    save(tmp_path / "a" / "rgb.png", grey)
    coloured = read(f"imagefolder:{tmp_path}")
    assert coloured.pixels.shape[1] == 3

    luma = read(f"imagefolder:{tmp_path}", channels=1)
    assert luma.pixels[luma.ids.index("a/rgb.png")][0, 5, 5] == round(0.299 * 200)


# --- what is refused ---


def folder_without_classes(folder: Path) -> None:
    save(folder / "0.png", noise(1, 9, 9)[0])


def folder_with_one_class(folder: Path) -> None:
    write_classes(folder, {"a": 3})


def folder_with_an_empty_class(folder: Path) -> None:
    write_classes(folder, {"a": 3, "c": 2})
    (folder / "b").mkdir()


def folder_with_an_unreadable_class(folder: Path) -> None:
    write_classes(folder, {"a": 3})
    (folder / "b").mkdir()
    for name in ("0.png", "1.png"):
        (folder / "b" / name).write_bytes(b"broken")


def folder_with_an_untrained_class(folder: Path) -> None:
    write_classes(folder / "train", {"a": 3, "b": 2})
    write_classes(folder / "test", {"a": 1, "c": 1}, seed=1)


def folder_with_an_empty_test(folder: Path) -> None:
    write_classes(folder / "train", {"a": 3, "b": 2})
    (folder / "test").mkdir()


def folder_with_a_stray_class(folder: Path) -> None:
    write_classes(folder / "train", {"a": 3, "b": 2})
    write_classes(folder, {"c": 2})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder.rmdir(), "there is no such folder"),
        (folder_without_classes, "has no class folders; expected one folder of pictures per class"),
        (folder_with_one_class, r"has 1 class \['a'\], expected at least 2"),
        (folder_with_an_empty_class, r"class 'b' \(2 of 3\) has no images"),
        (
            folder_with_an_unreadable_class,
            r"'b' \(2 of 2\): none of its 2 images .* b/0.png, is not",
        ),
        (folder_with_an_untrained_class, r"class 'c' \(3 of 3\) has no training images"),
        (folder_with_an_empty_test, "the test split has no usable image"),
        (folder_with_a_stray_class, "has train/ and also c/"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_folder_that_cannot_be_used_is_refused_in_one_line(
    tmp_path: Path, make: Callable[[Path], None], message: str
) -> None:
    """What is missing and what to do are said, with the class and its number."""
    folder = tmp_path / "photos"
    folder.mkdir()
    make(folder)

    with pytest.raises(SourceError, match=message) as caught:
        read(f"imagefolder:{folder}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("digit", "did you mean digits"),
        ("hf:/no/such/folder", "is no local folder, and no Hub dataset"),
        ("imagefolders:photos", "did you mean imagefolder"),
        ("photos", "is none of digits, rotated-digits, idx:FOLDER, .*, h5:FILE, hf:"),
        ("idx", "does not have the form idx:FOLDER"),
        ("hf:", "does not have the form hf:ID_OR_PATH"),
        ("digits:here", "does not have the form digits"),
    ],
)
def test_a_specification_of_no_known_kind_is_refused(spec: str, message: str) -> None:
    """The forms there are, and the nearest one, are named."""
    with pytest.raises(SourceError, match=message):
        read(spec)


def test_impossible_sizes_and_channels_are_refused() -> None:
    """Networks begin at 8 px, with one or three channels."""
    with pytest.raises(SourceError, match="at least 8"):
        read("digits", size=7)
    with pytest.raises(SourceError, match="2 channels"):
        read("digits", channels=2)


def test_reading_reports_its_progress(tmp_path: Path) -> None:
    """The last report says that everything was looked at, and how much was rejected."""
    write_classes(tmp_path, {"a": 101, "b": 1}, side=8)
    (tmp_path / "a" / "broken.png").write_bytes(encode_png(noise(1, 8, 8))[:30])
    reports: list[tuple[int, int, float]] = []
    read_source(
        f"imagefolder:{tmp_path}",
        size=8,
        channels=1,
        columns=SourceColumns(),
        progress=lambda done, total, facts: reports.append((done, total, facts["rejected"])),
    )

    assert reports == [(100, 103, 0), (103, 103, 1)]
