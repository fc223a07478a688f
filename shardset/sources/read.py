"""Real images with labels, read from where people keep them, as pixels of one square size.

digits | rotated-digits | idx:FOLDER | imagefolder:FOLDER | h5:FILE | hf:ID_OR_PATH[@revision]
"""

import difflib
import hashlib
import os
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from cgankd.shardset.errors import SourceError
from cgankd.shardset.files import canonical_json
from cgankd.shardset.images import BadImage, pixel_sha256
from cgankd.shardset.labels import LabelSettings, LabelSpace
from cgankd.shardset.sources.arrays import list_h5, list_idx
from cgankd.shardset.sources.digits import list_digits, list_rotated_digits
from cgankd.shardset.sources.folder import list_folder, list_numbered_folder
from cgankd.shardset.sources.hub import SourceColumns, list_hub
from cgankd.shardset.sources.listing import (
    MIN_SIDE,
    Listing,
    Task,
    check_labels,
    label_space,
    labels_outside,
    shorter_side,
    snapped,
    square_pixels,
    with_channels,
)

__all__ = ["RealImages", "RejectedImage", "SourceColumns", "read_source"]

KINDS = {
    "digits": "",
    "rotated-digits": "",
    "idx": "FOLDER",
    "imagefolder": "FOLDER",
    "h5": "FILE",
    "hf": "ID_OR_PATH[@revision]",
}
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
    """int64 `[n]` classes, or float64 `[n]` in the unit of `space`"""
    space: LabelSpace
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
    origins: tuple[str, ...] | None = None
    """what each image was derived from; None: every image stands for itself"""

    @property
    def image_shape(self) -> tuple[int, ...]:
        """`(channels, size, size)`, of every image."""
        return self.pixels.shape[1:]

    @cached_property
    def pixel_hashes(self) -> tuple[str, ...]:
        """The sha256 of every image's pixels."""
        return tuple(pixel_sha256(sample) for sample in self.pixels)

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 of pixels, labels, label space, test marks and origins: not of names, paths
        or formats.
        """
        digest = hashlib.sha256(canonical_json(self.space.model_dump(mode="json")))
        digest.update("".join(self.pixel_hashes).encode())
        digest.update(self.labels.astype(self.labels.dtype.newbyteorder("<")).tobytes())
        digest.update(b"" if self.is_test is None else self.is_test.astype(np.uint8).tobytes())
        digest.update(b"" if self.origins is None else canonical_json(self.origins))
        return digest.hexdigest()


def read_source(
    spec: str,
    *,
    size: int | None,
    channels: int | None,
    columns: SourceColumns,
    task: Task = "classification",
    label: LabelSettings = LabelSettings(),  # noqa: B008 - frozen
    progress: Progress = lambda done, total, facts: None,
) -> RealImages:
    """The images that a source specification names.

    `size` None takes the median shorter side, at most 64 px; `channels` None takes 3 where any
    image has colour, else 1. What `label` says of continuous labels comes before what the source
    knows. A picture that cannot be used, or whose number is not within the range, is listed in
    `rejected`; `SourceError` is raised where nothing can be read, a class would be left without a
    training image or numbers without two different ones, and where the labels are not the task's.
    """
    if size is not None and size < MIN_SIDE:
        raise SourceError(f"{spec}: size {size} px is too small, expected at least {MIN_SIDE}")
    if channels not in (None, 1, 3):
        raise SourceError(f"{spec}: {channels} channels, expected 1 (grey) or 3 (RGB)")
    listing = _list(spec, columns, task)
    space = label_space(spec, listing, task, label)
    listing = replace(listing, labels=snapped(space, listing.labels))
    rejected = labels_outside(space, listing.labels, spec)
    check_labels(spec, space, listing, rejected)
    if size is None:
        size = _natural_size(listing)
    pixels, unreadable, cropped = _read_pictures(listing, rejected, size, channels, progress)
    rejected = dict(sorted((rejected | unreadable).items()))
    check_labels(spec, space, listing, rejected)
    usable = np.ones(len(listing.ids), bool)
    usable[list(rejected)] = False
    reals = RealImages(
        pixels=pixels,
        labels=listing.labels[usable],
        space=space,
        is_test=None if listing.is_test is None else listing.is_test[usable],
        ids=tuple(listing.ids[i] for i in np.flatnonzero(usable)),
        rejected=tuple(RejectedImage(listing.ids[i], reason) for i, reason in rejected.items()),
        cropped=cropped,
        spec=spec,
        revision=listing.revision,
        origins=_chosen(listing.origins, np.flatnonzero(usable)),
    )
    return _in_order(reals)


def _list(spec: str, columns: SourceColumns, task: Task) -> Listing:
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
        case "rotated-digits":
            return list_rotated_digits()
        case "idx":
            return list_idx(Path(where))
        case "imagefolder" if task == "regression":
            return list_numbered_folder(Path(where))
        case "imagefolder":
            return list_folder(Path(where))
        case "h5":
            return list_h5(Path(where), task)
        case _:
            return list_hub(where, columns, task)


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
    listing: Listing,
    left_out: Collection[int],
    size: int,
    channels: int | None,
    progress: Progress,
) -> tuple[np.ndarray, dict[int, str], int]:
    """The pixels of all usable pictures, the reasons of the others by number, how many cropped.

    Those of the numbers `left_out` are not read.
    """
    samples: list[np.ndarray] = []
    rejected: dict[int, str] = {}
    cropped = 0
    total = len(listing.ids)
    for i in range(total):
        if i not in left_out:
            try:
                sample, was_oblong = square_pixels(listing.picture(i), size)
            except BadImage as error:
                rejected[i] = str(error)
            else:
                samples.append(sample)
                cropped += was_oblong
        if (i + 1) % 100 == 0 or i + 1 == total:
            progress(i + 1, total, {"rejected": len(left_out) + len(rejected)})
    if channels is None:
        channels = max((len(sample) for sample in samples), default=1)
    pixels = np.empty((len(samples), channels, size, size), np.uint8)
    for slot, sample in zip(pixels, samples, strict=True):
        slot[:] = with_channels(sample, channels)
    return pixels, rejected, cropped


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
        origins=_chosen(reals.origins, order),
    )


def _chosen(origins: Sequence[str] | None, indices: np.ndarray) -> tuple[str, ...] | None:
    return None if origins is None else tuple(origins[i] for i in indices)
