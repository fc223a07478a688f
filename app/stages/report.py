"""Gathers what the report shows: evaluates the students on the test split and reads the run."""

import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pyarrow as pa
import torch

from cgankd.app.context import Context, Facts
from cgankd.app.machine import peak_memory_bytes
from cgankd.app.pages.judge import along_the_label
from cgankd.app.pages.records import (
    ArmRecord,
    Curve,
    GroupRecord,
    ImageGrid,
    Kept,
    LabelRecord,
    RatioDiagnostics,
    ReportFacts,
    metric_of,
)
from cgankd.app.pages.report import report_record, write_report
from cgankd.app.recipe import recipe_yaml
from cgankd.app.stages.students import trained_students
from cgankd.nets.networks import load_network
from cgankd.shardset.files import derive_seed
from cgankd.shardset.labels import ContinuousLabels, LabelSpace
from cgankd.shardset.records import (
    RatioFacts,
    SelectionFacts,
    TeacherFacts,
    TeacherResult,
    TrainedArm,
    finite,
)
from cgankd.shardset.tables import read_numbered, read_table
from cgankd.student.evaluate import measures, outputs_of, predictions

SHOWN_PER_GROUP = 5  # images of each class or part of the range, of reals or kept samples
MOST_CLASSES = 10
SHOWN_PER_REASON = 50


def write(ctx: Context) -> Facts:
    """What `report.json` says of the trained students, after the test split was opened once for all
    of it; `BadInput` where none are trained.
    """
    students = trained_students(ctx)
    # In the recipe's order, which the record, whose keys are sorted on disk, does not keep.
    order = dict.fromkeys([*ctx.recipe.arms, *students.arms])
    arms = {name: students.arms[name] for name in order if name in students.arms}
    ctx.drop_where_redone("report")
    pixels, labels = ctx.data.open_test(ctx.run, by="report")
    metric = metric_of(ctx.space)

    def outputs(module: Callable[[torch.Tensor], torch.Tensor]) -> np.ndarray:
        return outputs_of(module, pixels, device=ctx.device, precision=ctx.precision)

    results, outputs_by_arm = {}, {}
    with ctx.console.task("test images") as progress:
        for number, (name, arm) in enumerate(arms.items()):
            progress(number, len(arms), {})
            networks = (load_network(ctx.run.path / folder)[0] for folder in arm.folders)
            outputs_by_arm[name] = [outputs(network) for network in networks]
            measured = [measures(o, labels, ctx.space) for o in outputs_by_arm[name]]
            results[name] = ArmRecord.of(
                [numbers[metric.name] for numbers in measured],
                steps=arm.steps,
                images_seen=arm.images_seen,
                learning_rate=arm.lr,
                validation=float(np.mean(arm.validation)),
                note=_note(ctx, name),
            )
    teacher, run = ctx.run.read_facts("teacher", TeacherFacts), ctx.run.facts()
    selection = read_table(ctx.run.selections / "cgan-kd.parquet")
    scores = read_numbered(ctx.run.scores, ("density_ratio", "teacher_error"))
    ratio = ctx.run.read_facts("ratio", RatioFacts)
    ctx.end_workers()  # before their memory is asked for
    along, drawn = _along_the_label(ctx, selection, labels, outputs_by_arm)
    record = report_record(
        ctx.space,
        results,
        _groups(selection, ctx.space),
        title=ctx.recipe.name,
        warnings=students.advice,
        teacher=TeacherResult(
            name=teacher.network,
            data=teacher.data,
            test=measures(outputs(ctx.teacher_loader()), labels, ctx.space)[metric.name],
            validation=teacher.validation[metric.name],
        ),
        selection_sha256=ctx.run.read_facts("selections/cgan-kd", SelectionFacts).sha256,
        ratio=RatioDiagnostics(diagnostics=ratio.per_label, problems=ratio.problems),
        seconds=run.get("seconds", {}),
        # Where stages had processes of their own, this one had no workers.
        peak_memory_bytes=peak_memory_bytes(ctx.workers)
        if ctx.lanes_bytes is None
        else peak_memory_bytes(0) + ctx.lanes_bytes,
        run=run,
        labels=along,
    )
    facts = ReportFacts(
        record,
        space=ctx.space,
        density_ratio=scores["density_ratio"].to_numpy().astype(np.float64),
        teacher_error=scores["teacher_error"].to_numpy().astype(np.float64),
        was_kept=selection["kept"].to_numpy(),
        curves=tuple(_curves(ctx, arms)),
        grids=tuple(_grids(ctx, selection)),
        recipe=recipe_yaml(ctx.recipe),
        labels=drawn,
    )
    write_report(ctx.run.report, facts)
    ctx.console.table(
        f"{record.title}: test {metric.words} in {metric.unit}, teacher "
        f"{metric.text(record.teacher.test)} (trained on: {record.teacher.data})",
        ["arm", metric.words, "steps", "images seen", ""],
        [
            [name, metric.spread(arm), f"{arm.steps:,}", f"{arm.images_seen:,}", arm.note]
            for name, arm in results.items()
        ],
    )
    return record.plain()


