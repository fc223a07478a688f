"""Pictures as people keep them: turned, transparent, indexed, deep, oblong, damaged."""

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cgankd.shardset.images import BadImage
from cgankd.shardset.sources.listing import square_pixels
from tests.shardset.source_files import (
    noise,
    one_picture,
    read,
    save,
    write_classes,
)


@pytest.mark.parametrize(
    ("orientation", "turns", "mirrored"),
    [
        (1, 0, False),
        (2, 0, True),
        (3, 2, False),
        (4, 2, True),
        (5, 3, True),
        (6, 3, False),
        (7, 1, True),
        (8, 1, False),
    ],
)
@pytest.mark.parametrize("name", ["0.png", "0.tiff"])
def test_exif_orientation_is_applied(
    tmp_path: Path, orientation: int, turns: int, mirrored: bool, name: str
) -> None:
    """A camera's note on how it was held is obeyed (values of the EXIF standard, tag 274)."""
    stored = noise(1, 10, 10)[0]
    exif = Image.Exif()
    exif[274] = orientation
    expected = np.rot90(stored, turns)
    if mirrored:
        expected = expected[:, ::-1]

    assert np.array_equal(one_picture(tmp_path, stored, name, exif=exif)[0], expected)


def test_transparency_is_laid_over_white(tmp_path: Path) -> None:
    """Clear pixels are white, half-clear black is mid-grey, opaque colour stays."""
    picture = np.zeros((9, 9, 4), np.uint8)
    picture[0, 0] = (10, 200, 30, 255)
    picture[0, 1] = (0, 0, 0, 128)
    pixels = one_picture(tmp_path, picture)

    assert pixels[:, 0, 0].tolist() == [10, 200, 30]
    assert pixels[:, 0, 1].tolist() == [127, 127, 127]
    assert pixels[:, 4, 4].tolist() == [255, 255, 255]


def test_grey_with_transparency_is_laid_over_white(tmp_path: Path) -> None:
    """LA pictures give what their RGBA twins give, in one channel."""
    picture = noise(1, 9, 9, 2)[0]
    grey, alpha = (picture[..., i].astype(int) for i in range(2))
    pixels = one_picture(tmp_path, picture)
    expected = 255 + (grey - 255) * alpha / 255

    assert len(pixels) == 1
    assert np.abs(pixels[0] - expected).max() <= 1


@pytest.mark.parametrize("clear", [None, 1])
def test_palettes_are_resolved(tmp_path: Path, clear: int | None) -> None:
    """An indexed picture shows its colours, and white where an index is clear."""
    indexed = Image.new("P", (9, 9))
    indexed.putdata([i % 3 for i in range(81)])
    indexed.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    if clear is not None:
        indexed.info["transparency"] = clear
    pixels = one_picture(tmp_path, indexed)

    assert pixels[:, 0, 0].tolist() == [255, 0, 0]
    assert pixels[:, 0, 1].tolist() == ([0, 255, 0] if clear is None else [255] * 3)
    assert pixels[:, 0, 2].tolist() == [0, 0, 255]


@pytest.mark.parametrize("name", ["0.png", "0.tiff"])
def test_sixteen_bit_grey_becomes_eight(tmp_path: Path, name: str) -> None:
    """0 … 65535 are spread evenly over 0 … 255, rounded."""
    deep = np.linspace(0, 65535, 100).astype(np.uint16).reshape(10, 10)
    pixels = one_picture(tmp_path, deep, name)

    assert np.array_equal(pixels[0], np.rint(deep / 257))


def test_one_bit_and_cmyk_pictures_are_read(tmp_path: Path) -> None:
    """Ink is not light: CMYK cyan is an RGB colour; black and white are 0 and 255."""
    lines = Image.fromarray((np.arange(100).reshape(10, 10) % 2 * 255).astype(np.uint8)).convert(
        "1"
    )
    assert {0, 255} == set(one_picture(tmp_path, lines).ravel().tolist())

    ink = Image.new("CMYK", (10, 10), (255, 0, 0, 0))
    assert one_picture(tmp_path, ink, "1.tiff")[:, 3, 3].tolist() == [0, 255, 255]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.full((9, 9), 0.5, np.float32), "floating-point"),
        (np.full((9, 9), 70_000, np.int32), "more than 16 bits"),
    ],
)
def test_measurements_are_rejected_rather_than_guessed(
    tmp_path: Path, values: np.ndarray, reason: str
) -> None:
    """Values without a known range cannot be made grey levels."""
    write_classes(tmp_path, {"a": 1, "b": 1})
    save(tmp_path / "a" / "x.tiff", values)

    assert reason in read(f"imagefolder:{tmp_path}").rejected[0].reason


def test_the_first_frame_of_an_animation_is_taken(tmp_path: Path) -> None:
    """A GIF counts as the picture it begins with."""
    frames = [Image.new("L", (9, 9), value) for value in (40, 200)]

    pixels = one_picture(tmp_path, frames[0], "0.gif", save_all=True, append_images=frames[1:])
    assert {40} == set(pixels.ravel().tolist())


def test_a_large_photograph_is_cropped_to_its_centre_before_it_is_made_small(
    tmp_path: Path,
) -> None:
    """Of a red-green-blue tricolour the green middle stays, in the size asked for."""
    flag = np.zeros((300, 900, 3), np.uint8)
    for i in range(3):
        flag[:, 300 * i : 300 * (i + 1), i] = 250
    save(tmp_path / "a" / "flag.jpg", flag, quality=95)
    save(tmp_path / "b" / "0.png", np.zeros((300, 300), np.uint8))
    reals = read(f"imagefolder:{tmp_path}", size=20)
    picture = reals.pixels[reals.ids.index("a/flag.jpg")].astype(int)

    assert (reals.cropped, picture.shape) == (1, (3, 20, 20))
    assert np.abs(picture[:, 1:-1, 1:-1] - np.array([0, 250, 0])[:, None, None]).max() <= 6


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(["JPEG", "PNG", "TIFF", "WEBP", "GIF"]),
    damage=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=5),
    length=st.integers(0, 3000),
)
def test_a_damaged_picture_is_a_bad_image_or_a_square(
    kind: str, damage: list[tuple[int, int]], length: int
) -> None:
    """Whatever bytes a file holds, no other error and no warning comes out."""
    exif = Image.Exif()
    exif[274] = 6
    file = io.BytesIO()
    Image.fromarray(noise(1, 12, 16, 3)[0]).save(file, kind, exif=exif)
    data = bytearray(file.getvalue()[:length])
    for place, value in damage:
        if place < len(data):
            data[place] = value
    try:
        pixels, cropped = square_pixels(bytes(data), 9)
    except BadImage:
        return
    assert pixels.shape in ((1, 9, 9), (3, 9, 9))
    assert isinstance(cropped, bool)
