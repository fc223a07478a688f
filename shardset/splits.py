"""Real images split once, by content: train, validation, beyond the budget, and test."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field, model_validator

from cgankd.shardset.errors import SourceError
from cgankd.shardset.labels import ContinuousLabels
from cgankd.shardset.records import Record
from cgankd.shardset.sources.read import RealImages

if TYPE_CHECKING:
    from cgankd.shardset.pool.run_folder import RunFolder


class Budget(Record):
    """How many labelled real images a run may use, training and validation together."""

    per_class: int | None = Field(
        default=None, ge=2, description="images of each class; null: no limit"
    )
    total: int | None = Field(
        default=None, ge=4, description="images of all classes; null: no limit"
    )
    validation_fraction: float = Field(
        default=0.2, gt=0, le=0.5, description="of the budget, per class"
    )
    test_fraction: float = Field(
        default=0.2,
        gt=0,
        lt=1,
        description="of each class, where the source has no test split of its own",
    )
    prior: Literal["keep", "balanced"] = Field(
        default="keep", description="share a total out as the classes occur, or evenly"
    )

    @model_validator(mode="after")
    def _one_limit(self) -> Budget:
        if self.per_class is not None and self.total is not None:
            raise ValueError("give budget.per_class or budget.total, not both")
        return self


@dataclass(frozen=True)
class RealSplit:
    """Sorted int64 indices into the real images; no two parts share an image or its double, and
    neither test nor validation images share an origin with an image of another part.
    """

    train: np.ndarray
    validation: np.ndarray
    outside: np.ndarray
    """neither test nor within the budget (and of no origin that validates)"""
    test: np.ndarray
    duplicates: int
    """images left out because another image has the same pixels"""
    seed: int


def split_reals(reals: RealImages, budget: Budget, seed: int) -> RealSplit:
    """The split of the images' content under a seed, stratified by class.

    Images stand in the order of sha256(seed, pixel hash): the first of a class are its test images
    (where the source marks none), then the budget's, of which every so many-th validates: each
    part of a larger budget contains that part of a smaller one. Where pixels occur twice one image
    stays, and none beside a test image. Continuous labels are one class, in which origins are
    ranked and whole origins tested and validated. Raises `SourceError` for a budget above what
    exists, and for a class too small to be split.
    """
    is_test = np.zeros(len(reals.labels), bool) if reals.is_test is None else reals.is_test
    distinct = _distinct(reals, is_test)
    if isinstance(reals.space, ContinuousLabels):
        return _split_origins(reals, distinct, is_test, budget, seed)
    pools = [
        _shuffled(reals, distinct[reals.labels[distinct] == label], seed)
        for label in range(len(reals.space.names))
    ]
    tests = [np.flatnonzero(is_test)]
    if reals.is_test is None:
        tests = [pool[: max(1, round(len(pool) * budget.test_fraction))] for pool in pools]
        pools = [pool[len(test) :] for pool, test in zip(pools, tests, strict=True)]
    train, validation, outside = [], [], []
    wanted = _shares(reals, [len(pool) for pool in pools], budget)
    for pool, count in zip(pools, wanted, strict=True):
        validates = _every_so_many(count, budget.validation_fraction)
        validation.append(pool[:count][validates])
        train.append(pool[:count][~validates])
        outside.append(pool[count:])
    return RealSplit(
        train=_joined(train),
        validation=_joined(validation),
        outside=_joined(outside),
        test=_joined(tests),
        duplicates=int((~is_test).sum()) - len(distinct),
        seed=seed,
    )


def _split_origins(
    reals: RealImages, distinct: np.ndarray, is_test: np.ndarray, budget: Budget, seed: int
) -> RealSplit:
    """The split of images with continuous labels, by what they were derived from.

    The budget takes an image of every origin before it takes a second of any.
    """
    if budget.per_class is not None:
        raise SourceError(f"{reals.spec}: budget.per_class needs classes; give budget.total")
    if budget.prior == "balanced":
        raise SourceError(f"{reals.spec}: budget.prior: balanced needs classes; set it to keep")
    origins = reals.origins or reals.pixel_hashes
    ranked = sorted({origins[i] for i in distinct}, key=lambda origin: _rank(seed, origin))
    if reals.is_test is None:
        tested = set(ranked[: max(1, round(len(ranked) * budget.test_fraction))])
        test = np.array([i for i in distinct if origins[i] in tested], np.int64)
    else:
        test = np.flatnonzero(is_test)
        tested = {origins[i] for i in test}
    ranked = [origin for origin in ranked if origin not in tested]
    rows: dict[str, list[int]] = {origin: [] for origin in ranked}
    for i in _shuffled(reals, distinct, seed).tolist():
        if origins[i] in rows:
            rows[origins[i]].append(i)
    rounds = zip_longest(*rows.values())
    pool = [i for images in rounds for i in images if i is not None]
    count = len(pool) if budget.total is None else budget.total
    _check_total(reals, count, len(pool))
    places = _every_so_many(len(ranked), budget.validation_fraction)
    validating = {origin for origin, taken in zip(ranked, places, strict=True) if taken}
    validating &= {origins[i] for i in pool[:count]}
    validates = np.array([origins[i] in validating for i in pool], bool)
    chosen = np.arange(len(pool)) < count
    images = np.array(pool, np.int64)
    train = _joined([images[chosen & ~validates]])
    different = len(np.unique(reals.labels[train]))
    if different < 2:
        raise SourceError(
            f"{reals.spec}: the {len(train)} images to train on have {different} different labels, "
            "expected at least 2; add images or raise the budget"
        )
    return RealSplit(
        train=train,
        validation=_joined([images[chosen & validates]]),
        outside=_joined([images[~chosen & ~validates]]),
        test=_joined([test]),
        duplicates=int((~is_test).sum()) - len(distinct),
        seed=seed,
    )


@dataclass(frozen=True)
class RealData:
    """Real images with their split; pixels uint8 `[n, c, h, w]`, labels `[n]`: int64 classes, or
    float64 in their unit.
    """

    reals: RealImages
    split: RealSplit

    @cached_property
    def all_train(self) -> np.ndarray:
        """Indices of every image that may be trained on without a budget: train and outside.

        Validation images stay out, so that choices made on them stay honest.
        """
        return _joined([self.split.train, self.split.outside])

    @cached_property
    def train_pixels(self) -> np.ndarray:
        return self.reals.pixels[self.split.train]

    @property
    def train_labels(self) -> np.ndarray:
        return self.reals.labels[self.split.train]

    @cached_property
    def validation_pixels(self) -> np.ndarray:
        return self.reals.pixels[self.split.validation]

    @property
    def validation_labels(self) -> np.ndarray:
        return self.reals.labels[self.split.validation]

    @cached_property
    def outside_pixels(self) -> np.ndarray:
        return self.reals.pixels[self.split.outside]

    @property
    def outside_labels(self) -> np.ndarray:
        return self.reals.labels[self.split.outside]

    @cached_property
    def all_train_pixels(self) -> np.ndarray:
        return self.reals.pixels[self.all_train]

    @property
    def all_train_labels(self) -> np.ndarray:
        return self.reals.labels[self.all_train]

    def open_test(self, run: RunFolder, by: str = "evaluate") -> tuple[np.ndarray, np.ndarray]:
        """The test pixels and labels, after the opening was counted in run.json."""
        run.count_test_opening(by)
        return self.reals.pixels[self.split.test], self.reals.labels[self.split.test]


def _distinct(reals: RealImages, is_test: np.ndarray) -> np.ndarray:
    """Indices of one image per pixel content, none of which a marked test image shows."""
    hashes = reals.pixel_hashes
    seen = {hashes[i] for i in np.flatnonzero(is_test)}
    kept = []
    # The lowest label stays where equal pixels have two: a choice that no file order can change.
    for i in np.lexsort((reals.labels, np.array(hashes))):
        if not is_test[i] and hashes[i] not in seen:
            seen.add(hashes[i])
            kept.append(i)
    return np.array(kept, np.int64)


def _shuffled(reals: RealImages, indices: np.ndarray, seed: int) -> np.ndarray:
    ranked = sorted(indices.tolist(), key=lambda i: _rank(seed, reals.pixel_hashes[i]))
    return np.array(ranked, np.int64)


def _rank(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}/{name}".encode()).digest()


def _every_so_many(count: int, fraction: float) -> np.ndarray:
    """Bool `[count]`: ceil(n · fraction) of the first n places are taken, for every n."""
    taken = np.ceil(np.arange(count + 1) * fraction - 1e-9)  # 100 × 0.07 is 7.000000000000001
    return np.diff(taken) > 0


def _shares(reals: RealImages, available: list[int], budget: Budget) -> list[int]:
    """How many images of each class the budget takes of those that are available."""
    names = reals.space.group_names
    classes = [
        f"{reals.spec}: class {name!r} ({label + 1} of {len(names)})"
        for label, name in enumerate(names)
    ]
    for which, most in zip(classes, available, strict=True):
        if most < 2:
            raise SourceError(
                f"{which} has {most} distinct images beside its test images, "
                "expected at least 2 (one to train on, one to validate); add images"
            )
    if budget.per_class is not None:
        shares = [budget.per_class] * len(available)
    elif budget.total is None:
        shares = list(available)
        if budget.prior == "balanced":
            shares = [min(available)] * len(available)
    else:
        _check_total(reals, budget.total, sum(available))
        balanced = budget.prior == "balanced"
        shares = _apportion(budget.total, [1] * len(available) if balanced else available)
    for which, share, most in zip(classes, shares, available, strict=True):
        if share > most:
            raise SourceError(
                f"{which} has {most} distinct images that are no test images, "
                f"the budget asks for {share}; lower the budget"
            )
        if share < 2:
            raise SourceError(
                f"{which} gets {share} of budget.total {budget.total}, expected at least 2 "
                "(one to train on, one to validate); raise the budget or set prior: balanced"
            )
    return shares


def _check_total(reals: RealImages, total: int, available: int) -> None:
    if total > available:
        raise SourceError(
            f"{reals.spec}: budget.total {total} is above the {available} distinct "
            "images that are no test images; lower it"
        )


def _apportion(total: int, weights: list[int]) -> list[int]:
    """Integers in proportion to the weights that sum to the total (largest remainders)."""
    whole = [total * weight // sum(weights) for weight in weights]
    remainders = [total * weight % sum(weights) for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda i: (-remainders[i], i))
    for i in by_remainder[: total - sum(whole)]:
        whole[i] += 1
    return whole


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.sort(np.concatenate(parts)).astype(np.int64)
