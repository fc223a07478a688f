"""Everything that is known of one sample, read when somebody looks at it."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cgankd.app.review.images import Reals
from cgankd.app.review.subject import SCORES, Subject
from cgankd.curation.policies.selection import KEPT, REASONS
from cgankd.shardset.errors import CorruptShard
from cgankd.shardset.identity import key_text
from cgankd.shardset.labels import LabelSpace
from cgankd.shardset.places import PoolPlaces
from cgankd.shardset.tables import table_name

TOP = 5
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
    """What is known of one row; its logits are read from disk here.

    `CorruptShard` where a score table is cut.
    """
    space, key = subject.space, int(subject.key[row])
    scores = {name: float(subject.scores[name][row]) for name in SCORES}
    prediction, reason = subject.teacher_prediction[row], int(subject.reason[row])
    predicts_value = space.task == "regression" and np.isfinite(prediction)
    real = _nearest_real(subject, key)
    real_label = None
    if real is not None and reals is not None and real < len(reals.labels):
        real_label = space.display(reals.labels[real].item())
    again = f"cgankd regenerate {shlex.quote(str(subject.path))} --keys {key} --verify"
    return Sample(
        row=row,
        key=key,
        label=space.display(subject.label[row]),
        original_label=space.display(subject.original_label[row]),
        reason=None if reason == KEPT else REASONS[reason],
        scores={name: value for name, value in scores.items() if np.isfinite(value)},
        teacher=_likeliest(subject, row, top),
        teacher_value=space.display(prediction) if predicts_value else None,
        nearest_real=real,
        nearest_real_label=real_label,
        near=nearest_kept(subject, row),
        origin=_origin(subject, row),
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


def _nearest_real(subject: Subject, key: int) -> int | None:
    neighbours = subject.neighbours
    if neighbours is None:
        return None
    at = int(np.searchsorted(neighbours.key, key))
    if at == len(neighbours.key) or neighbours.key[at] != key or neighbours.nearest_real_id[at] < 0:
        return None
    return int(neighbours.nearest_real_id[at])


def _likeliest(subject: Subject, row: int, top: int) -> tuple[tuple[str, float], ...]:
    """Names and probabilities of the teacher's first classes; nothing where no logits are."""
    if subject.space.task == "regression" or not subject.scored[row]:
        return ()
    logits = _score_cell(subject, row, "teacher_logits")
    return () if logits is None else probabilities(logits, subject.space, top)


def _origin(subject: Subject, row: int) -> dict[str, str | int | float]:
    """The row that makes the sample again."""
    places, key = subject.places, int(subject.key[row])
    label = subject.original_label[row].item()
    if isinstance(places, PoolPlaces):
        path = places.folder / table_name(int(places.shard[row]))
        condition = _cell(path, key, "condition")
    else:
        condition = _score_cell(subject, row, "condition")
    return {
        "pool_id": subject.pool_id,
        "seed": subject.seed,
        "key": key_text(key),
        "label": label,
        "condition": label if condition is None else condition,
    }


def _score_cell(subject: Subject, row: int, name: str) -> Any:
    """One cell of the score tables; `None` where there is no such column or table."""
    places, key, folder = subject.places, int(subject.key[row]), subject.path / "scores"
    if isinstance(places, PoolPlaces):
        return _cell(folder / table_name(int(places.shard[row])), key, name)
    for path in sorted(folder.glob("*.parquet")):
        if (value := _cell(path, key, name)) is not None:
            return value
    return None


def _cell(path: Path, key: int, name: str) -> Any:
    """The value that a table has for a key; only the row group that holds the key is read."""
    try:
        with pq.ParquetFile(path) as file:
            if name not in file.schema_arrow.names:
                return None
            for group in range(file.num_row_groups):
                keys = file.read_row_group(group, ["key"])["key"]
                at = pc.index(keys, pa.scalar(key, keys.type)).as_py()
                if at >= 0:
                    return file.read_row_group(group, [name])[name][at].as_py()
    except FileNotFoundError:
        return None
    except (pa.ArrowException, OSError) as error:
        raise CorruptShard(f"{path} is cut or not Parquet; run its stage again") from error
    return None