def _note(ctx: Context, name: str) -> str:
    notes = []
    if name == "all-real":
        notes.append("every real training image, beyond the budget")
    if ctx.recipe.arms[name].compute == 2:
        notes.append("twice the steps, as an arm that fine-tunes sees")
    subsamples = ctx.recipe.arms[name].selection not in (None, "raw")
    if subsamples and ctx.run.read_facts("ratio", RatioFacts).problems:
        notes.append("density ratio refused: every sample accepted")
    return "; ".join(notes)


def _groups(selection: pa.Table, space: LabelSpace) -> list[GroupRecord]:
    """What became of the pool's samples, per group of the label they were made for."""
    group = space.group_of(selection["original_label"].to_numpy())
    reason = _reasons(selection)
    # One row for each fate, that of the kept first; a column for each group.
    fates = sorted({"", *reason.tolist()})
    counts = np.array(
        [np.bincount(group[reason == fate], minlength=len(space.group_names)) for fate in fates]
    )
    return [
        GroupRecord(
            name=name,
            pool=sum(column),
            kept=column[0],
            dropped=dict(zip(fates[1:], column[1:], strict=True)),
            acceptance=column[0] / sum(column) if sum(column) else None,
        )
        for name, column in zip(space.group_names, counts.T.tolist(), strict=True)
    ]


def _reasons(selection: pa.Table) -> np.ndarray:
    """Why each sample was dropped, str `[n]`; empty where it was kept."""
    return np.asarray(selection["reason"].fill_null("").to_pylist())


def _curves(ctx: Context, arms: Mapping[str, TrainedArm]) -> list[Curve]:
    """What the trainings logged of their losses and, of students, of validation."""
    metric = metric_of(ctx.space)
    validation = f"students: validation {metric.words}, {metric.unit}"
    logged = [
        ("teacher: training loss", "loss", ctx.run.teacher, "loss"),
        ("generator: losses", "loss_d", ctx.run.generator, "loss_d"),
        ("generator: losses", "loss_g", ctx.run.generator, "loss_g"),
        *((validation, arm, ctx.run.path / t.folders[0], metric.name) for arm, t in arms.items()),
    ]
    curves = []
    for stage, series, folder, name in logged:
        path = folder / "metrics.jsonl"
        lines = path.read_text("utf-8").splitlines() if path.is_file() else ()
        points = [(row["step"], row[name]) for row in map(json.loads, lines) if name in row]
        if points:
            curves.append(Curve(stage, series, *np.array(points, dtype=np.float64).T))
    return curves


