"""Keeping the best step's average, and stopping when no better one comes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cgankd.generator.config import KeepBest
from cgankd.generator.keep_best import MERIT, Score, best_row
from tests.generator.test_train import TRAINING, hashes, train

KEEP = KeepBest(after=0.3, every=4, patience=2)
KEEPING = TRAINING.model_copy(update={"keep_best": KEEP})


def brightness(pixels: np.ndarray) -> dict[str, float]:
    """A merit of the samples alone, as a resumed run asks for it anew."""
    return {MERIT: float(pixels[0, 0, 0, 0]), "kid": 0.5}


class Merits:
    """Gives the merits that a test has thought out, one a candidate, whatever the samples."""

    def __init__(self, *merits: float) -> None:
        self.merits: Iterator[float] = iter(merits)
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, pixels: np.ndarray) -> dict[str, float]:
        self.shapes.append(pixels.shape)
        return {MERIT: next(self.merits), "kid": 0.5}


def scored(folder: Path, of: Any, **options: Any) -> dict[str, Any]:
    return train(folder, KEEPING, score=Score(np.array([0, 1, 1]), of), **options)


def test_the_best_step_is_kept_as_if_training_had_ended_there(tmp_path: Path) -> None:
    """The later of two that are as good; candidates begin after three tenths of the 24 steps."""
    merits = Merits(1.0, 3.0, 3.0, 2.0, 2.0)

    facts = scored(tmp_path / "scored", merits)
    ended = train(tmp_path / "ended", TRAINING.model_copy(update={"iterations": 16}))

    assert (facts["steps"], facts["kept_step"], facts["kid"]) == (24, 16, 0.5)
    assert facts["sha256"] == ended["sha256"]
    assert merits.shapes == [(3, 1, 8, 8)] * 5


def test_training_ends_when_no_candidate_has_been_better_for_long(tmp_path: Path) -> None:
    """Two in a row are worse than the one at step 8; the checkpoint is that of the last step."""
    facts = scored(tmp_path, Merits(3.0, 2.0, 1.0))

    assert (facts["steps"], facts["kept_step"]) == (16, 8)
    assert facts == scored(tmp_path, Merits())  # done: nothing is scored again


def test_an_interrupted_run_keeps_the_same_weights(tmp_path: Path) -> None:
    """Wherever it was stopped: before, at and after the best step, between checkpoints."""
    scored(tmp_path / "undisturbed", brightness)
    for step in (6, 8, 13, 17, 22):
        scored(tmp_path / "stopped", brightness, stop_after=step)

    scored(tmp_path / "stopped", brightness)

    assert hashes(tmp_path / "stopped") == hashes(tmp_path / "undisturbed")


def test_without_a_score_the_last_step_is_kept(tmp_path: Path) -> None:
    """A setting that asks for one does no harm."""
    facts = train(tmp_path, KEEPING)

    assert (facts["steps"], facts["kept_step"]) == (24, 24)
    assert "kid" not in facts


@pytest.mark.parametrize(("merits", "step"), [([1, 2, 2], 3), ([3, 1, 2], 1)])
def test_rows_without_a_merit_are_no_candidates(merits: list[float], step: int) -> None:
    """And of equal merits the later counts."""
    rows = [{"step": 0.0}, *({"step": i + 1, MERIT: merit} for i, merit in enumerate(merits))]

    assert best_row(rows)["step"] == step
