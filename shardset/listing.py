"""What a real-image source lists, before any picture is decoded."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from shardset.pictures import Picture


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
