"""Images, pixels and PNG: the numbers that every later stage stands on."""

import hashlib
import io
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from cgankd.nets.device import as_images
from cgankd.shardset.errors import BadInput
from cgankd.shardset.images import (
    BadImage,
    decode_png,
    decode_pngs,
    encode_png,
    encode_pngs,
    pixel_sha256,
    to_pixels,
)

samples = st.tuples(st.sampled_from([1, 3]), st.integers(1, 20), st.integers(1, 20)).flatmap(
    lambda shape: arrays(np.uint8, shape)
)


def gradient(channels: int = 3, height: int = 9, width: int = 12) -> np.ndarray:
    count = channels * height * width
    return (np.arange(count) * 7 % 256).astype(np.uint8).reshape(channels, height, width)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_pixel_value_survives_the_way_to_images_and_back(dtype: torch.dtype) -> None:
    """uint8 → float → uint8 is the identity, from tensors and from arrays."""
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    images = as_images(pixels)

    assert images.dtype == torch.float32
    assert (images.min().item(), images.max().item()) == (-1.0, 1.0)
    assert np.array_equal(to_pixels(images.to(dtype)), pixels)
    assert np.array_equal(to_pixels(images.to(dtype).numpy()), pixels)


def test_images_are_rounded_and_clipped_to_pixels() -> None:
    """A value nearer to the next grey level becomes that level; what is outside is clipped."""
    images = np.array([-3.0, -1.0, (100.4 / 127.5) - 1, (100.6 / 127.5) - 1, 1.0, 3.0])

    assert to_pixels(images).tolist() == [0, 0, 100, 101, 255, 255]
    assert to_pixels(torch.from_numpy(images)).tolist() == [0, 0, 100, 101, 255, 255]


def test_pixels_of_a_channels_last_tensor_are_contiguous() -> None:
    """The memory layout of a network's output does not leak into what is written."""
    images = torch.rand(2, 3, 4, 5) * 2 - 1
    expected = to_pixels(images)
    actual = to_pixels(images.to(memory_format=torch.channels_last))

    assert actual.flags.c_contiguous
    assert np.array_equal(expected, actual)


def test_bfloat16_images_become_pixels() -> None:
    """What autocast leaves behind is accepted."""
    assert to_pixels(torch.tensor([[-1.0, 1.0]], dtype=torch.bfloat16)).tolist() == [[0, 255]]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_images_that_are_no_numbers_are_refused(bad: float) -> None:
    """NaN never becomes a black pixel."""
    for images in (np.array([0.0, bad]), torch.tensor([0.0, bad])):
        with pytest.raises(BadInput, match="NaN"):
            to_pixels(images)


def test_pixels_and_images_cannot_be_mixed_up() -> None:
    """uint8 given as images and floats given as pixels are refused, not scaled twice."""
    pixels = gradient()
    for wrong in (pixels, torch.from_numpy(pixels)):
        with pytest.raises(BadInput, match="uint8"):
            to_pixels(wrong)
    for floats in (as_images, encode_png):
        with pytest.raises(BadInput, match="float32"):
            floats(pixels.astype(np.float32))


def test_read_only_pixels_become_images() -> None:
    """Pixels that lie in a mapped file are read without a warning."""
    pixels = gradient()
    pixels.flags.writeable = False

    assert as_images(pixels).shape == pixels.shape


@given(samples)
def test_png_holds_exactly_its_pixels(pixels: np.ndarray) -> None:
    """Our own decoder and Pillow's agree with what was encoded."""
    data = encode_png(pixels)
    with Image.open(io.BytesIO(data)) as picture:
        seen = np.asarray(picture)

    assert np.array_equal(decode_png(data), pixels)
    assert np.array_equal(seen.reshape(*seen.shape[:2], -1).transpose(2, 0, 1), pixels)
    assert encode_png(decode_png(data)) == data


@given(samples)
def test_a_small_png_is_what_zlib_makes_of_its_lines(pixels: np.ndarray) -> None:
    """Up to 1,024 bytes nothing is deflated, as at zlib's level 0."""
    data = encode_png(pixels)
    stream = data[41:-16]  # behind signature, header, length and kind; before checksum and end
    lines = zlib.decompress(stream)
    if len(lines) <= 1024:
        assert stream == zlib.compress(lines, 0)


