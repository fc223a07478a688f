"""What every generated image is nearest to: other generated images, real ones, and its label's
centre. For each label on its own; for continuous labels, for a part of the range and the next ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from pydantic import Field

from cgankd.curation.neighbours import Neighbours, Pairs, Thresholds, spanning_pairs
from cgankd.curation.neighbours.search import (
    ROUNDING,
    FeatureSpace,
    as_vectors,
    check_features,
    each_on_a_core,
    load_faiss,
    lower_quantile,
    near_pairs,
    nearest,
    nearest_others,
    similarities,
    upper_quantile,
)
from cgankd.shardset.errors import BadInput
from cgankd.shardset.labels import LabelSpace
from cgankd.shardset.records import Record


class NeighbourConfig(Record):
    """How alike images have to be to count as copies, by how alike real images are."""

    quantile: float = Field(
        0.9999,
        ge=0.5,
        lt=1,
        description="of different real images, the share less alike than copies, extrapolated",
    )
    outlier_quantile: float = Field(
        0.9995,
        ge=0.5,
        lt=1,
        description="of real images, the share nearer to their label's centre than outliers",
    )
    loosest: float = Field(
        0.99, gt=0, lt=1, description="the same share for the pairs that are stored"
    )
    exact_up_to: int = Field(
        200_000, ge=2, description="images of a label; beyond, the search by lists may miss some"
    )


class Features(Protocol):
    """Features `[n, d]` that are read by rows, such as an array or a file mapped to memory."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: np.ndarray, /) -> np.ndarray: ...


@dataclass(frozen=True)
class RealFeatures:
    """Features of real images, training then validation, as they are numbered in the run."""

    features: np.ndarray  # [n, d]
    labels: np.ndarray  # [n], int64 classes or float64 in their unit
    train: int  # the first so many are training images


def find_neighbours(
    key: np.ndarray,
    labels: np.ndarray,
    features: Features,
    real: RealFeatures,
    config: NeighbourConfig,
    *,
    space: LabelSpace,
) -> Neighbours:
    """The nearest of every generated sample, with thresholds calibrated on the training images.

    Keys int64 ascending `[n]`, labels `[n]`, features `[n, d]` of the pool, read one label at a
    time; NaN features are refused, so leave failed samples out. A threshold is how alike the
    training images of a label are to the nearest other, extrapolated to `config.quantile` and to
    as many images as are searched. Exact up to `config.exact_up_to` images of a label, with the
    same result on any machine and any FAISS. `BadInput` for features that are all equal or not
    finite, and for a label without training images.
    """
    load_faiss()
    _check(key, labels, features, real)
    groups = space.group_of(labels)
    real_groups = space.group_of(real.labels)
    train_groups = real_groups[: real.train]
    reach = 1 if space.task == "regression" else 0
    feature_space = FeatureSpace.fitted(real.features[: real.train], train_groups)
    check_features(real.features[real.train :], "the validation images' features")
    present = np.unique(groups).tolist()
    for group in present:
        if not _within(train_groups, group, reach).size:
            raise BadInput(
                f"neighbours: label {space.group_names[group]} has generated but no real training "
                "images to compare them with; add some or leave the label out"
            )
    centred = {
        group: feature_space.about(real.features[_within(train_groups, group, reach)])
        for group in present
    }
    thresholds = _calibrated(real, train_groups, groups, centred, config, reach)
    count = len(key)
    columns: dict[str, np.ndarray] = {
        "nearest_real_id": np.full(count, -1, np.int64),
        "nearest_real_similarity": np.full(count, np.nan, np.float32),
        "nearest_validation_id": np.full(count, -1, np.int64),
        "nearest_validation_similarity": np.full(count, np.nan, np.float32),
        "outlier": np.full(count, np.nan, np.float32),
    }

    def of_label(group: int) -> Pairs:
        rows, after = np.flatnonzero(groups == group), np.empty(0, np.int64)
        if reach:
            after = np.flatnonzero(groups == group + 1)
        place = centred[group].coordinates(_read(features, np.r_[rows, after], key))
        vectors = as_vectors(place)
        far = np.linalg.norm(place[: len(rows)], axis=1)
        columns["outlier"][rows] = far / thresholds.centre_distance[group]
        del place
        ids = _within(real_groups, group, reach)
        for name, some in (
            ("nearest_real", ids[ids < real.train]),
            ("nearest_validation", ids[ids >= real.train]),
        ):
            if some.size:
                base = as_vectors(centred[group].coordinates(real.features[some]))
                at, product = nearest(vectors[: len(rows)], base, config.exact_up_to)
                columns[f"{name}_id"][rows] = some[at]
                columns[f"{name}_similarity"][rows] = similarities(product)
        return _pairs(np.r_[rows, after], len(rows), vectors, thresholds.loosest[group], config)

    pairs = each_on_a_core(of_label, present)
    a, b, similarity = (np.concatenate(part) for part in zip(*pairs, strict=True))
    order = np.lexsort((b, a))
    return Neighbours(
        key=key,
        **columns,
        key_a=key[a[order]],
        key_b=key[b[order]],
        similarity=similarity[order],
        thresholds=thresholds,
    )


