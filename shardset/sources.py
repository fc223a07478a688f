"""Real images with labels, read from where people keep them, as pixels of one square size.

digits | idx:FOLDER | imagefolder:FOLDER | hf:ID_OR_PATH[@revision]
"""

import difflib
import hashlib
import os
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from shardset.errors import SourceError
from shardset.files import canonical_json
from shardset.images import BadImage, pixel_sha256
from shardset.labels import ClassLabels
from shardset.listing import Listing
from shardset.pictures import MIN_SIDE, shorter_side, square_pixels, with_channels
from shardset.source_digits import list_digits
from shardset.source_folder import list_folder
from shardset.source_hub import SourceColumns, list_hub
from shardset.source_idx import list_idx

__all__ = ["RealImages", "RejectedImage", "SourceColumns", "read_source"]

KINDS = {"digits": "", "idx": "FOLDER", "imagefolder": "FOLDER", "hf": "ID_OR_PATH[@revision]"}
# Without a size, photographs come down to this: what a machine without a GPU can still generate.
LARGEST_UNASKED = 64

Progress = Callable[[int, int, Mapping[str, float]], None]


@dataclass(frozen=True)
class RejectedImage:
    """A listed picture that cannot be used, and why."""

    id: str
    reason: str


@dataclass(frozen=True)
class RealImages:
    """Labelled real images of one size, ordered by pixel hash (so file names change nothing)."""

    pixels: np.ndarray
    """uint8 `[n, c, h, w]`"""
    labels: np.ndarray
    """int64 `[n]`"""
    space: ClassLabels
    is_test: np.ndarray | None
    """bool `[n]`: the source's own test split; None where it has none"""
    ids: tuple[str, ...]
    """path or row in the source, unique"""
    rejected: tuple[RejectedImage, ...]
    cropped: int
    """how many of the images were not square"""
    spec: str
    revision: str | None
    """the commit of a Hub dataset"""

    @cached_property
    def pixel_hashes(self) -> tuple[str, ...]:
        """The sha256 of every image's pixels."""
        return tuple(pixel_sha256(sample) for sample in self.pixels)

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 of pixels, labels, classes and test marks: not of names, paths or formats."""
        digest = hashlib.sha256(canonical_json(self.space.model_dump(mode="json")))
        digest.update("".join(self.pixel_hashes).encode())
        digest.update(self.labels.astype("<i8").tobytes())
        digest.update(b"" if self.is_test is None else self.is_test.astype(np.uint8).tobytes())
        return digest.hexdigest()


def read_source(
    spec: str,
    *,
    size: int | None,
    channels: int | None,
    columns: SourceColumns,
    progress: Progress = lambda done, total, facts: None,
) -> RealImages:
    """The images that a source specification names.

    `size` None takes the median shorter side, at most 64 px; `channels` None takes 3 where any
    image has colour, else 1. A picture that cannot be used is listed in `rejected`; `SourceError`
    is raised where nothing can be read, or a class would be left without a training image.
    """
    if size is not None and size < MIN_SIDE:
        raise SourceError(f"{spec}: size {size} px is too small, expected at least {MIN_SIDE}")
    if channels not in (None, 1, 3):
        raise SourceError(f"{spec}: {channels} channels, expected 1 (grey) or 3 (RGB)")
    listing = _list(spec, columns)
    if len(listing.names) < 2:
        raise SourceError(
            f"{spec} has {len(listing.names)} class {list(listing.names)}, expected at least 2"
        )
    _check_classes(spec, listing, np.ones(len(listing.ids), bool), ())
    if size is None:
        size = _natural_size(listing)
    pixels, rejected, cropped = _read_pictures(listing, size, channels, progress)
    usable = np.ones(len(listing.ids), bool)
    usable[list(rejected)] = False
    reasons = tuple(RejectedImage(listing.ids[i], reason) for i, reason in rejected.items())
    _check_classes(spec, listing, usable, reasons)
    reals = RealImages(
        pixels=pixels,
        labels=listing.labels[usable],
        space=ClassLabels(names=listing.names),
        is_test=None if listing.is_test is None else listing.is_test[usable],
        ids=tuple(listing.ids[i] for i in np.flatnonzero(usable)),
        rejected=reasons,
        cropped=cropped,
        spec=spec,
        revision=listing.revision,
    )
    return _in_order(reals)


def _list(spec: str, columns: SourceColumns) -> Listing:
    kind, _, where = spec.partition(":")
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise SourceError(f"source {spec!r} is none of {', '.join(map(_form, KINDS))}{hint}")
    if bool(where) != bool(KINDS[kind]):
        raise SourceError(f"source {spec!r} does not have the form {_form(kind)}")
    where = os.path.expanduser(where)
    match kind:
        case "digits":
            return list_digits()
        case "idx":
            return list_idx(Path(where))
        case "imagefolder":
            return list_folder(Path(where))
        case _:
            return list_hub(where, columns)


def _form(kind: str) -> str:
    return f"{kind}:{KINDS[kind]}" if KINDS[kind] else kind


def _natural_size(listing: Listing) -> int:
    """The median shorter side in px, at most 64; from headers alone."""
    sides = []
    for i in range(len(listing.ids)):
        try:
            side = shorter_side(listing.picture(i))
        except BadImage:
            continue  # rejected by name when it is read
        if side >= MIN_SIDE:
            sides.append(side)
    return min(statistics.median_low(sides), LARGEST_UNASKED) if sides else MIN_SIDE


def _read_pictures(
    listing: Listing, size: int, channels: int | None, progress: Progress
) -> tuple[np.ndarray, dict[int, str], int]:
    """The pixels of all usable pictures, the reasons of the others by number, how many cropped."""
    samples: list[np.ndarray] = []
    rejected: dict[int, str] = {}
    cropped = 0
    total = len(listing.ids)
    for i in range(total):
        try:
            sample, was_oblong = square_pixels(listing.picture(i), size)
        except BadImage as error:
            rejected[i] = str(error)
        else:
            samples.append(sample)
            cropped += was_oblong
        if (i + 1) % 100 == 0 or i + 1 == total:
            progress(i + 1, total, {"rejected": len(rejected)})
    if channels is None:
        channels = max((len(sample) for sample in samples), default=1)
    pixels = np.empty((len(samples), channels, size, size), np.uint8)
    for slot, sample in zip(pixels, samples, strict=True):
        slot[:] = with_channels(sample, channels)
    return pixels, rejected, cropped


def _check_classes(
    spec: str, listing: Listing, usable: np.ndarray, rejected: tuple[RejectedImage, ...]
) -> None:
    """Raises `SourceError` for a class without training images, or an empty test split."""
    is_test = listing.is_test if listing.is_test is not None else np.zeros(len(usable), bool)
    reason_of = {image.id: image.reason for image in rejected}
    for label, name in enumerate(listing.names):
        listed = np.flatnonzero((listing.labels == label) & ~is_test)
        if usable[listed].any():
            continue
        which = f"{spec}: class {name!r} ({label + 1} of {len(listing.names)})"
        if not listed.size:
            kind = "images" if listing.is_test is None else "training images"
            raise SourceError(f"{which} has no {kind}; add some or remove the class")
        first = listing.ids[listed[0]]
        raise SourceError(
            f"{which}: none of its {listed.size} images can be used "
            f"(the first, {first}, {reason_of[first]})"
        )
    if listing.is_test is not None and not usable[is_test].any():
        raise SourceError(f"{spec}: the test split has no usable image; fill it or remove it")


def _in_order(reals: RealImages) -> RealImages:
    """The same images, ordered by pixel hash, then label, test mark and id."""
    is_test = reals.is_test if reals.is_test is not None else np.zeros(len(reals.labels), bool)
    keys = zip(reals.pixel_hashes, reals.labels.tolist(), is_test.tolist(), reals.ids, strict=True)
    order = np.array([i for i, _ in sorted(enumerate(keys), key=lambda pair: pair[1])], np.int64)
    return replace(
        reals,
        pixels=reals.pixels[order],
        labels=reals.labels[order],
        is_test=None if reals.is_test is None else is_test[order],
        ids=tuple(reals.ids[i] for i in order),
    )
