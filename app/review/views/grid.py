"""A grid of thumbnails with a toolbar and keys: one element for a whole page of samples."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st

NAME = "cgankd.grid"


@dataclass(frozen=True)
class Cell:
    """One sample of the grid; every text is shown as text."""

    row: int
    key: int
    uri: str | None  # data:image/png;base64,…
    error: str | None  # why there is no image
    text: str  # below the image
    name: str  # what a screen reader says
    verdict: str


def grid(
    cells: Sequence[Cell],
    *,
    matching: int,
    side: int,
    names: Sequence[str] | None,
    on_act: Callable[[], None],
) -> None:
    """Draws the grid; `on_act` is called when a person did something, with `acted()` to read.

    matching: samples that the filter lets pass; names: of the classes, None for numbers.
    """
    data = {
        "cells": [asdict(cell) for cell in cells],
        "matching": matching,
        "side": side,
        "names": None if names is None else list(names),
    }
    _component()(key=NAME, data=data, on_act_change=on_act)


def acted() -> dict[str, Any] | None:
    """What was done: `what`, `rows` (a list, or "all"), `label`, `comment`."""
    found = st.session_state.get(NAME)
    said = None if found is None else found.get("act")
    return dict(said) if said else None


@cache
def _component() -> Callable[..., Any]:
    here = Path(__file__).parent
    return st.components.v2.component(
        NAME, css=(here / "grid.css").read_text(), js=(here / "grid.js").read_text()
    )