def _calibrated(
    real: RealFeatures,
    train_groups: np.ndarray,
    groups: np.ndarray,
    centred: dict[int, FeatureSpace],
    config: NeighbourConfig,
    reach: int,
) -> Thresholds:
    """Thresholds of each label, from its training images' distances to their nearest other.

    Labels differ in scale, which is their own median; the shape of the tail is that of all labels
    together, since twenty images of one say nothing about one in ten thousand.
    """

    def of_label(group: int) -> tuple[np.ndarray, np.ndarray]:
        rows = np.flatnonzero(train_groups == group)
        ids = np.r_[rows, np.setdiff1d(_within(train_groups, group, reach), rows)]
        place = centred[group].coordinates(real.features[ids])
        far = np.linalg.norm(place, axis=1)
        if len(ids) < 2 or not len(rows):
            return far, np.empty(0)
        product = nearest_others(as_vectors(place), len(rows), config.exact_up_to)
        return far, 1.0 - similarities(product).astype(np.float64)

    measured = dict(zip(centred, each_on_a_core(of_label, list(centred)), strict=True))
    far = {group: distances for group, (distances, _) in measured.items()}
    gaps = {group: gap for group, (_, gap) in measured.items() if len(gap)}
    scale = {group: _middle(gap) for group, gap in gaps.items()}
    common = _middle(np.concatenate([*gaps.values(), np.empty(0)]))
    relative = np.concatenate([*(gap / scale[group] for group, gap in gaps.items()), np.empty(0)])
    reach_of = {group: _middle(values) for group, values in far.items()}
    distances = np.concatenate([values / reach_of[group] for group, values in far.items()])
    outlier = float(upper_quantile(distances, np.asarray(1 - config.outlier_quantile)))
    thresholds = Thresholds(
        memorised={},
        duplicates={},
        outliers=dict.fromkeys(centred, outlier),
        loosest={},
        centre_distance=reach_of,
    )
    for group in centred:
        reals = len(_within(train_groups, group, reach))
        generated = len(_within(groups, group, reach))
        alarms = np.array([1 - config.quantile, 1 - config.quantile, 1 - config.loosest])
        searched = np.array([reals, max(generated, reals), max(generated, reals)])
        # A gap below t is k times as frequent where k times as many are searched. So that a share p
        # of the samples is a false alarm, t is the (p · reals / searched)-quantile of the gaps
        # between real images, in units of the label's own median gap.
        gap = lower_quantile(relative, alarms * reals / searched) * scale.get(group, common)
        # Equal images count as alike whatever the reals are, and unlike ones never do.
        similarity = (1.0 - gap.clip(ROUNDING, 1.0)).tolist()
        for kind, least in zip(("memorised", "duplicates", "loosest"), similarity, strict=True):
            getattr(thresholds, kind)[group] = least
    return thresholds


def _pairs(
    rows: np.ndarray, queries: int, vectors: np.ndarray, loosest: float, config: NeighbourConfig
) -> Pairs:
    """The pairs of pool rows that connect a label's near-duplicates, lower row first.

    Equal vectors are paired before the search: a label collapsed to one image would otherwise
    have as many pairs as the square of its samples.
    """
    first = _first_equal(vectors)
    copies = np.flatnonzero(first != np.arange(len(rows)))
    kept = np.flatnonzero(first == np.arange(len(rows)))

    def blocks() -> Iterator[Pairs]:
        squares = np.einsum("nd,nd->n", vectors[copies], vectors[copies])
        yield first[copies], copies, similarities(squares)
        within = near_pairs(vectors[kept], int((kept < queries).sum()), loosest, config.exact_up_to)
        for a, b, product in within:
            yield kept[a], kept[b], similarities(product)

    a, b, similarity = spanning_pairs(blocks(), len(rows))
    return np.minimum(rows[a], rows[b]), np.maximum(rows[a], rows[b]), similarity


def _first_equal(vectors: np.ndarray) -> np.ndarray:
    """The first row int64 `[n]` with a vector equal to each."""
    bytes_of = np.ascontiguousarray(vectors.astype(np.int16))
    whole = bytes_of.view(np.dtype((np.void, bytes_of.shape[1] * 2))).ravel()
    _, first, inverse = np.unique(whole, return_index=True, return_inverse=True)
    return first[inverse]


def _within(groups: np.ndarray, group: int, reach: int) -> np.ndarray:
    return np.flatnonzero(np.abs(groups - group) <= reach)


def _middle(values: np.ndarray) -> float:
    return max(float(np.median(values)), 1e-6) if len(values) else 1.0


def _read(features: Features, rows: np.ndarray, key: np.ndarray) -> np.ndarray:
    read = np.asarray(features[rows])
    wrong = rows[~np.isfinite(read).all(1)]
    if wrong.size:
        raise BadInput(
            f"neighbours: the features of key {key[wrong[0]]} and {wrong.size - 1:,} more of its "
            "label are NaN or infinite; score again, or leave failed samples out"
        )
    return read


def _check(key: np.ndarray, labels: np.ndarray, features: Features, real: RealFeatures) -> None:
    lengths = (len(key), len(labels), len(features))
    if len(set(lengths)) != 1 or not len(key):
        raise BadInput(
            f"neighbours: {lengths[0]:,} keys, {lengths[1]:,} labels and {lengths[2]:,} features "
            "of generated samples; expected as many of each, and one at least"
        )
    if len(real.labels) != len(real.features) or not 0 < real.train <= len(real.labels):
        raise BadInput(
            f"neighbours: {len(real.features):,} features, {len(real.labels):,} labels and "
            f"{real.train:,} training images; expected a label each and a training image"
        )
    if (np.diff(key) <= 0).any():
        raise BadInput("neighbours: keys are not ascending; read the tables with read_numbered")
