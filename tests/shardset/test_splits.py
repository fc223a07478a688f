"""Splits: who is in which part, decided by content and seed alone."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cgankd.shardset.errors import SourceError
from cgankd.shardset.labels import ClassLabels, ContinuousLabels
from cgankd.shardset.sources.read import RealImages
from cgankd.shardset.splits import Budget, RealData, RealSplit, split_reals

PARTS = ("train", "validation", "outside", "test")


def make_reals(
    counts: list[int], *, tests: list[int] | None = None, copies: Sequence[tuple[int, int]] = ()
) -> RealImages:
    """Distinct 8 px images, `counts` (and `tests` marked ones) per class; `copies` are repeated."""
    labels = np.repeat(np.arange(len(counts)), counts)
    is_test = np.zeros(len(labels), bool)
    if tests is not None:
        labels = np.concatenate([labels, np.repeat(np.arange(len(tests)), tests)])
        is_test = np.arange(len(labels)) >= sum(counts)
    pixels = np.zeros((len(labels), 1, 8, 8), np.uint8)
    numbers = np.arange(len(labels)).astype("<u4")
    pixels.reshape(len(labels), -1)[:, :4] = numbers.view(np.uint8).reshape(-1, 4)
    for source, target in copies:
        pixels[target] = pixels[source]
    return RealImages(
        pixels=pixels,
        labels=labels.astype(np.int64),
        space=ClassLabels(names=tuple(f"class-{i}" for i in range(len(counts)))),
        is_test=None if tests is None else is_test,
        ids=tuple(map(str, range(len(labels)))),
        rejected=(),
        cropped=0,
        spec="test",
        revision=None,
    )


def shuffled(reals: RealImages, order: np.ndarray) -> RealImages:
    return replace(
        reals,
        pixels=reals.pixels[order],
        labels=reals.labels[order],
        is_test=None if reals.is_test is None else reals.is_test[order],
        ids=tuple(reals.ids[i] for i in order),
    )


def ids_of(reals: RealImages, split: RealSplit) -> dict[str, set[str]]:
    return {part: {reals.ids[i] for i in getattr(split, part)} for part in PARTS}


def per_class(reals: RealImages, indices: np.ndarray) -> list[int]:
    return [
        int((reals.labels[indices] == label).sum()) for label in range(len(reals.space.group_names))
    ]


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(5, 30), min_size=2, max_size=4),
    with_tests=st.booleans(),
    prior=st.sampled_from(["keep", "balanced"]),
    seed=st.integers(0, 2**40),
    data=st.data(),
)
def test_parts_are_disjoint_complete_and_do_not_depend_on_file_order(
    counts: list[int],
    with_tests: bool,
    prior: Literal["keep", "balanced"],
    seed: int,
    data: st.DataObject,
) -> None:
    """Any order of the same images gives the same parts, and every distinct image one part."""
    reals = make_reals(counts, tests=[2] * len(counts) if with_tests else None)
    budget = Budget(prior=prior)
    split = split_reals(reals, budget, seed)
    order = np.array(data.draw(st.permutations(range(len(reals.labels)))))
    again = shuffled(reals, order)

    assert ids_of(reals, split) == ids_of(again, split_reals(again, budget, seed))
    every = np.concatenate([getattr(split, part) for part in PARTS])
    assert sorted(every.tolist()) == list(range(len(reals.labels)))
    for part in PARTS:
        indices = getattr(split, part)
        assert indices.dtype == np.int64
        assert (np.diff(indices) > 0).all()
    assert min(per_class(reals, split.train)) >= 1
    assert min(per_class(reals, split.validation)) >= 1


def test_budget_per_class_is_shared_by_training_and_validation() -> None:
    """20 of each class at a fifth: 16 to train on, 4 to validate, the rest outside or test."""
    reals = make_reals([50, 80, 30])
    split = split_reals(reals, Budget(per_class=20, test_fraction=0.1), seed=3)

    assert per_class(reals, split.train) == [16, 16, 16]
    assert per_class(reals, split.validation) == [4, 4, 4]
    assert per_class(reals, split.test) == [5, 8, 3]
    assert per_class(reals, split.outside) == [25, 52, 7]


def test_total_budget_keeps_the_prior_or_balances_it() -> None:
    """A total is shared out as the classes occur, by largest remainders, or evenly."""
    reals = make_reals([60, 30, 10], tests=[1, 1, 1])
    kept = split_reals(reals, Budget(total=25), seed=0)
    even = split_reals(reals, Budget(total=25, prior="balanced"), seed=0)

    # 15, 7.5 and 2.5: the one left over goes to the first of equal remainders.
    assert per_class(reals, np.concatenate([kept.train, kept.validation])) == [15, 8, 2]
    assert per_class(reals, np.concatenate([even.train, even.validation])) == [9, 8, 8]


def test_without_a_budget_everything_is_used_or_the_smallest_class_sets_the_pace() -> None:
    """prior: balanced without a limit takes as many of each class as the smallest has."""
    reals = make_reals([20, 12, 10], tests=[1, 1, 1])
    every = split_reals(reals, Budget(), seed=0)
    even = split_reals(reals, Budget(prior="balanced"), seed=0)

    assert every.outside.size == 0
    assert per_class(reals, np.concatenate([even.train, even.validation])) == [10, 10, 10]
    assert per_class(reals, even.outside) == [10, 2, 0]


def test_the_marked_test_split_is_kept_whole() -> None:
    """The source's own test images are the test split, duplicates among them included."""
    reals = make_reals([10, 10], tests=[4, 3], copies=[(20, 21)])
    split = split_reals(reals, Budget(per_class=6), seed=1)

    assert split.test.tolist() == list(range(20, 27))
    assert split.duplicates == 0


