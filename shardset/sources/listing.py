"""What a real-image source lists, before any picture is decoded."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import ValidationError

from cgankd.shardset.errors import SourceError
from cgankd.shardset.labels import ClassLabels, ContinuousLabels, LabelSettings, LabelSpace
from cgankd.shardset.sources.pictures import Picture


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


Task = Literal["classification", "regression"]


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
