"""Everything that is known of one sample, read when somebody looks at it; and the real images."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cgankd.app.review.data import SCORES, PoolPlaces, Subject
from cgankd.app.review.images import Picture, picture_of
from cgankd.curation.policies.selection import KEPT, REASONS
from cgankd.shardset.errors import BadInput, CgankdError, CorruptShard
from cgankd.shardset.identity import key_text
from cgankd.shardset.labels import LabelSpace
from cgankd.shardset.tables import table_name

TOP = 5


@dataclass(frozen=True)
class Reals:
    """The real images of the budget, training then validation; never the test images."""

    pixels: np.ndarray  # uint8 [n, c, h, w]
    labels: np.ndarray  # [n]
    train: int  # the first so many are training images


@dataclass(frozen=True)
class Near:
    """Another sample of the pool, and how alike it is."""

    row: int
    key: int
    similarity: float


@dataclass(frozen=True)
class Sample:
    """One sample as its page shows it."""

    row: int
    key: int
    label: str  # after the selection, by name or with its unit
    original_label: str
    reason: str | None  # None: kept
    scores: dict[str, float]  # those that it has
    teacher: tuple[tuple[str, float], ...]  # classes: name and probability, the likeliest first
    teacher_value: str | None  # continuous labels: with its unit
    nearest_real: int | None  # into training ++ validation images
    nearest_real_label: str | None
    near: tuple[Near, ...]  # kept samples that are nearly the same, the most alike first
    origin: dict[str, str | int | float]  # pool_id, seed, key, label, condition
    regenerate: str | None  # the command that makes it again; a release alone cannot


def sample(subject: Subject, row: int, reals: Reals | None = None, top: int = TOP) -> Sample:
    """What is known of one row; its logits are read from disk here."""
    space, key = subject.space, int(subject.key[row])
    scores = {name: float(subject.scores[name][row]) for name in SCORES}
    told = subject.teacher_told[row]
    reason = int(subject.reason[row])
    real = _nearest_real(subject, key)
    real_label = None
    if real is not None and reals is not None and real < len(reals.labels):
        real_label = space.display(reals.labels[real].item())
    return Sample(
        row=row,
        key=key,
        label=space.display(subject.label[row]),
        original_label=space.display(subject.original_label[row]),
        reason=None if reason == KEPT else REASONS[reason],
        scores={name: value for name, value in scores.items() if np.isfinite(value)},
        teacher=_likeliest(subject, row, top),
        teacher_value=space.display(told)
        if space.task == "regression" and np.isfinite(told)
        else None,
        nearest_real=real,
        nearest_real_label=real_label,
        near=nearest_kept(subject, row),
        origin=_origin(subject, row),
        regenerate=(
            f"cgankd regenerate {shlex.quote(str(subject.path))} --keys {key} --verify"
            if subject.kind == "run"
            else None
        ),
    )


def open_reals(subject: Subject) -> Reals:
    """The real images of a run's budget, from its source; `CgankdError` where it cannot be read.

    A release holds none: it names its source, which may not be at hand.
    """
    if subject.kind != "run" or not (subject.path / "recipe.yaml").is_file():
        raise BadInput(f"{subject.path} holds no real images; open the run that it was made by")
    from cgankd.app.recipe import load_recipe
    from cgankd.shardset.sources.read import read_source
    from cgankd.shardset.splits import RealData, split_reals

    recipe = load_recipe(str(subject.path / "recipe.yaml"))
    reals = read_source(
        recipe.source,
        size=recipe.image.size,
        channels=recipe.image.channels,
        columns=recipe.columns,
        task=recipe.task,
        label=recipe.label,
    )
    known = subject.facts.get("source", {}).get("fingerprint")
    if known not in (None, reals.fingerprint):
        raise BadInput(
            f"{recipe.source} holds other images than when {subject.path} was made; restore them"
        )
    data = RealData(reals, split_reals(reals, recipe.budget, seed=recipe.seed))
    return Reals(
        np.concatenate([data.train_pixels, data.validation_pixels]),
        np.concatenate([data.train_labels, data.validation_labels]),
        len(data.train_labels),
    )


def real_picture(reals: Reals, number: int, side: int = 96) -> Picture:
    """One real image; a text where the source has fewer."""
    if not 0 <= number < len(reals.pixels):
        return Picture(None, f"real image {number} is not among the {len(reals.pixels):,}")
    return picture_of(reals.pixels[number], side)


def nearest_kept(subject: Subject, row: int, most: int = 8) -> tuple[Near, ...]:
    """Kept samples that a stored pair connects with a row, the most alike first."""
    found = subject.neighbours
    if found is None:
        return ()
    key = subject.key[row]
    pairs = np.flatnonzero((found.key_a == key) | (found.key_b == key))
    others = np.where(found.key_a[pairs] == key, found.key_b[pairs], found.key_a[pairs])
    rows = subject.rows_of(others)
    alike = found.similarity[pairs]
    order = [place for place in np.lexsort((others, -alike)) if subject.kept[rows[place]]][:most]
    return tuple(Near(int(rows[i]), int(others[i]), float(alike[i])) for i in order)


def rows_by_label(
    subject: Subject, group: int, count: int, seed: int = 0, kept: bool = True
) -> np.ndarray:
    """Up to `count` random rows of one group of assigned labels, in key order."""
    own = np.flatnonzero((subject.group == group) & (subject.kept == kept))
    chosen = np.random.default_rng([seed, group]).permutation(own)[:count]
    return np.sort(chosen)


def rows_along(subject: Subject, count: int) -> np.ndarray:
    """Kept rows whose labels are nearest to `count` values evenly spread over the range: a strip
    along a continuous label, each row once.
    """
    kept = np.flatnonzero(subject.kept)
    if not kept.size:
        return kept
    order = kept[np.argsort(subject.label[kept], kind="stable")]
    labels = subject.label[order]
    wanted = np.linspace(labels[0], labels[-1], count)
    at = np.clip(np.searchsorted(labels, wanted), 1, max(len(order) - 1, 1))
    before = wanted - labels[at - 1] < labels[np.minimum(at, len(order) - 1)] - wanted
    picked = np.minimum(np.where(before, at - 1, at), len(order) - 1)
    _, first = np.unique(picked, return_index=True)
    return order[picked[np.sort(first)]]


def _nearest_real(subject: Subject, key: int) -> int | None:
    found = subject.neighbours
    if found is None:
        return None
    place = int(np.searchsorted(found.key, key))
    if place == len(found.key) or found.key[place] != key or found.nearest_real_id[place] < 0:
        return None
    return int(found.nearest_real_id[place])


def _likeliest(subject: Subject, row: int, top: int) -> tuple[tuple[str, float], ...]:
    """Names and probabilities of the teacher's first classes; nothing where no logits are."""
    if subject.space.task == "regression" or not subject.scored[row]:
        return ()
    logits = _stored(subject, row, "teacher_logits")
    if logits is None:
        return ()
    return probabilities(logits, subject.space, top)