def test_a_duplicate_of_a_test_image_is_in_no_other_part() -> None:
    """Where a training file shows a marked test image, it is left out and counted."""
    reals = make_reals([10, 10], tests=[4, 3], copies=[(20, 0), (20, 1), (25, 12)])
    split = split_reals(reals, Budget(), seed=1)
    used = np.concatenate([split.train, split.validation, split.outside])

    assert split.duplicates == 3
    assert {0, 1, 12}.isdisjoint(used.tolist())


@pytest.mark.parametrize("seed", range(8))
def test_of_equal_pixels_one_stays_whatever_part_it_falls_into(seed: int) -> None:
    """Without a marked test split no two parts ever show the same pixels."""
    reals = make_reals([12, 12], copies=[(0, 5), (0, 7), (3, 20)])
    split = split_reals(reals, Budget(), seed)
    shown = [reals.pixel_hashes[i] for part in PARTS for i in getattr(split, part)]

    assert max(Counter(shown).values()) == 1
    assert (len(shown), split.duplicates) == (21, 3)
    # 3 and 20 have one picture and two labels; the lower label stays in every order.
    assert reals.labels[[i for p in PARTS for i in getattr(split, p) if i in (3, 20)]].tolist() == [
        0
    ]


def test_a_larger_budget_contains_a_smaller_one_part_by_part() -> None:
    """A curve over budgets compares growing sets, not different ones; the test split stays."""
    reals = make_reals([200, 150])
    smaller = ids_of(reals, split_reals(reals, Budget(per_class=20), seed=5))
    for count in (21, 37, 100):
        larger = ids_of(reals, split_reals(reals, Budget(per_class=count), seed=5))

        assert smaller["train"] <= larger["train"]
        assert smaller["validation"] <= larger["validation"]
        assert smaller["test"] == larger["test"]


def test_another_seed_gives_another_split() -> None:
    """The seed moves images between parts."""
    reals = make_reals([50, 50])
    budget = Budget(per_class=10)

    assert ids_of(reals, split_reals(reals, budget, 0)) != ids_of(
        reals, split_reals(reals, budget, 1)
    )


