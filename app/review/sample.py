"""Everything that is known of one sample, read when somebody looks at it; and images for a page,
generated and real: some of a label, a strip along the labels, a blind test.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cgankd.app.review.subject import SCORES, Subject
from cgankd.curation.policies.selection import KEPT, REASONS
from cgankd.shardset.errors import BadInput, CorruptShard
from cgankd.shardset.identity import key_text
from cgankd.shardset.images import BadImage, decode_png, encode_png
from cgankd.shardset.labels import LabelSpace
from cgankd.shardset.places import Picture, PoolPlaces, stored_pictures
from cgankd.shardset.tables import table_name

TOP = 5  # classes of the teacher that are shown
MOST_NEAR = 8


@dataclass(frozen=True)
class Near:
    """Another sample of the pool, and how alike it is."""

    row: int
    key: int
    similarity: float


@dataclass(frozen=True)
class Sample:
    """One sample as its page shows it."""

    key: int
    label: str  # after the selection, by name or with its unit
    original_label: str
    reason: str | None  # None: kept
    scores: Mapping[str, float]  # those that it has
    teacher: tuple[tuple[str, float], ...]  # classes: name and probability, the likeliest first
    teacher_value: str | None  # continuous labels: with its unit
    nearest_real: int | None  # into training ++ validation images
    near: tuple[Near, ...]  # kept samples that are nearly the same, the most alike first
    origin: Mapping[str, str | int | float]  # pool_id, seed, key, label, condition
    regenerate: str | None  # the command that makes it again; a release alone cannot


def sample(subject: Subject, row: int, top: int = TOP) -> Sample:
    """What is known of one row; its logits and its condition are read from disk here.

    `CorruptShard` where a table is cut.
    """
    space, key = subject.space, int(subject.key[row])
    prediction, reason = subject.teacher_prediction[row], int(subject.reason[row])
    teacher: tuple[tuple[str, float], ...] = ()
    teacher_value = None
    if space.task == "regression":
        teacher_value = space.display(prediction) if np.isfinite(prediction) else None
    elif logits := _stored(subject, row, "teacher_logits"):
        teacher = probabilities(logits, space, top)
    label, condition = subject.original_label[row].item(), _stored(subject, row, "condition")
    nearest_real = int(subject.nearest_real[row])
    again = f"cgankd regenerate {shlex.quote(str(subject.path))} --keys {key} --verify"
    return Sample(
        key=key,
        label=space.display(subject.label[row]),
        original_label=space.display(label),
        reason=None if reason == KEPT else REASONS[reason],
        scores={
            name: float(subject.scores[name][row])
            for name in SCORES
            if np.isfinite(subject.scores[name][row])
        },
        teacher=teacher,
        teacher_value=teacher_value,
        nearest_real=None if nearest_real < 0 else nearest_real,
        near=nearest_kept(subject, row),
        origin={
            "pool_id": subject.pool_id,
            "seed": subject.seed,
            "key": key_text(key),
            "label": label,
            "condition": label if condition is None else condition,
        },
        regenerate=again if subject.kind == "run" else None,
    )


def nearest_kept(subject: Subject, row: int, most: int = MOST_NEAR) -> tuple[Near, ...]:
    """Kept samples that a stored pair connects with a row, the most alike first."""
    neighbours = subject.neighbours
    if neighbours is None:
        return ()
    key = subject.key[row]
    pairs = np.flatnonzero((neighbours.key_a == key) | (neighbours.key_b == key))
    key_a, key_b = neighbours.key_a[pairs], neighbours.key_b[pairs]
    others = np.where(key_a == key, key_b, key_a)
    rows = subject.rows_of(others)
    alike = neighbours.similarity[pairs]
    order = [place for place in np.lexsort((others, -alike)) if subject.kept[rows[place]]][:most]
    return tuple(Near(int(rows[i]), int(others[i]), float(alike[i])) for i in order)


def probabilities(
    logits: Sequence[float], space: LabelSpace, top: int = TOP
) -> tuple[tuple[str, float], ...]:
    """The `top` likeliest classes of logits `[classes]`, by name, with softmax probabilities."""
    values = np.asarray(logits, np.float64)
    share = np.exp(values - values.max())
    share /= share.sum()
    order = np.argsort(-share, kind="stable")[:top]
    return tuple((space.display(label), float(share[label])) for label in order)


def _stored(subject: Subject, row: int, name: str) -> Any:
    """One value that the tables hold of a sample; `None` where there is no such column or table."""
    places, key, folder = subject.places, int(subject.key[row]), subject.path / "scores"
    if isinstance(places, PoolPlaces):
        folder = places.folder if name == "condition" else folder
        return _cell(folder / table_name(int(places.shard[row])), key, name)
    cells = (_cell(path, key, name) for path in sorted(folder.glob("*.parquet")))
    return next((value for value in cells if value is not None), None)


def _cell(path: Path, key: int, name: str) -> Any:
    """The value that a table has for a key; only the row groups that may hold the key are read."""
    try:
        if name not in pq.read_schema(path).names:
            return None
        of_key = pc.field("key") == key
        values = pq.read_table(path, columns=[name], filters=of_key, partitioning=None)[name]
    except FileNotFoundError:
        return None
    except (pa.ArrowException, OSError) as error:
        raise CorruptShard(f"{path} is cut or not Parquet; run its stage again") from error
    return values[0].as_py() if len(values) else None


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
    import torch

    from cgankd.app.console import Console
    from cgankd.app.context import Context
    from cgankd.app.recipe import load_recipe
    from cgankd.shardset.pool.run_folder import RunFolder

    recipe = load_recipe(str(subject.path / "recipe.yaml"))
    context = Context(RunFolder(subject.path), recipe, torch.device("cpu"), Console(json=True))
    known = subject.facts.get("source", {}).get("fingerprint")
    if known not in (None, context.reals.fingerprint):
        raise BadInput(
            f"{recipe.source} holds other images than when {subject.path} was made; restore them"
        )
    data = context.data
    return Reals(
        np.concatenate([data.train_pixels, data.validation_pixels]),
        np.concatenate([data.train_labels, data.validation_labels]),
        len(data.train_labels),
    )


def real_picture(reals: Reals, number: int, side: int = 96) -> Picture:
    """One real image, at least `side` pixels a side; an error text where there are fewer images."""
    if not 0 <= number < len(reals.pixels):
        return Picture(None, f"real image {number} is not among the {len(reals.pixels):,}")
    return picture_of(reals.pixels[number], side)


def rows_by_label(subject: Subject, group: int, count: int, seed: int = 0) -> np.ndarray:
    """Up to `count` random kept rows of one group of assigned labels, in key order."""
    members = np.flatnonzero((subject.group == group) & subject.kept)
    return np.sort(np.random.default_rng([seed, group]).permutation(members)[:count])


def rows_along(subject: Subject, count: int) -> np.ndarray:
    """Kept rows whose labels are nearest to `count` evenly spread values: a strip along the range
    of a continuous label, each row once.
    """
    kept = np.flatnonzero(subject.kept)
    if not kept.size:
        return kept
    labels = subject.label[kept]
    wanted = np.linspace(labels.min(), labels.max(), count)
    nearest = [int(np.abs(labels - label).argmin()) for label in wanted]
    return kept[list(dict.fromkeys(nearest))]


@dataclass(frozen=True)
class BlindPair:
    """A real and a generated image of one label; a person says which is generated."""

    real: int  # into the run's training and validation images: never a test image
    row: int  # of a kept sample
    generated_first: bool


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


def wilson(right: int, of: int) -> tuple[float, float]:
    """The Wilson 95 % interval of a share, in [0, 1] (Wilson 1927)."""
    from scipy.stats import binomtest

    interval = binomtest(right, of).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)
