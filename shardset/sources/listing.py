"""What a real-image source lists, before any picture is decoded; and its pictures, as people keep
them (any format, turned, see-through, oblong), made square pixels.
"""

import io
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, UnidentifiedImageError
from pydantic import ValidationError

from cgankd.shardset.errors import SourceError
from cgankd.shardset.images import UNDECODABLE, BadImage, channels_first
from cgankd.shardset.labels import ClassLabels, ContinuousLabels, LabelSettings, LabelSpace

MIN_SIDE = 8
# Photographs and their kin. Never "whatever Pillow opens": its EPS reader starts Ghostscript.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")

BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
UNREADABLE = (*UNDECODABLE, *BOMBS, TypeError)  # TypeError: a text where TIFF wants a number
ORIENTATION = 0x0112  # EXIF 2.32, tag 274: where the stored first row and column belong
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Task = Literal["classification", "regression"]
Picture = Path | bytes | np.ndarray  # a file, a file's bytes, or uint8 `[h, w]`


@dataclass(frozen=True)
class Listing:
    """The pictures of a source: a name and a label for each, and how to get number i."""

    ids: tuple[str, ...]
    labels: np.ndarray
    """int64 `[n]` classes, or float64 `[n]` numbers in their unit"""
    names: tuple[str, ...] | None
    """of the classes; None for numbers"""
    picture: Callable[[int], Picture]
    """raises `BadImage` where there is none"""
    is_test: np.ndarray | None = None
    """bool `[n]`, or None where the source has no test split of its own"""
    revision: str | None = None
    """the commit of a Hub dataset"""
    unit: str | None = None
    """of numbers, where the source knows it"""
    range: tuple[float, float] | None = None
    """least and largest number there can be, where the source knows them"""
    origins: tuple[str, ...] | None = None
    """what each image was derived from; None: every image stands for itself"""


def label_space(spec: str, listing: Listing, task: Task, label: LabelSettings) -> LabelSpace:
    """The label space of a listing, where a recipe states the task and may state unit and range.

    `SourceError` for labels that are not the task's, and where unit or range stay unknown.
    """
    if task == "classification":
        if listing.names is None:
            raise SourceError(f"{spec}: its labels are numbers, not classes; set task: regression")
        if len(listing.names) < 2:
            raise SourceError(
                f"{spec} has {len(listing.names)} class {list(listing.names)}, expected at least 2"
            )
        return ClassLabels(names=listing.names)
    if listing.names is not None:
        raise SourceError(f"{spec}: its labels are classes, not numbers; set task: classification")
    unit, interval = label.unit or listing.unit, label.range or listing.range
    if unit is None or interval is None:
        known = {"unit": unit, "range": interval}
        missing = " and no ".join(name for name, value in known.items() if value is None)
        raise SourceError(
            f"{spec} says no {missing} of its labels; give label.unit and label.range"
        )
    low, high = interval
    try:
        return ContinuousLabels(unit=unit, low=low, high=high, groups=label.groups)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise SourceError(f"{spec}: {reason}") from error


def labels_outside(space: LabelSpace, labels: np.ndarray, spec: str) -> dict[int, str]:
    """Why the labels of some images cannot be used, by their number; classes always can."""
    if isinstance(space, ClassLabels):
        return {}
    if labels.ndim != 1:
        space.check(labels, spec)  # says why
    inside = (labels >= space.low) & (labels <= space.high)  # NaN is not
    expected = f"expected {space.low:g} … {space.high:g} {space.unit}"
    return {int(i): f"has the label {labels[i]:g}, {expected}" for i in np.flatnonzero(~inside)}


def snapped(space: LabelSpace, labels: np.ndarray) -> np.ndarray:
    """The labels, those that a float32 puts just outside the range on its limit."""
    if isinstance(space, ClassLabels) or labels.ndim != 1:
        return labels
    near = 1e-6 * max(abs(space.low), abs(space.high))
    for limit in (space.low, space.high):
        labels = np.where(np.abs(labels - limit) <= near, limit, labels)
    return labels


def check_labels(
    spec: str, space: LabelSpace, listing: Listing, rejected: Mapping[int, str]
) -> None:
    """Raises `SourceError` for a class without training images, numbers without two different
    ones, or an empty test split.
    """
    usable = np.ones(len(listing.ids), bool)
    usable[list(rejected)] = False
    is_test = listing.is_test if listing.is_test is not None else np.zeros(len(usable), bool)
    kind = "images" if listing.is_test is None else "training images"
    if isinstance(space, ClassLabels):
        for label, name in enumerate(space.names):
            which = f"{spec}: class {name!r} ({label + 1} of {len(space.names)})"
            listed = np.flatnonzero((listing.labels == label) & ~is_test)
            if not listed.size:
                raise SourceError(f"{which} has no {kind}; add some or remove the class")
            _check_any(which, listing, listed, rejected)
    else:
        listed = np.flatnonzero(~is_test)
        if not listed.size:
            raise SourceError(f"{spec} has no {kind}")
        _check_any(spec, listing, listed, rejected)
        different = np.unique(listing.labels[usable & ~is_test])
        if len(different) < 2:
            raise SourceError(
                f"{spec}: all its {kind} have the label {space.display(different[0])}, "
                "expected at least 2 different labels"
            )
    if listing.is_test is not None and not usable[is_test].any():
        raise SourceError(f"{spec}: the test split has no usable image; fill it or remove it")


