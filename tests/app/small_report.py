"""Facts of small runs with every part of a report, made up."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from cgankd.app.pages.records import (
    AlongRecord,
    ArmRecord,
    Curve,
    GroupRecord,
    ImageGrid,
    LabelRecord,
    RatioDiagnostics,
    ReportFacts,
)
from cgankd.app.pages.report import report_record
from cgankd.shardset.labels import ClassLabels, ContinuousLabels, LabelSpace
from cgankd.shardset.records import TeacherResult


def arm(
    values: Sequence[float],
    steps: int = 500,
    images_seen: int = 32_000,
    learning_rate: float = 0.1,
    **more: Any,
) -> ArmRecord:
    """An arm with these values of the metric, one per seed."""
    seen = {"steps": steps, "images_seen": images_seen, "learning_rate": learning_rate}
    return ArmRecord.of(values, **seen, **more)


def groups_of(
    space: LabelSpace, kept: Sequence[int], dropped: Mapping[str, Sequence[int]]
) -> list[GroupRecord]:
    """A row for each group, from a number for each of them."""
    rows = []
    for index, name in enumerate(space.group_names[: len(kept)]):
        reasons = {reason: counts[index] for reason, counts in dropped.items()}
        pool = kept[index] + sum(reasons.values())
        acceptance = kept[index] / pool if pool else None
        row = {"name": name, "pool": pool, "kept": kept[index], "acceptance": acceptance}
        rows.append(GroupRecord(**row, dropped=reasons))
    return rows


def facts_of_a_run(**changes: Any) -> ReportFacts:
    """A small run with every part of a report, made up; with some fields of facts or record
    changed. `kept` and `dropped` are numbers for each group.
    """
    random = np.random.default_rng(0)
    steps = np.arange(400)
    values: dict[str, Any] = {
        "title": "digits",
        "space": ClassLabels(names=("cat", "dog")),
        "arms": {
            "no-kd": arm((80.0, 82.0, 84.0), learning_rate=0.05, validation=83.1),
            "cgan-kd": arm((83.0, 85.0, 88.0), note="no ratio"),
        },
        "teacher": TeacherResult(name="convnet-80k", data="all", test=96.0),
        "kept": (30, 10),
        "selection_sha256": "5" * 64,
        "dropped": {"ratio": (10, 0), "teacher": (0, 10), "outlier": (0, 0)},
        "density_ratio": np.append(np.exp(random.normal(size=57)), [0.0, 0.0, np.nan]),
        "teacher_error": np.append(random.exponential(size=59), np.nan),
        "was_kept": np.arange(60) < 40,
        "ratio": RatioDiagnostics(
            diagnostics=({"label": 0, "mean_generated": 1.02}, {"label": 1, "largest": np.inf}),
            problems=("dog: mean ratio is 0.31",),
        ),
        "curves": (
            Curve("generator: loss", "generator", steps, random.normal(size=400)),
            Curve("generator: loss", "discriminator", steps, random.normal(size=400)),
            Curve("teacher: loss", "teacher", steps, np.exp(-steps / 50) + 1e-3),
        ),
        "grids": (ImageGrid("dropped: ratio", np.zeros((5, 1, 8, 8), np.uint8), "least likely"),),
        "seconds": {"produce": 90.0, "score": 5.0},
        "peak_memory_bytes": 3 * 2**29,
        "run": {"version": "0.1.0", "libraries": {"torch": "2.13.0"}, "seeds": [0, 1, 2]},
        "recipe": "seed: 0\n",
        "warnings": ("more seeds would help",),
        **changes,
    }
    space = values["space"]
    groups = groups_of(space, values.pop("kept"), values.pop("dropped"))
    shown = {field.name for field in fields(ReportFacts)}
    besides = {name: value for name, value in values.items() if name in shown}
    # Both have labels: the record's are of each group.
    facts = {name: value for name, value in values.items() if name not in shown}
    arms, labels = facts.pop("arms"), facts.pop("label_record", None)
    return ReportFacts(report_record(space, arms, groups, labels=labels, **facts), **besides)


DEGREES = ContinuousLabels(unit="degrees", low=-60.0, high=60.0, groups=4)


def facts_of_a_continuous_run(**changes: Any) -> ReportFacts:
    """A small run with a continuous label and every part of its report, made up; changed as
    `facts_of_a_run` is.
    """
    random = np.random.default_rng(0)
    pool = np.linspace(-60, 60, 60)
    middles = np.array([-45.0, -15.0, 15.0, 45.0])
    labels = {"real": random.uniform(-60, 60, 30), "raw": pool, "kept": pool[:40] + 0.5}
    pixels = np.zeros((4, 1, 16, 16), np.uint8)
    values: dict[str, Any] = {
        "title": "rotated-digits",
        "space": DEGREES,
        "arms": {
            "no-kd": arm((6.0, 6.2, 6.4), learning_rate=0.05, validation=6.1),
            "cgan-kd": arm((3.6, 3.7, 4.1)),
        },
        "teacher": TeacherResult(name="vgg19", data="all", test=1.52),
        "kept": (10, 10, 10, 10),
        "dropped": {"ratio": (5, 0, 0, 5), "teacher": (0, 5, 5, 0)},
        "ratio": RatioDiagnostics(
            diagnostics=({"label": 0, "mean_generated": 1.02},),
            problems=("−60 … −30: mean ratio is 0.31",),
        ),
        "labels": labels,
        "label_record": LabelRecord(
            space=DEGREES,
            real=(6, 9, 8, 7),
            pool=(15, 15, 15, 15),
            kept=(15, 15, 10, 0),
            mae={"no-kd": (7.0, 5.0, None, 8.0), "cgan-kd": (3.8,) * 4},
            fidelity=AlongRecord(
                centre=tuple(middles.tolist()),
                raw=tuple((middles**2).tolist()),
                kept=tuple((middles**2 / 2).tolist()),
                overall=(12.3, 6.15),
                caption="features of a net",
            ),
            label_score=AlongRecord(
                centre=tuple(middles.tolist()),
                raw=(5.0,) * 4,
                kept=(None,) * 4,
                overall=(5.0, 2.5),
                caption="its windows",
            ),
        ),
        "grids": (ImageGrid("low to high", pixels, "kept", 4, ("−60",) * 4),),
    }
    return facts_of_a_run(**{**values, **changes})