def _grids(ctx: Context, selection: pa.Table) -> list[ImageGrid]:
    pool = np.load(ctx.run.students / "arrays" / "pool_pixels.npy", mmap_mode="r")
    random = np.random.default_rng(derive_seed(ctx.recipe.seed, "report"))
    label = selection["original_label"].to_numpy()
    group, real_group = ctx.space.group_of(label), ctx.space.group_of(ctx.data.train_labels)
    reason = _reasons(selection)
    data = ctx.data
    continuous = isinstance(ctx.space, ContinuousLabels)
    shown = np.arange(len(ctx.space.group_names))[: None if continuous else MOST_CLASSES]
    # A part of the range may have no real images; classes all have some.
    shown = shown[np.isin(shown, real_group) & np.isin(shown, group[reason == ""])]
    axis = tuple(ctx.space.group_names[g].split()[0] for g in shown) if continuous else ()
    column = "a part of the range a column, low to high" if continuous else "a class a column"

    def per_group(groups: np.ndarray, candidates: np.ndarray) -> np.ndarray:
        """Random indices, a group a column."""
        picked = [random.permutation(np.flatnonzero(candidates & (groups == g))) for g in shown]
        rows = min((len(p) for p in picked), default=0)
        rows = min(SHOWN_PER_GROUP, rows)
        return np.array([p[:rows] for p in picked], dtype=np.int64).T.ravel()

    def grid(name: str, pixels: np.ndarray, caption: str) -> ImageGrid:
        return ImageGrid(name, pixels, f"{caption}, {column}", max(1, len(shown)), axis)

    real = per_group(real_group, np.ones(len(real_group), bool))
    grids = [
        grid("real", data.train_pixels[real], "real training images"),
        grid("kept", pool[per_group(group, reason == "")], "kept, at random"),
    ]
    for name in sorted(set(reason.tolist()) - {""}):
        some = random.permutation(np.flatnonzero(reason == name))[:SHOWN_PER_REASON]
        some = some[np.argsort(label[some], kind="stable")]
        grids.append(ImageGrid(f"dropped: {name}", pool[some], f"dropped for {name}, at random"))
    return [grid for grid in grids if len(grid.pixels)]


def _along_the_label(
    ctx: Context,
    selection: pa.Table,
    test_labels: np.ndarray,
    outputs: Mapping[str, Sequence[np.ndarray]],
) -> tuple[LabelRecord | None, dict[str, np.ndarray] | None]:
    """What there is to say along a continuous label, and the labels to be drawn: of the real images
    and of the pool, `raw` and `kept`. `outputs` are each arm's on the test images, per seed.
    """
    space = ctx.space
    if not isinstance(space, ContinuousLabels):
        return None, None
    is_kept = selection["kept"].to_numpy()
    kept = Kept(np.flatnonzero(is_kept), selection["label"].to_numpy()[is_kept])
    conditions = selection["original_label"].to_numpy()
    pixels = np.load(ctx.run.students / "arrays" / "pool_pixels.npy", mmap_mode="r")
    fidelity, score = along_the_label(ctx, pixels, conditions, kept)
    labels = {"real": ctx.data.train_labels, "raw": conditions, "kept": kept.labels}
    real, raw, final = (
        tuple(np.bincount(space.group_of(of), minlength=space.groups).tolist())
        for of in labels.values()
    )
    mae = {arm: _error_by_group(space, test_labels, o) for arm, o in outputs.items()}
    record = LabelRecord(
        space=space,
        real=real,
        pool=raw,
        kept=final,
        mae={arm: tuple(map(finite, error.tolist())) for arm, error in mae.items()},
        fidelity=fidelity,
        label_score=score,
    )
    return record, labels


def _error_by_group(
    space: ContinuousLabels, labels: np.ndarray, outputs: Sequence[np.ndarray]
) -> np.ndarray:
    """The mean error float `[groups]` over seeds, NaN for a part of the range without images."""
    error = np.mean([np.abs(predictions(o, space) - labels) for o in outputs], axis=0)
    group = space.group_of(labels)
    sums, counts = (np.bincount(group, w, minlength=space.groups) for w in (error, None))
    return np.divide(sums, counts, out=np.full(space.groups, np.nan), where=counts > 0)
