"""One way to measure: over a whole set, in each group of labels and along a continuous label.

A metric is a function of row numbers; what the rows stand for (features, logits, keys) it knows
itself. So all metrics get the same places, sample sizes, warnings and intervals.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BeforeValidator, Field, PlainSerializer

from cgankd.shardset.errors import BadInput
from cgankd.shardset.labels import ContinuousLabels, LabelSpace
from cgankd.shardset.records import Record, finite

# A number that may be NaN; None in a record's JSON, which has no NaN.
Number = Annotated[
    float,
    BeforeValidator(lambda value: math.nan if value is None else value),
    PlainSerializer(finite),
]


class MeasureConfig(Record):
    """Where to measure, and what stands beside each number."""

    small: int = Field(200, ge=2, description="fewer samples than this are warned of")
    resamples: int = Field(
        20, ge=0, description="half-samples that an interval is made of; 0: no intervals"
    )
    windows: int = Field(25, ge=2, description="windows along a continuous label")
    window_width: float = Field(1.5, gt=0, description="width of a window, in parts of the range")
    most: int = Field(
        10_000, ge=100, description="samples a side that metrics of all pairs are measured on"
    )


@dataclass(frozen=True)
class Judge:
    """What a number rests on: the judging net, its weights and the split it is measured against."""

    net: str
    sha256: str
    split: Literal["train", "validation", "train+validation"] | None  # None: the set alone
    selected: str = ""  # what it had a part in when the set was selected; empty for nothing

    def check(self, selecting_sha256: str) -> None:
        """Raises `BadInput` where the judging net is the one that selected."""
        if self.sha256 == selecting_sha256:
            raise BadInput(
                f"the net {self.net} that judges is the one that selected, which flatters what it "
                "kept; train another net on the real images"
            )


@dataclass(frozen=True)
class Metric:
    """A function of rows int64 `[n]` of the set and rows int64 `[m]` of the reference."""

    names: tuple[str, ...]  # of the numbers it gives
    of: Callable[[np.ndarray, np.ndarray], Sequence[float]]
    least: int = 1  # samples without which it has no value, on every side it looks at
    all_pairs: bool = False  # its cost grows with n·m: large sides are thinned
    halves: bool = True  # its value on half the samples varies about the same one

    @classmethod
    def alone(
        cls, name: str, of: Callable[..., float], *columns: np.ndarray, halves: bool = True
    ) -> Self:
        """A metric of the set without a reference: a function of some of the columns `[n, …]`."""
        return cls((name,), lambda a, _: [of(*(column[a] for column in columns))], halves=halves)


@dataclass(frozen=True)
class Measured:
    """One number with what it rests on."""

    metric: str
    kind: Literal["all", "group", "window"]
    place: str  # the group's name, or the window's centre with the unit; "all" for the whole set
    label: float | None  # the group, or the window's centre in the label's unit
    value: Number  # NaN where there are too few samples; the warning says so
    interval: tuple[Number, Number] | None  # 95 %
    warning: str | None
    samples: int
    references: int | None  # None for a metric that looks at one set
    judge: Judge


def measure(
    metric: Metric,
    labels: np.ndarray,
    reference_labels: np.ndarray | None,
    space: LabelSpace,
    judge: Judge,
    config: MeasureConfig,
    seed: int = 0,
) -> tuple[Measured, ...]:
    """A metric's numbers overall, for every group of labels and, where labels are continuous, in
    sliding windows; the labels `[n]` of the set and `[m]` of the reference are raw.

    Intervals are ±1.96 standard deviations over half-samples: halves drawn without replacement vary
    about as much as the whole set does (the delete-d jackknife with d = n/2, Shao & Wu, 1989),
    while a bootstrap's repeated rows would be neighbours at distance 0. Reproducible from `seed`.
    """
    if len(labels) == 0:
        raise BadInput(f"{metric.names[0]}: the set is empty; look at why nothing was kept")
    numbers: list[Measured] = []
    for index, (kind, place, label, sides) in enumerate(
        _places(labels, reference_labels, space, config)
    ):
        random = np.random.default_rng([seed, index])
        if metric.all_pairs:
            sides = tuple(_drawn(rows, config.most, random) for rows in sides)
        # Without a reference, the side that stands for it is empty and does not count.
        sizes = [len(rows) for rows in sides[: 1 if reference_labels is None else 2]]
        warning = None
        values = np.full(len(metric.names), np.nan)
        spread = None
        if min(sizes) < metric.least:
            warning = f"{_counted(sizes)}; at least {metric.least} are needed"
        else:
            try:
                values[:] = metric.of(*sides)
            except BadInput as problem:
                raise BadInput(f"{place}: {problem}") from problem
            if min(sizes) < config.small:
                warning = f"{_counted(sizes)}; below {config.small} a value is uncertain"
            if metric.halves and config.resamples > 1 and min(sizes) // 2 >= metric.least:
                halves = [
                    metric.of(*(_drawn(rows, len(rows) // 2, random) for rows in sides))
                    for _ in range(config.resamples)
                ]
                spread = 1.96 * np.std(halves, axis=0, ddof=1)
        references = None if reference_labels is None else sizes[1]
        for i, (name, value) in enumerate(zip(metric.names, values.tolist(), strict=True)):
            half_width = None if spread is None else spread[i].item()
            around = None if half_width is None else (value - half_width, value + half_width)
            numbers.append(
                Measured(
                    metric=name,
                    kind=kind,
                    place=place,
                    label=label,
                    value=value,
                    interval=around,
                    warning=warning,
                    samples=sizes[0],
                    references=references,
                    judge=judge,
                )
            )
    return tuple(numbers)


Place = tuple[Literal["all", "group", "window"], str, float | None, tuple[np.ndarray, ...]]


def _places(
    labels: np.ndarray,
    reference_labels: np.ndarray | None,
    space: LabelSpace,
    config: MeasureConfig,
) -> Iterator[Place]:
    """Every place with its rows of the set and of the reference, each ascending."""
    other = labels[:0] if reference_labels is None else reference_labels
    yield "all", "all", None, (np.arange(len(labels)), np.arange(len(other)))
    both_groups = space.group_of(labels), space.group_of(other)
    for group, name in enumerate(space.group_names):
        yield "group", name, float(group), tuple(np.flatnonzero(g == group) for g in both_groups)
    if isinstance(space, ContinuousLabels):
        # Windows that slide over the range: SFID and Label Score of CcGAN (arXiv 2011.07379).
        reach = config.window_width * space.span / space.groups / 2
        for centre in np.linspace(space.low, space.high, config.windows).tolist():
            near = (np.flatnonzero(np.abs(values - centre) <= reach) for values in (labels, other))
            yield "window", space.display(centre), centre, tuple(near)


def _drawn(rows: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    """At most `count` of the rows, without replacement, ascending."""
    return rows if len(rows) <= count else np.sort(random.choice(rows, count, replace=False))


def _counted(sizes: Sequence[int]) -> str:
    if len(sizes) == 1:
        return f"{sizes[0]:,} samples"
    return f"{sizes[0]:,} samples against {sizes[1]:,} real ones"
