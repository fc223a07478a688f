"""Images for a page, generated and real: some of a label, a strip along a range, a blind test."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from cgankd.app.review.subject import Subject
from cgankd.shardset.errors import BadInput, CgankdError
from cgankd.shardset.images import BadImage, decode_png, encode_png
from cgankd.shardset.places import Picture, stored_pictures

Z95 = 1.959963984540054  # the normal's 0.975-quantile


def picture_of(pixels: np.ndarray, side: int = 0) -> Picture:
    """Pixels uint8 `[c, h, w]`, each repeated so often that no side is under `side`."""
    times = max(1, -(-side // max(pixels.shape[1:])))
    return Picture(encode_png(pixels.repeat(times, axis=1).repeat(times, axis=2)))


def thumbnails(subject: Subject, rows: Sequence[int] | np.ndarray, side: int = 96) -> list[Picture]:
    """The images of rows, their pixels repeated to at least `side` a side: sharp at any zoom."""
    return [_enlarged(picture, side) for picture in stored_pictures(subject.places, rows)]


def _enlarged(picture: Picture, side: int) -> Picture:
    if picture.png is None:
        return picture
    try:
        return picture_of(decode_png(picture.png), side)
    except BadImage as error:
        return Picture(None, f"the image {error}")


@dataclass(frozen=True)
class Reals:
    """The real images of the budget, training then validation; never the test images."""

    pixels: np.ndarray  # uint8 [n, c, h, w]
    labels: np.ndarray  # [n]
    train: int  # the first so many are training images


def open_reals(subject: Subject) -> Reals:
    """The real images of a run's budget, read from its source.

    `BadInput` for a release, which names its source but holds no real images; `CgankdError` where
    the source cannot be read or has changed.
    """
    if subject.kind != "run" or not (subject.path / "recipe.yaml").is_file():
        raise BadInput(f"{subject.path} holds no real images; open the run that it was made by")
    from cgankd.app.recipe import load_recipe
    from cgankd.shardset.sources.read import read_source
    from cgankd.shardset.splits import RealData, split_reals

    recipe = load_recipe(str(subject.path / "recipe.yaml"))
    source = read_source(
        recipe.source,
        size=recipe.image.size,
        channels=recipe.image.channels,
        columns=recipe.columns,
        task=recipe.task,
        label=recipe.label,
    )
    known = subject.facts.get("source", {}).get("fingerprint")
    if known not in (None, source.fingerprint):
        raise BadInput(
            f"{recipe.source} holds other images than when {subject.path} was made; restore them"
        )
    data = RealData(source, split_reals(source, recipe.budget, seed=recipe.seed))
    return Reals(
        np.concatenate([data.train_pixels, data.validation_pixels]),
        np.concatenate([data.train_labels, data.validation_labels]),
        len(data.train_labels),
    )


def reals_or_reason(subject: Subject) -> tuple[Reals | None, str | None]:
    """The real images, or one line that says why there are none to show."""
    try:
        return open_reals(subject), None
    except (CgankdError, OSError) as error:
        return None, str(error)


def real_picture(reals: Reals, number: int, side: int = 96) -> Picture:
    """One real image, at least `side` pixels a side; an error text where there are fewer images."""
    if not 0 <= number < len(reals.pixels):
        return Picture(None, f"real image {number} is not among the {len(reals.pixels):,}")
    return picture_of(reals.pixels[number], side)


def rows_by_label(
    subject: Subject, group: int, count: int, seed: int = 0, kept: bool = True
) -> np.ndarray:
    """Up to `count` random rows of one group of assigned labels, in key order."""
    members = np.flatnonzero((subject.group == group) & (subject.kept == kept))
    return np.sort(np.random.default_rng([seed, group]).permutation(members)[:count])


def rows_along(subject: Subject, count: int) -> np.ndarray:
    """Kept rows whose labels are nearest to `count` evenly spread values: a strip along the range
    of a continuous label, each row once.
    """
    kept = np.flatnonzero(subject.kept)
    if not kept.size:
        return kept
    order = kept[np.argsort(subject.label[kept], kind="stable")]
    labels = subject.label[order]
    wanted = np.linspace(labels[0], labels[-1], count)
    at = np.clip(np.searchsorted(labels, wanted), 1, max(len(order) - 1, 1))
    before = wanted - labels[at - 1] < labels[np.minimum(at, len(order) - 1)] - wanted
    nearest = np.minimum(np.where(before, at - 1, at), len(order) - 1)
    _, first = np.unique(nearest, return_index=True)
    return order[nearest[np.sort(first)]]


@dataclass(frozen=True)
class BlindPair:
    """A real and a generated image of one label; a person says which is generated."""

    real: int  # into the run's training and validation images: never a test image
    row: int  # of a kept sample
    generated_first: bool


@dataclass(frozen=True)
class BlindScore:
    """How often a person picked out the generated image; one half is guessing."""

    right: int
    of: int
    share: float
    low: float  # Wilson 95 % interval
    high: float


def blind_pairs(subject: Subject, reals: Reals, count: int, seed: int) -> list[BlindPair]:
    """`count` pairs of a real and a generated image, the same for the same seed.

    Labels that have both kinds take turns in random order, and no image comes twice before every
    other one of its label did. `BadInput` where no label has both.
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
        for column, members in (
            (real, np.flatnonzero(real_groups == group)),
            (row, kept[subject.group[kept] == group]),
        ):
            rounds = -(-len(at) // len(members))
            turns = [random.permutation(members)[: len(at)] for _ in range(rounds)]
            column[at] = np.concatenate([members[:0], *turns])[: len(at)]
    sides = random.integers(2, size=count).astype(bool)
    return [BlindPair(*p) for p in zip(real.tolist(), row.tolist(), sides.tolist(), strict=True)]


def blind_score(pairs: Sequence[BlindPair], first_picked: Sequence[bool]) -> BlindScore | None:
    """The score of the answers to the first pairs; `None` before the first answer.

    An answer is whether the first image was taken for the generated one.
    """
    if not first_picked:
        return None
    count = len(first_picked)
    right = sum(
        pair.generated_first == answer for pair, answer in zip(pairs, first_picked, strict=False)
    )
    return BlindScore(right, count, right / count, *wilson(right, count))


def wilson(right: int, of: int) -> tuple[float, float]:
    """The Wilson 95 % interval of a share, in [0, 1] (Wilson 1927)."""
    # (p + z²/2n ± z √(p(1 − p)/n + z²/4n²)) / (1 + z²/n)
    share, z2 = right / of, Z95**2
    middle = (share + z2 / (2 * of)) / (1 + z2 / of)
    half = Z95 * sqrt(share * (1 - share) / of + z2 / (4 * of**2)) / (1 + z2 / of)
    return max(0.0, middle - half), min(1.0, middle + half)
