"""Pictures as people keep them (any format, turned, see-through, oblong) made square pixels."""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from cgankd.shardset.images import UNDECODABLE, BadImage, channels_first

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

Picture = Path | bytes | np.ndarray  # a file, a file's bytes, or uint8 `[h, w]`


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
