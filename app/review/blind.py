"""The blind test: of two images with one label, which is generated?"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from cgankd.app.review.data import Subject
from cgankd.app.review.sample import Reals
from cgankd.shardset.errors import BadInput

Z95 = 1.959963984540054  # the normal's 0.975-quantile


@dataclass(frozen=True)
class BlindPair:
    """A real and a generated image of one label."""

    real: int  # into the run's training and validation images: never a test image
    row: int  # of a kept sample
    generated_first: bool


@dataclass(frozen=True)
class BlindScore:
    """How often a person told the generated image; one half is guessing."""

    right: int
    of: int
    share: float
    low: float  # Wilson 95 % interval
    high: float


def blind_pairs(subject: Subject, reals: Reals, count: int, seed: int) -> list[BlindPair]:
    """`count` pairs, the same for the same seed, of labels that have both kinds of images.

    Labels take turns in random order, and no image comes twice before all of its label did.
    `BadInput` where no label has both.
    """
    random = np.random.default_rng(seed)
    real_groups = subject.space.group_of(reals.labels)
    kept = np.flatnonzero(subject.kept)
    both = np.intersect1d(real_groups, subject.group[kept])
    if not both.size:
        raise BadInput("no label has both a kept and a real image, so there is nothing to tell")
    groups = np.concatenate([random.permutation(both) for _ in range(-(-count // len(both)))])
    groups = groups[:count]
    real, row = np.empty(count, np.int64), np.empty(count, np.int64)
    for group in both:
        at = np.flatnonzero(groups == group)
        for chosen, own in (
            (real, np.flatnonzero(real_groups == group)),
            (row, kept[subject.group[kept] == group]),
        ):
            turns = [random.permutation(own)[: len(at)] for _ in range(-(-len(at) // len(own)))]
            chosen[at] = np.concatenate([own[:0], *turns])[: len(at)]
    sides = random.integers(2, size=count).astype(bool)
    return [BlindPair(*p) for p in zip(real.tolist(), row.tolist(), sides.tolist(), strict=True)]


def blind_score(pairs: Sequence[BlindPair], said_first: Sequence[bool]) -> BlindScore | None:
    """The score of answers (whether the first image was said to be generated) to the first of the
    pairs; `None` before the first answer.
    """
    if not said_first:
        return None
    right = sum(pair.generated_first == said for pair, said in zip(pairs, said_first, strict=False))
    low, high = wilson(right, len(said_first))
    return BlindScore(right, len(said_first), right / len(said_first), low, high)


def wilson(right: int, of: int) -> tuple[float, float]:
    """The Wilson 95 % interval of a share (Wilson 1927)."""
    share, z2 = right / of, Z95**2
    middle = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = Z95 * sqrt(share * (1 - share) / of + z2 / (4 * of**2)) / (1 + z2 / of)
    return max(0.0, middle - half), min(1.0, middle + half)