@pytest.mark.parametrize("fraction", [0.01, 0.07, 0.2, 0.25, 0.5])
def test_the_validation_fraction_holds_for_every_class_size(fraction: float) -> None:
    """At least one image validates, at least one trains, and the fraction is rounded up."""
    for count in (2, 3, 5, 20, 100):
        reals = make_reals([count, 100], tests=[1, 1])
        split = split_reals(reals, Budget(validation_fraction=fraction), seed=0)
        exact = [-(-count * round(fraction * 100) // 100), round(fraction * 100)]

        assert exact == per_class(reals, split.validation)
        assert per_class(reals, split.train) == [count - exact[0], 100 - exact[1]]


@pytest.mark.parametrize(
    ("counts", "budget", "message"),
    [
        ([40, 9], Budget(per_class=20), r"class 'class-1' \(2 of 2\) has 9 .* asks for 20"),
        ([40, 9], Budget(total=50), r"budget.total 50 is above the 49"),
        ([40, 9], Budget(total=20, prior="balanced"), r"'class-1' .* has 9 .* asks for 10"),
        ([400, 4], Budget(total=50), r"'class-1' .* gets 0 of budget.total 50.* prior: balanced"),
        ([40, 1], Budget(), r"'class-1' .* has 1 distinct images.* at least 2"),
    ],
)
def test_a_budget_that_cannot_be_met_names_the_class_and_the_numbers(
    counts: list[int], budget: Budget, message: str
) -> None:
    """One line says which class, how many there are and how many are asked for."""
    with pytest.raises(SourceError, match=message):
        split_reals(make_reals(counts, tests=[1, 1]), budget, seed=0)


def test_a_class_that_is_used_up_by_its_test_images_is_named() -> None:
    """Two images cannot be tested on, validated on and trained on."""
    with pytest.raises(SourceError, match=r"'class-1' \(2 of 2\) has 1 distinct"):
        split_reals(make_reals([10, 2]), Budget(), seed=0)


def test_a_budget_has_one_limit_at_most() -> None:
    """per_class and total together are refused."""
    with pytest.raises(ValidationError, match="not both"):
        Budget(per_class=10, total=100)


class CountingRun:
    """Stands for the run folder: remembers who opened the test split."""

    def __init__(self) -> None:
        self.openings: list[str] = []

    def count_test_opening(self, by: str) -> None:
        self.openings.append(by)


def test_parts_come_as_pixels_and_labels_and_test_openings_are_counted() -> None:
    """Each part's arrays belong together, and only `open_test` hands out test images."""
    reals = make_reals([30, 40])
    data = RealData(reals, split_reals(reals, Budget(per_class=10), seed=2))
    run = CountingRun()
    pixels, labels = data.open_test(run)  # type: ignore[arg-type]
    data.open_test(run, by="report")  # type: ignore[arg-type]

    assert run.openings == ["evaluate", "report"]
    assert np.array_equal(pixels, reals.pixels[data.split.test])
    assert np.array_equal(labels, reals.labels[data.split.test])
    for part in ("train", "validation", "outside"):
        indices = getattr(data.split, part)
        assert np.array_equal(getattr(data, f"{part}_pixels"), reals.pixels[indices])
        assert np.array_equal(getattr(data, f"{part}_labels"), reals.labels[indices])
    assert set(data.all_train.tolist()) == {*data.split.train, *data.split.outside}
    assert np.array_equal(data.all_train_pixels, reals.pixels[data.all_train])
    assert np.array_equal(data.all_train_labels, reals.labels[data.all_train])


# --- continuous labels ---


def make_numbers(
    turns: list[int], *, origins: bool = True, tests: Sequence[int] = ()
) -> RealImages:
    """Distinct images with distinct labels, `turns[k]` of them derived from origin k; the origins
    `tests` are marked as test images.
    """
    origin = np.repeat(np.arange(len(turns)), turns)
    reals = make_reals([len(origin), 0])
    return replace(
        reals,
        labels=np.linspace(-60, 60, len(origin)),
        space=ContinuousLabels(unit="degrees", low=-60, high=60),
        origins=tuple(f"scan {k}" for k in origin) if origins else None,
        is_test=np.isin(origin, tests) if tests else None,
    )


def origins_of(reals: RealImages, indices: np.ndarray) -> Counter[str]:
    assert reals.origins is not None
    return Counter(reals.origins[i] for i in indices)


@settings(max_examples=60, deadline=None)
@given(
    turns=st.lists(st.integers(1, 4), min_size=8, max_size=30),
    marked=st.booleans(),
    total=st.one_of(st.none(), st.integers(4, 20)),
    seed=st.integers(0, 2**40),
    data=st.data(),
)
def test_all_images_of_an_origin_stay_on_one_side_of_every_split(
    turns: list[int], marked: bool, total: int | None, seed: int, data: st.DataObject
) -> None:
    """Test and validation share no origin with another part, whatever the order of the images."""
    reals = make_numbers(turns, tests=[0, 3] if marked else ())
    rest = sum(turns) - turns[0] - turns[3] if marked else sum(sorted(turns)[:6])
    budget = Budget(total=total and max(4, min(total, rest // 2)))
    split = split_reals(reals, budget, seed)
    scans = {part: set(origins_of(reals, getattr(split, part))) for part in PARTS}
    order = np.array(data.draw(st.permutations(range(len(reals.labels)))))
    assert reals.origins is not None
    again = replace(shuffled(reals, order), origins=tuple(reals.origins[i] for i in order))

    assert ids_of(reals, split) == ids_of(again, split_reals(again, budget, seed))
    assert scans["test"].isdisjoint(scans["train"] | scans["validation"] | scans["outside"])
    assert scans["validation"].isdisjoint(scans["train"] | scans["outside"])
    assert split.test.size == sum(turns[int(scan.split()[1])] for scan in scans["test"])
    used = len(split.train) + len(split.validation)
    assert budget.total is None or used == budget.total
    assert min(len(split.train), len(split.validation)) >= 1


def test_the_budget_takes_one_image_of_each_origin_before_a_second_of_any() -> None:
    """50 origins of 3 turns, 10 of them for the test: 30, then 60 of the other 120 images."""
    reals = make_numbers([3] * 50)
    for total, counts in ((30, {1: 30}), (60, {1: 20, 2: 20})):
        split = split_reals(reals, Budget(total=total), seed=0)
        used = origins_of(reals, np.concatenate([split.train, split.validation]))

        assert Counter(used.values()) == counts
        assert len(origins_of(reals, split.test)) == 10
        assert len(split.test) == 30
        # A fifth of the origins validates; their other turns are in no part.
        validating = len(origins_of(reals, split.validation))
        assert validating == len(used) // 5
        assert len(split.outside) == 120 - total - (3 * validating - len(split.validation))


def test_a_larger_total_contains_a_smaller_one_part_by_part() -> None:
    """As for classes, also where the larger one takes further turns."""
    reals = make_numbers([3] * 60)
    smaller = ids_of(reals, split_reals(reals, Budget(total=20), seed=5))
    for total in (21, 40, 100, 144):
        larger = ids_of(reals, split_reals(reals, Budget(total=total), seed=5))

        assert smaller["train"] <= larger["train"]
        assert smaller["validation"] <= larger["validation"]
        assert smaller["test"] == larger["test"]


def test_without_origins_every_image_is_its_own() -> None:
    """Numbers alone are split as one class is; doubles are left out once."""
    reals = make_numbers([1] * 100, origins=False)
    pixels = reals.pixels.copy()
    pixels[7] = pixels[9]
    reals = replace(reals, pixels=pixels)
    split = split_reals(reals, Budget(total=40, test_fraction=0.25), seed=1)

    assert [len(getattr(split, part)) for part in PARTS] == [32, 8, 34, 25]
    assert split.duplicates == 1
    assert np.bincount(np.concatenate([getattr(split, p) for p in PARTS])).max() == 1


@pytest.mark.parametrize(
    ("turns", "budget", "message"),
    [
        ([1] * 20, Budget(per_class=5), "budget.per_class needs classes; give budget.total"),
        ([1] * 20, Budget(prior="balanced"), "budget.prior: balanced needs classes"),
        ([1] * 20, Budget(total=17), "budget.total 17 is above the 16 distinct images"),
        ([1] * 3, Budget(), "the 1 images to train on have 1 different labels, expected at least"),
        ([5], Budget(), "the 0 images to train on"),
    ],
)
def test_a_budget_that_does_not_suit_numbers_is_refused(
    turns: list[int], budget: Budget, message: str
) -> None:
    """Nothing is counted by class; two different labels are the least one can train on."""
    with pytest.raises(SourceError, match=message):
        split_reals(make_numbers(turns), budget, seed=0)


def test_a_part_of_the_images_is_copied_once_however_often_it_is_asked_for() -> None:
    """Every property gives the same array; the shape of an image needs none of them."""
    reals = make_reals([30, 40])
    data = RealData(reals, split_reals(reals, Budget(per_class=10), seed=2))

    for part in ("train", "validation", "outside", "all_train"):
        assert getattr(data, f"{part}_pixels") is getattr(data, f"{part}_pixels")
    assert reals.image_shape == data.train_pixels.shape[1:]
