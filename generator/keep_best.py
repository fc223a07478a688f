"""Which step's averaged network is kept, and when training on is of no use.

A generator's samples get better and then, in a small budget's long training, less varied. What is
better is told by whoever starts the training: a score of samples, the same for every candidate.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cgankd.generator.config import KeepBest
from cgankd.generator.interface import Generator
from cgankd.shardset.images import to_pixels

MERIT = "merit"  # of a candidate's row of metrics.jsonl: the higher, the better
BATCH = 250  # samples made at once

Row = Mapping[str, float]


class Score(NamedTuple):
    """How candidates are scored: the labels of the samples wanted, and a function of the samples.

    labels raw `[n]`. The function's figures of uint8 pixels `[n, c, s, s]` are for metrics.jsonl,
    MERIT among them.
    """

    labels: np.ndarray
    of: Callable[[np.ndarray], Row]


class BestAverage:
    """The averaged network as it was at its best step, `module`; of no use before the first.

    A candidate is made to show the samples of `draws` and `conditions`, as `sample` takes them.
    """

    def __init__(
        self, keep: KeepBest, iterations: int, score: Score, draws: Tensor, conditions: Tensor
    ) -> None:
        self._keep, self._iterations, self._score = keep, iterations, score
        self._batches = list(zip(draws.split(BATCH), conditions.split(BATCH), strict=True))

    def follow(self, average: Generator) -> Generator:
        """The module that holds the best of `average` from now on."""
        self._average, self.module = average, copy.deepcopy(average)
        return self.module

    @torch.no_grad()
    def consider(self, rows: list[dict[str, float]]) -> None:
        """Scores the average where the latest row's step is a candidate: the row gets the figures,
        the module the weights if none was better.
        """
        step = int(rows[-1]["step"])
        if not is_candidate(step, self._keep, self._iterations):
            return
        pixels = [to_pixels(self._average.sample(*batch)) for batch in self._batches]
        rows[-1].update(self._score.of(np.concatenate(pixels)))
        if best_row(rows)["step"] == step:
            self.module.load_state_dict(self._average.state_dict())

    def is_final(self, rows: Sequence[Row]) -> bool:
        """Whether the latest `patience` candidates were all worse than one before them."""
        steps = [row["step"] for row in rows if MERIT in row]
        return bool(steps) and best_row(rows)["step"] not in steps[-self._keep.patience :]


def is_candidate(step: int, keep: KeepBest, iterations: int) -> bool:
    """Whether the average after `step` steps may be the one that is kept.

    >>> keep = KeepBest(after=0.5, every=20)
    >>> [step for step in range(91) if is_candidate(step, keep, iterations=90)]
    [60, 80, 90]
    """
    return step == iterations or (step >= keep.after * iterations and step % keep.every == 0)


def best_row(rows: Sequence[Row]) -> Row:
    """The candidate's row of the highest merit, the later where several have it."""
    return max((row for row in rows if MERIT in row), key=lambda row: (row[MERIT], row["step"]))
