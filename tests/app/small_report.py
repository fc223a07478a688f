"""Facts of small runs with every part of a report, made up."""

from dataclasses import replace

import numpy as np

from cgankd.app.pages.facts import (
    ArmResult,
    Curve,
    ImageGrid,
    LabelFacts,
    ReportFacts,
)
from cgankd.app.pages.records import AlongRecord
from cgankd.shardset.labels import ClassLabels, ContinuousLabels
from cgankd.shardset.records import TeacherResult


def facts_of_a_run() -> ReportFacts:
    """A small run with every part of a report, made up."""
    random = np.random.default_rng(0)
    steps = np.arange(400)
    return ReportFacts(
        title="digits",
        space=ClassLabels(names=("cat", "dog")),
        arms={
            "no-kd": ArmResult((80.0, 82.0, 84.0), 500, 32_000, 0.05, 83.1),
            "cgan-kd": ArmResult((83.0, 85.0, 88.0), 500, 32_000, 0.1, note="no ratio"),
        },
        teacher=TeacherResult(name="convnet-80k", data="all", test=96.0),
        kept=(30, 10),
        selection_sha256="5" * 64,
        dropped={"ratio": (10, 0), "teacher": (0, 10), "outlier": (0, 0)},
        density_ratio=np.append(np.exp(random.normal(size=57)), [0.0, 0.0, np.nan]),
        teacher_error=np.append(random.exponential(size=59), np.nan),
        was_kept=np.arange(60) < 40,
        ratio_diagnostics=({"label": 0, "mean_generated": 1.02}, {"label": 1, "largest": np.inf}),
        ratio_problems=("dog: mean ratio is 0.31",),
        curves=(
            Curve("generator: loss", "generator", steps, random.normal(size=400)),
            Curve("generator: loss", "discriminator", steps, random.normal(size=400)),
            Curve("teacher: loss", "teacher", steps, np.exp(-steps / 50) + 1e-3),
        ),
        grids=(ImageGrid("dropped: ratio", np.zeros((5, 1, 8, 8), np.uint8), "least likely"),),
        seconds={"produce": 90.0, "score": 5.0},
        peak_memory_bytes=3 * 2**29,
        run={"version": "0.1.0", "libraries": {"torch": "2.13.0"}, "seeds": [0, 1, 2]},
        recipe="seed: 0\n",
        warnings=("more seeds would help",),
    )


DEGREES = ContinuousLabels(unit="degrees", low=-60.0, high=60.0, groups=4)


def facts_of_a_continuous_run() -> ReportFacts:
    """A small run with a continuous label and every part of its report, made up."""
    random = np.random.default_rng(0)
    pool = np.linspace(-60, 60, 60)
    middles = np.array([-45.0, -15.0, 15.0, 45.0])
    return replace(
        facts_of_a_run(),
        title="rotated-digits",
        space=DEGREES,
        arms={
            "no-kd": ArmResult((6.0, 6.2, 6.4), 500, 32_000, 0.05, 6.1),
            "cgan-kd": ArmResult((3.6, 3.7, 4.1), 500, 32_000, 0.1),
        },
        teacher=TeacherResult(name="vgg19", data="all", test=1.52),
        kept=(10, 10, 10, 10),
        dropped={"ratio": (5, 0, 0, 5), "teacher": (0, 5, 5, 0)},
        ratio_diagnostics=({"label": 0, "mean_generated": 1.02},),
        ratio_problems=("−60 … −30: mean ratio is 0.31",),
        labels=LabelFacts(
            real=random.uniform(-60, 60, 30),
            pool=pool,
            kept=pool[:40] + 0.5,
            mae={"no-kd": np.array([7.0, 5.0, np.nan, 8.0]), "cgan-kd": np.full(4, 3.8)},
            fidelity=AlongRecord(
                centre=tuple(middles),
                raw=tuple(middles**2),
                kept=tuple(middles**2 / 2),
                overall=(12.3, 6.15),
                caption="features of a net",
            ),
            score=AlongRecord(
                centre=tuple(middles),
                raw=(5.0,) * 4,
                kept=(None,) * 4,
                overall=(5.0, 2.5),
                caption="its windows",
            ),
        ),
        grids=(
            ImageGrid("low to high", np.zeros((4, 1, 16, 16), np.uint8), "kept", 4, ("−60",) * 4),
        ),
    )