def probabilities(
    logits: Sequence[float], space: LabelSpace, top: int = TOP
) -> tuple[tuple[str, float], ...]:
    """The `top` likeliest classes of logits `[classes]`, with softmax probabilities."""
    values = np.asarray(logits, np.float64)
    share = np.exp(values - values.max())
    share /= share.sum()
    order = np.argsort(-share, kind="stable")[:top]
    return tuple((space.display(label), float(share[label])) for label in order)


def _origin(subject: Subject, row: int) -> dict[str, str | int | float]:
    """The row that makes the sample again."""
    place = subject.places
    label = subject.original_label[row].item()
    origin: dict[str, str | int | float] = {
        "pool_id": subject.pool_id,
        "seed": subject.seed,
        "key": key_text(int(subject.key[row])),
        "label": label,
    }
    if isinstance(place, PoolPlaces):
        path = place.folder / table_name(int(place.shard[row]))
        condition = _cell(path, int(subject.key[row]), "condition")
    else:
        condition = _stored(subject, row, "condition")
    return origin | {"condition": label if condition is None else condition}


def _stored(subject: Subject, row: int, name: str) -> Any:
    """One cell of the score tables; `None` where there is no such column or table."""
    place, key = subject.places, int(subject.key[row])
    if isinstance(place, PoolPlaces):
        return _cell(subject.path / "scores" / table_name(int(place.shard[row])), key, name)
    for path in sorted((subject.path / "scores").glob("*.parquet")):
        if (found := _cell(path, key, name)) is not None:
            return found
    return None


def _cell(path: Path, key: int, name: str) -> Any:
    """The value that a table has for a key; only the row group that holds the key is read."""
    try:
        with pq.ParquetFile(path) as file:
            if name not in file.schema_arrow.names:
                return None
            for group in range(file.num_row_groups):
                own = file.read_row_group(group, ["key"])["key"]
                at = pc.index(own, pa.scalar(key, own.type)).as_py()
                if at >= 0:
                    return file.read_row_group(group, [name])[name][at].as_py()
    except FileNotFoundError:
        return None
    except (pa.ArrowException, OSError) as error:
        raise CorruptShard(f"{path} is cut or not Parquet; run its stage again") from error
    return None


def reals_or_reason(subject: Subject) -> tuple[Reals | None, str | None]:
    """The real images, or in one line why there are none to show."""
    try:
        return open_reals(subject), None
    except (CgankdError, OSError) as error:
        return None, str(error)