def test_damage_to_a_small_png_is_found_by_either_checksum() -> None:
    """A flipped bit, and one whose chunk checksum was made to match."""
    pngs = encode_pngs(np.zeros((2, 1, 8, 8), np.uint8))
    flipped = bytearray(pngs[1])
    flipped[60] ^= 1
    matching = bytearray(flipped)
    matching[-16:-12] = struct.pack(">I", zlib.crc32(matching[37:-16]))

    for damaged in (flipped, matching):
        with pytest.raises(BadImage) as caught:
            decode_pngs([pngs[0], bytes(damaged)])
        assert caught.value.row == 1


def test_a_png_of_another_writer_decodes() -> None:
    """A release whose PNGs went through another tool is still readable."""
    pixels = gradient()
    file = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(file, "PNG")

    assert np.array_equal(decode_png(file.getvalue()), pixels)


@given(st.data())
def test_a_truncated_png_is_a_bad_image(data: st.DataObject) -> None:
    """Every proper beginning of a PNG is refused, even where all pixels are there."""
    png = encode_png(gradient())
    length = data.draw(st.integers(0, len(png) - 1))

    with pytest.raises(BadImage):
        decode_png(png[:length])


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 255)), min_size=1, max_size=4))
def test_a_damaged_png_is_a_bad_image_or_pixels_but_never_another_error(
    flips: list[tuple[int, int]],
) -> None:
    """Flipped bits end in `BadImage`, or in pixels where the format does not notice."""
    png = bytearray(encode_png(gradient()))
    for place, mask in flips:
        png[place % len(png)] ^= mask
    try:
        pixels = decode_png(bytes(png))
    except BadImage:
        return
    assert (pixels.dtype, pixels.ndim) == (np.uint8, 3)


def test_a_png_that_claims_a_huge_size_is_refused_before_it_is_decoded() -> None:
    """A header of 4097 × 8 px is enough to be refused."""
    png = bytearray(encode_png(gradient()))
    png[16:24] = struct.pack(">II", 4097, 8)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))

    with pytest.raises(BadImage, match="4097×8"):
        decode_png(bytes(png))


def test_a_second_header_cannot_smuggle_in_a_larger_size() -> None:
    """Pillow believes the last header, we have checked the first: they must agree."""
    png = encode_png(gradient())
    header = bytearray(png[8:33])
    header[8:16] = struct.pack(">II", 3000, 2000)
    header[21:25] = struct.pack(">I", zlib.crc32(header[4:21]))

    with pytest.raises(BadImage, match="two headers"):
        decode_png(png[:33] + bytes(header) + png[33:])


@pytest.mark.parametrize("mode", ["P", "RGBA", "LA", "I;16", "1"])
def test_other_kinds_of_png_are_bad_images(mode: str) -> None:
    """Shards hold 8-bit grey or RGB alone."""
    file = io.BytesIO()
    Image.new(mode, (8, 8)).save(file, "PNG")

    with pytest.raises(BadImage, match="8-bit grey or RGB"):
        decode_png(file.getvalue())


def test_two_channels_cannot_be_written() -> None:
    """A shape that PNG has no colour type for is refused."""
    with pytest.raises(BadInput, match="1 or 3 channels"):
        encode_png(np.zeros((2, 8, 8), np.uint8))


def test_pixel_hash_covers_shape_and_values() -> None:
    """The same bytes in another shape, and one changed pixel, hash differently; layout does not."""
    pixels = gradient(3, 4, 4)
    changed = pixels.copy()
    changed[0, 0, 0] ^= 1
    strided = np.asfortranarray(pixels)

    assert hashlib.sha256("3×4×4\n".encode() + pixels.tobytes()).hexdigest() == pixel_sha256(pixels)
    assert pixel_sha256(strided) == pixel_sha256(pixels)
    assert len({pixel_sha256(p) for p in (pixels, changed, pixels.reshape(1, 12, 4))}) == 3