def _check_any(
    which: str, listing: Listing, listed: np.ndarray, rejected: Mapping[int, str]
) -> None:
    """Raises `SourceError` where every listed image is rejected."""
    if all(int(i) in rejected for i in listed):
        first = int(listed[0])
        raise SourceError(
            f"{which}: none of its {listed.size} images can be used "
            f"(the first, {listing.ids[first]}, {rejected[first]})"
        )


def shorter_side(picture: Picture) -> int:
    """The shorter side in px, from the header alone; `BadImage` says why there is none."""
    with warnings.catch_warnings():
        _expect_no_bombs()
        try:
            with _opened(picture) as opened:
                return min(opened.size)
        except UNREADABLE as error:
            raise BadImage(_reason(error)) from error


def square_pixels(picture: Picture, size: int) -> tuple[np.ndarray, bool]:
    """The pixels `[c, size, size]` of a picture, and whether it had to be cropped to a square.

    EXIF orientation is applied, the first frame of several taken, transparency laid over white,
    palettes and other colour models become RGB, 16-bit grey becomes 8-bit, the centre square is
    resized with Pillow's bicubic filter. c is 1 where all colours are shades of grey, else 3.
    Raises `BadImage` for what does not decode or has a side under 8 px.
    """
    with warnings.catch_warnings():
        _expect_no_bombs()
        try:
            with _opened(picture) as opened:
                if min(opened.size) < MIN_SIDE:
                    width, height = opened.size
                    raise BadImage(f"is {width}×{height} px, expected at least {MIN_SIDE} px")
                # A JPEG can be decoded at 1/2, 1/4 or 1/8; twice the target leaves bicubic its say.
                opened.draft(None, (2 * size, 2 * size))
                opened.load()  # before the EXIF: a TIFF turns itself, a PNG may keep it at the end
                turn = UPRIGHT.get(opened.getexif().get(ORIENTATION, 1))
                plain = _eight_bit(opened if turn is None else opened.transpose(turn))
        except BadImage:
            raise
        except UNREADABLE as error:
            raise BadImage(_reason(error)) from error
    side = min(plain.size)
    cropped = plain.size != (side, side)
    if cropped:
        left, top = (plain.width - side) // 2, (plain.height - side) // 2
        plain = plain.crop((left, top, left + side, top + side))
    if side != size:
        plain = plain.resize((size, size), Image.Resampling.BICUBIC)
    pixels = channels_first(np.array(plain))
    if len(pixels) == 3 and (pixels[0] == pixels[1]).all() and (pixels[0] == pixels[2]).all():
        pixels = pixels[:1]
    return pixels, cropped


def with_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """Pixels `[c, h, w]` with 1 (ITU-R 601 luma) or 3 channels."""
    if len(pixels) == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=0)
    colour = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    return channels_first(np.array(colour.convert("L")))


def _opened(picture: Picture) -> Image.Image:
    if isinstance(picture, np.ndarray):
        return Image.fromarray(picture)
    return Image.open(
        io.BytesIO(picture) if isinstance(picture, bytes) else picture, formats=FORMATS
    )


def _eight_bit(picture: Image.Image) -> Image.Image:
    """The picture in mode L or RGB."""
    if picture.mode in ("L", "RGB") and "transparency" not in picture.info:
        return picture
    if picture.mode.startswith("I"):  # 16-bit grey; "I" holds it in 32 bits
        deep = np.array(picture).astype(np.int64)
        if deep.min() < 0 or deep.max() > 0xFFFF:
            raise BadImage("has more than 16 bits a pixel; store it with 8 or 16")
        return Image.fromarray(((deep * 255 + 0x7FFF) // 0xFFFF).astype(np.uint8))
    if picture.mode == "F":
        raise BadImage("has floating-point pixels; store it with 8 or 16 bits a pixel")
    if picture.has_transparency_data:
        over = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")
    return picture.convert("L" if picture.mode == "1" else "RGB")


def _expect_no_bombs() -> None:
    """Inside `catch_warnings`: Pillow's other remarks on odd files are not the user's concern."""
    warnings.simplefilter("ignore")
    warnings.simplefilter("error", Image.DecompressionBombWarning)


def _reason(error: BaseException) -> str:
    """One line that names no path, so that it is the same wherever the files lie."""
    if isinstance(error, UnidentifiedImageError):
        return "is not a picture in a format that is read here"
    if isinstance(error, BOMBS):
        return f"has more than {Image.MAX_IMAGE_PIXELS:,} px"
    detail = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"does not decode ({detail.splitlines()[0] if detail else type(error).__name__})"
