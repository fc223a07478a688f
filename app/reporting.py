"""Gathers what the report shows: evaluates the students on the test split and reads the run."""

import json
import resource
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from app.context import Context, Facts
from app.recipe import recipe_yaml
from app.report import (
    ArmResult,
    Curve,
    ImageGrid,
    ReportFacts,
    TeacherFacts,
    report_json,
    write_report,
)
from app.students import TrainedArm
from shardset.files import derive_seed
from shardset.tables import read_numbered, read_table
from student.arms import ARMS
from student.evaluate import accuracy, outputs_of
from student.networks import load_network

SHOWN_PER_CLASS = 5  # images of each class in a grid of reals or kept samples
SHOWN_PER_REASON = 50


def write(ctx: Context, arms: Mapping[str, TrainedArm], advice: Sequence[str]) -> Facts:
    """What `report.json` says, after the test split was opened once for all of it."""
    pixels, labels = ctx.data.open_test(ctx.run, by="report")

    def right(module: Callable[[torch.Tensor], torch.Tensor]) -> float:
        outputs = outputs_of(module, pixels, device=ctx.device, precision=ctx.precision)
        return accuracy(outputs, labels)

    results = {}
    with ctx.console.task("test images") as progress:
        for number, (name, arm) in enumerate(arms.items()):
            progress(number, len(arms), {})
            results[name] = ArmResult(
                values=tuple(right(load_network(folder)[0]) for folder in arm.folders),
                steps=arm.steps,
                images_seen=arm.images_seen,
                learning_rate=arm.lr,
                validation=float(np.mean(arm.validation)),
                note=_note(ctx, name),
            )
    teacher = ctx.run.stage_facts("teacher")
    module = ctx.teacher_loader()
    selection = read_table(ctx.run.selections / "cgan-kd.parquet")
    scores = read_numbered(ctx.run.scores, ("density_ratio", "teacher_error"))
    ratio = ctx.run.stage_facts("ratio")
    kept, dropped = _decisions(selection, ctx.classes)
    facts = ReportFacts(
        title=ctx.recipe.name,
        task=ctx.recipe.task,
        arms=results,
        teacher=TeacherFacts(
            name=teacher["network"],
            data=teacher["data"],
            test=right(module),
            validation=teacher["validation_accuracy"],
        ),
        class_names=ctx.reals.space.names,
        kept=kept,
        dropped=dropped,
        density_ratio=scores["density_ratio"].to_numpy().astype(np.float64),
        teacher_error=scores["teacher_error"].to_numpy().astype(np.float64),
        was_kept=selection["kept"].to_numpy(),
        ratio_diagnostics=tuple(ratio["per_label"]),
        ratio_problems=tuple(ratio["problems"]),
        curves=tuple(_curves(ctx, arms)),
        grids=tuple(_grids(ctx, selection)),
        seconds=ctx.run.facts().get("seconds", {}),
        peak_memory_bytes=peak_memory_bytes(ctx.workers),
        run=ctx.run.facts(),
        recipe=recipe_yaml(ctx.recipe),
        warnings=tuple(advice),
    )
    write_report(ctx.run.report, facts)
    _print_table(ctx, facts)
    return report_json(facts)


def peak_memory_bytes(workers: int) -> int:
    """An upper bound of what this process and its workers held at once, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    own, children = (
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return (own + workers * children) * unit


def _note(ctx: Context, name: str) -> str:
    notes = []
    if name == "all-real":
        notes.append("every real training image, beyond the budget")
    if ARMS[name].compute == 2:
        notes.append("twice the steps, as an arm that fine-tunes sees")
    subsamples = ARMS[name].selection not in (None, "raw")
    if subsamples and ctx.run.stage_facts("ratio")["problems"]:
        notes.append("density ratio refused: every sample accepted")
    return "; ".join(notes)


def _decisions(
    selection: pa.Table, classes: int
) -> tuple[tuple[int, ...], dict[str, tuple[int, ...]]]:
    """Samples kept, and dropped by reason, per class."""
    label = selection["original_label"].to_numpy()
    reason = np.asarray(selection["reason"].fill_null("").to_pylist())

    def per_class(chosen: np.ndarray) -> tuple[int, ...]:
        return tuple(np.bincount(label[chosen], minlength=classes).tolist())

    dropped = {str(r): per_class(reason == r) for r in np.unique(reason) if r}
    return per_class(reason == ""), dropped


def _curves(ctx: Context, arms: Mapping[str, TrainedArm]) -> list[Curve]:
    curves = []
    for stage, folder, names in (
        ("teacher: training loss", ctx.run.teacher, ("loss",)),
        ("generator: losses", ctx.run.generator, ("loss_d", "loss_g")),
    ):
        rows = _rows(folder / "metrics.jsonl")
        for name in names:
            curves += _curve(stage, name, rows, name)
    for arm, trained in arms.items():
        rows = _rows(trained.folders[0] / "metrics.jsonl")
        curves += _curve("students: validation accuracy, %", arm, rows, "accuracy")
    return curves


def _curve(stage: str, series: str, rows: Sequence[Facts], name: str) -> list[Curve]:
    points = [(row["step"], row[name]) for row in rows if name in row]
    if not points:
        return []
    x, y = np.array(points, dtype=np.float64).T
    return [Curve(stage, series, x, y)]


def _rows(path: Path) -> list[Facts]:
    return (
        [json.loads(line) for line in path.read_text("utf-8").splitlines()]
        if path.is_file()
        else []
    )


def _grids(ctx: Context, selection: pa.Table) -> list[ImageGrid]:
    pool = np.load(ctx.run.students / "arrays" / "pool_pixels.npy", mmap_mode="r")
    random = np.random.default_rng(derive_seed(ctx.recipe.seed, "report"))
    label = selection["original_label"].to_numpy()
    reason = np.asarray(selection["reason"].fill_null("").to_pylist())
    data = ctx.data
    shown = min(ctx.classes, 10)

    def per_class(labels: np.ndarray, chosen: np.ndarray) -> np.ndarray:
        """Random indices, a class a column."""
        picked = [random.permutation(np.flatnonzero(chosen & (labels == c))) for c in range(shown)]
        rows = min(SHOWN_PER_CLASS, *(len(p) for p in picked))
        return np.array([p[:rows] for p in picked], dtype=np.int64).T.ravel()

    real = per_class(data.train_labels, np.ones(len(data.train_labels), bool))
    grids = [
        ImageGrid("real", data.train_pixels[real], "real training images, a class a column", shown),
        ImageGrid(
            "kept", pool[per_class(label, reason == "")], "kept, at random, a class a column", shown
        ),
    ]
    for name in sorted(set(reason.tolist()) - {""}):
        some = random.permutation(np.flatnonzero(reason == name))[:SHOWN_PER_REASON]
        some = some[np.argsort(label[some], kind="stable")]
        grids.append(ImageGrid(f"dropped: {name}", pool[some], f"dropped for {name}, at random"))
    return [grid for grid in grids if len(grid.pixels)]


def _print_table(ctx: Context, facts: ReportFacts) -> None:
    rows = [
        [
            name,
            f"{arm.mean:.2f}" + (f" ± {arm.std:.2f}" if arm.std is not None else ""),
            f"{arm.steps:,}",
            f"{arm.images_seen:,}",
            arm.note,
        ]
        for name, arm in facts.arms.items()
    ]
    ctx.console.table(
        f"{facts.title}: test accuracy in percent, teacher {facts.teacher.test:.2f} "
        f"(trained on: {facts.teacher.data})",
        ["arm", "accuracy", "steps", "images seen", ""],
        rows,
    )
