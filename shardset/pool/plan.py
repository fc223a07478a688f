"""The plan of a pool: which keys get which label, in rounds that are only ever appended to."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, ValidationError, model_validator

from cgankd.shardset.errors import BadInput, CorruptShard
from cgankd.shardset.files import write_json
from cgankd.shardset.identity import KEYS
from cgankd.shardset.records import Record

PLAN_VERSION = 1

PerLabel = Mapping[int, int] | Mapping[float, int] | Mapping[int | float, int]


class Segment(Record, allow_inf_nan=False):
    """`count` keys from `first_key` on, all with one label: an int class, or a float."""

    label: int | float
    first_key: int = Field(ge=0)
    count: int = Field(gt=0)


@dataclass(frozen=True)
class ShardSpec:
    """One shard: its number and its `count` keys from `first_key` on."""

    index: int
    first_key: int
    count: int


class Plan(Record):
    """All that fixes a pool's bytes on one device type and set of library versions."""

    version: int = Field(default=PLAN_VERSION, ge=PLAN_VERSION, le=PLAN_VERSION)
    seed: int = Field(ge=0)
    pool_id: str
    shard_size: int = Field(gt=0)  # samples
    batch: int = Field(gt=0)  # every batch is padded to this size: it changes float bytes
    threads: int = Field(gt=0)  # intra-operator threads: they change float bytes
    precision: Literal["float32", "bfloat16"]
    rounds: tuple[tuple[Segment, ...], ...]

    @model_validator(mode="after")
    def _keys_are_contiguous(self) -> "Plan":
        key = 0
        for segment in self._segments:
            if segment.first_key != key:
                raise ValueError(f"a segment starts at key {segment.first_key}, expected {key}")
            key += segment.count
        if key > KEYS:
            raise ValueError(f"{key} samples planned, a pool holds at most {KEYS}")
        if len({type(segment.label) for segment in self._segments}) > 1:
            raise ValueError("labels are both int and float, expected classes or numbers")
        return self

    @cached_property
    def _segments(self) -> tuple[Segment, ...]:
        return tuple(segment for segments in self.rounds for segment in segments)

    @property
    def count(self) -> int:
        """The number of samples planned so far, which is also the next free key."""
        return sum(segment.count for segment in self._segments)

    @property
    def planned(self) -> dict[int | float, int]:
        """The number of samples planned so far for each label."""
        counts: dict[int | float, int] = {}
        for segment in self._segments:
            counts[segment.label] = counts.get(segment.label, 0) + segment.count
        return counts

    @cached_property
    def shards(self) -> tuple[ShardSpec, ...]:
        """Every shard in order; a round starts a new one, so a top-up leaves the old ones alone."""
        shards: list[ShardSpec] = []
        for segments in self.rounds:
            key, end = segments[0].first_key, segments[-1].first_key + segments[-1].count
            while key < end:
                count = min(self.shard_size, end - key)
                shards.append(ShardSpec(len(shards), key, count))
                key += count
        return tuple(shards)

    def labels(self, spec: ShardSpec) -> np.ndarray:
        """The labels of a shard's keys, `[count]`: int64 classes, or float64."""
        first_keys, labels = self._first_keys_and_labels
        keys = np.arange(spec.first_key, spec.first_key + spec.count)
        return labels[np.searchsorted(first_keys, keys, side="right") - 1]

    @cached_property
    def _first_keys_and_labels(self) -> tuple[np.ndarray, np.ndarray]:
        # As arrays: with continuous labels there are as many segments as labels, in thousands.
        first_keys = np.array([segment.first_key for segment in self._segments], np.int64)
        return first_keys, np.array([segment.label for segment in self._segments])

    def in_first_round(self, keys: np.ndarray) -> np.ndarray:
        """Bool `[n]`: which keys the first round holds. Bounds and quantiles are fitted on these
        alone, so that a top-up never revokes a kept sample.
        """
        return np.asarray(keys) < sum(segment.count for segment in self.rounds[0])

    def topped_up(self, per_label: PerLabel) -> "Plan":
        """The same plan and one more round of `per_label[label]` samples; nothing is renumbered."""
        segments: list[Segment] = []
        key = self.count
        for label, count in sorted(per_label.items()):
            if count < 0:
                raise BadInput(f"label {label}: {count} samples asked for, expected 0 or more")
            if count:
                value = float(label) if isinstance(label, float | np.floating) else int(label)
                segments.append(Segment(label=value, first_key=key, count=int(count)))
                key += int(count)
        if not segments:
            raise BadInput("a round without samples was planned; ask for at least one")
        if key > KEYS:
            raise BadInput(f"{key} samples planned, a pool holds at most {KEYS}; ask for fewer")
        # Not model_copy: it would carry the cached `shards` along, unvalidated.
        fields = {name: getattr(self, name) for name in Plan.model_fields}
        return Plan(**{**fields, "rounds": (*self.rounds, tuple(segments))})


def make_plan(
    *,
    seed: int,
    pool_id: str,
    shard_size: int,
    batch: int,
    threads: int,
    precision: Literal["float32", "bfloat16"],
    per_label: PerLabel,
) -> Plan:
    """The plan of a new pool with `per_label[label]` samples of each label."""
    empty = Plan(
        seed=seed,
        pool_id=pool_id,
        shard_size=shard_size,
        batch=batch,
        threads=threads,
        precision=precision,
        rounds=(),
    )
    return empty.topped_up(per_label)


def write_plan(path: Path, plan: Plan) -> None:
    """Writes `plan.json` atomically."""
    write_json(path, plan.model_dump(mode="json"))


def read_plan(path: Path) -> Plan:
    """The plan of a `plan.json`; `BadInput` where there is none, `CorruptShard` if it is broken."""
    if not path.is_file():
        raise BadInput(f"{path} is missing: no pool was planned here; run produce first")
    try:
        return Plan.model_validate_json(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "plan"
        raise CorruptShard(
            f"{path} is not a plan of version {PLAN_VERSION} ({place}: {first['msg']}); "
            "remove the pool folder and run produce again"
        ) from error
