"""Opens a run and takes it through its stages."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TypedDict, Unpack

import torch

from cgankd.app.console import Console
from cgankd.app.context import Context, Facts, open_device
from cgankd.app.engine import require_backend
from cgankd.app.machine import machine_facts
from cgankd.app.recipe import Recipe, load_recipe
from cgankd.app.side_by_side import run_side_by_side, work_on
from cgankd.app.stages import STAGES
from cgankd.app.stages import release as releasing
from cgankd.app.stages.check import check as checked
from cgankd.app.stages.neighbours import needs
from cgankd.app.stages.ratio import require_ratio
from cgankd.app.stages.selections import select_one
from cgankd.curation.neighbours.search import load_faiss
from cgankd.shardset.errors import BadInput
from cgankd.shardset.labels import ContinuousLabels
from cgankd.shardset.pool.run_folder import RunFolder
from cgankd.shardset.records import RatioFacts

RUN_FORMAT = 2  # of a run folder: what its markers hold


class Options(TypedDict, total=False):
    """Where the work of a run is done, and what is done again, as `opened` takes them."""

    device: str
    workers: int | None
    backend: str
    redo: Sequence[str]


@contextmanager
def opened(
    folder: Path,
    recipe: Recipe,
    *,
    console: Console,
    device: str = "auto",
    workers: int | None = None,
    backend: str = "processes",
    redo: Sequence[str] = (),
) -> Iterator[Context]:
    """A run folder under lock, made where it is not there; what it was opened with is recorded.

    A new folder is made only after the source's images were read and split as the recipe asks.
    """
    not_redone = {stage.name: stage.not_redone for stage in STAGES}
    for name in redo:
        if name not in not_redone:
            redoable = ", ".join(stage for stage, instead in not_redone.items() if not instead)
            raise BadInput(f"--redo {name}: no such stage; the stages are {redoable}")
        if not_redone[name]:
            raise BadInput(f"--redo {name}: {not_redone[name].replace('RUN', str(folder))}")
    ctx = Context(
        run=RunFolder(folder),
        recipe=recipe,
        device=open_device(device),
        console=console,
        workers=workers or os.cpu_count() or 1,
        backend=require_backend(backend),
        redo=set(redo),
    )
    fresh = not (folder / "recipe.yaml").is_file()
    if fresh:
        describe(ctx)
        if recipe.teacher.weights is not None:
            ctx.teacher_loader()
        RunFolder.open(folder, create=True)
    with ctx.run.lock():
        if fresh:
            ctx.write_recipe()
            ctx.run.record(source=ctx.source_facts(), format_version=RUN_FORMAT)
        known = ctx.run.facts()
        if "format_version" not in known and "made_by" not in known:
            ctx.run.record(made_by=known.get("version", "an older version"))
        ctx.run.record(threads=ctx.threads, device=ctx.device.type, **machine_facts())
        torch.set_num_threads(ctx.threads)
        try:
            yield ctx
        finally:
            ctx.end_workers()


def recipe_of_run(
    folder: Path,
    recipe: str | None,
    overrides: Sequence[str],
    note: Callable[[str], None] | None = None,
) -> Recipe:
    """The recipe a run folder was made with, or the named one for a folder that is new."""
    recorded = folder / "recipe.yaml"
    if recipe is not None:
        return load_recipe(recipe, overrides, note)
    if not recorded.is_file():
        raise BadInput(f"{folder} is no run folder; begin one with --recipe NAME or `cgankd run`")
    return load_recipe(str(recorded), overrides, note)


def describe(ctx: Context) -> None:
    """Says what the source holds: rejected images are named, oblong ones counted."""
    reals, split = ctx.reals, ctx.data.split
    channels, size = reals.image_shape[:2]
    space = reals.space
    if isinstance(space, ContinuousLabels):
        what = f"labels {space.display(space.low)} to {space.display(space.high)}"
    else:
        what = f"{len(space.names)} classes"
    colours = "grey" if channels == 1 else "colour"
    ctx.console.note(
        f"{ctx.recipe.source}: {len(reals.labels):,} images, {what}, {size} px, {colours}; "
        f"{len(split.train):,} train, {len(split.validation):,} validation, "
        f"{len(split.outside):,} beyond the budget, {len(split.test):,} test"
    )
    for image in reals.rejected[:5]:
        ctx.console.note(f"left out: {image.id}: {image.reason}")
    if len(reals.rejected) > 5:
        ctx.console.note(f"left out: {len(reals.rejected) - 5} more, all in run.json")
    if reals.cropped:
        ctx.console.note(f"cropped to their centre square: {reals.cropped:,} images")


def run_all(ctx: Context) -> Facts:
    """Every stage in order; what the report says."""
    _require_this_format(ctx)
    _require_use_of_redo(ctx)
    _refuse_stale(ctx)
    *stages, last = (stage for stage in STAGES if stage.in_run)
    if ctx.backend == "processes" and ctx.workers > 1 and ctx.device.type == "cpu":
        facts = run_side_by_side(ctx, stages)
    else:
        facts = {stage.name: work_on(ctx, stage) for stage in stages}
    report = work_on(ctx, last)  # the report, which waits for all others
    release = facts["release"]
    ctx.console.note(f"release {release['folder']}: {release['accepted']:,} images")
    ctx.console.note(f"report {ctx.run.report / 'report.html'}")
    return report


def run_stage(ctx: Context, name: str) -> Facts:
    """One stage of a run; the stages before it must be done."""
    _require_this_format(ctx)
    redone = ("features", name) if name == "neighbours" else (name,)
    if other := sorted(ctx.redo - set(redone)):
        raise BadInput(
            f"--redo {other[0]}: this command redoes {' and '.join(redone)} alone; give it to the "
            f"command of {other[0]} or to `cgankd run`"
        )
    if name == "neighbours":
        require_faiss()
    (stage,) = (stage for stage in STAGES if stage.name == name)
    facts = work_on(ctx, stage)
    if name == "ratio":
        require_ratio(ctx.run.read_facts("ratio", RatioFacts))
    return facts


def _require_this_format(ctx: Context) -> None:
    """Raises `BadInput` where the run's markers are of an older form, which stages cannot follow;
    what only reads a run, and releasing it, works on those too.
    """
    known = ctx.run.facts()
    if known.get("format_version", 1) != RUN_FORMAT:
        raise BadInput(
            f"{ctx.run.path} was made by cgankd {known['made_by']}, whose stages this version "
            "cannot continue; finish it with that version or begin a new run folder"
        )


def _refuse_stale(ctx: Context) -> None:
    """Raises `StaleStage` where what is done already says so: before hours of other stages."""
    done: set[str] = set()
    for stage in STAGES:
        if stage.fields is None or stage.name in ctx.redo or not done >= set(stage.inputs):
            continue
        if ctx.run.stage_is_done(stage.name, stage.fields(ctx)):
            done.add(stage.name)


def _require_use_of_redo(ctx: Context) -> None:
    """Raises `BadInput` where a whole run could not do what is asked, before its first stage."""
    by_neighbours = needs(ctx.recipe.policy)
    for stage in sorted(ctx.redo & {"features", "neighbours"}):
        if not by_neighbours:
            raise BadInput(
                f"--redo {stage}: the recipe's policy asks for no neighbours, so `run` finds none; "
                f"give it to `cgankd find-neighbours {ctx.run.path}`"
            )
    if by_neighbours:
        require_faiss()


def require_faiss() -> None:
    """Raises `BadInput` that names the extra where FAISS is missing; does not import it."""
    if find_spec("faiss") is None:
        load_faiss()


def run(
    recipe: str,
    *,
    console: Console,
    out: Path | None = None,
    overrides: Sequence[str] = (),
    dry_run: bool = False,
    **options: Unpack[Options],
) -> Facts:
    """What the report says of the whole pipeline, run or continued in `out`."""
    resolved = load_recipe(recipe, overrides, console.note)
    folder = out or Path("runs") / resolved.name
    if dry_run:
        from cgankd.app.estimate import dry_run as estimated

        device, workers = options.get("device", "auto"), options.get("workers")
        return estimated(resolved, folder, device=device, workers=workers, console=console)
    with opened(folder, resolved, console=console, **options) as ctx:
        return run_all(ctx)


def stage(
    name: str,
    run: Path,
    *,
    console: Console,
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    **options: Unpack[Options],
) -> Facts:
    """The facts of one stage of a run folder; `recipe` begins a new folder."""
    resolved = recipe_of_run(run, recipe, overrides, console.note)
    with opened(run, resolved, console=console, **options) as ctx:
        return run_stage(ctx, name)


def select(
    run: Path,
    *,
    console: Console,
    name: str = "cgan-kd",
    overrides: Sequence[str] = (),
) -> Facts:
    """How many samples a policy keeps and why it drops the others, from the score table alone."""
    resolved = recipe_of_run(run, None, overrides, console.note)
    with opened(run, resolved, console=console) as ctx:
        facts = select_one(ctx, name)
    console.note(f"{name}: kept {facts['kept']:,}, dropped {facts['dropped']}")
    return facts


def check(
    run: Path,
    *,
    console: Console,
    selection: str = "cgan-kd",
    overrides: Sequence[str] = (),
    **options: Unpack[Options],
) -> Facts:
    """What a selection is like by a net that judges it; `CheckFailed` where a threshold breaks."""
    require_faiss()
    resolved = recipe_of_run(run, None, overrides, console.note)
    with opened(run, resolved, console=console, **options) as ctx, ctx.timed("check"):
        return checked(ctx, selection)


def release(
    run: Path,
    *,
    console: Console,
    selection: str,
    rejected: bool,
    version: str | None = None,
    h5: bool = False,
    wds: bool = False,
    overrides: Sequence[str] = (),
) -> Facts:
    """Where the release of a selection lies and what it holds; with `h5` also the authors' layout,
    in a file beside it, with `wds` also the tar copy. Without a version, what changed since the
    last one decides, and where nothing did, nothing is built. `overrides` may set the recipe's
    `card` and `release`, which no stage before read.
    """
    from cgankd.shardset.release.exports import require_h5py, write_fake_h5

    for override in overrides:
        if not override.startswith(("card.", "release.")):
            raise BadInput(f"--set {override}: a release takes card.… and release.… alone")
    if h5:
        require_h5py()
    resolved = recipe_of_run(run, None, overrides, console.note)
    with opened(run, resolved, console=console) as ctx:
        facts = releasing.build(ctx, version, selection, rejected)
        if wds:
            facts["wds"] = releasing.tar_copy(ctx, facts["version"])
        if h5:
            target = ctx.run.release / f"{ctx.recipe.name}_fake_images_{facts['version']}.h5"
            write_fake_h5(ctx.run.release / facts["version"], target)
            facts["h5"] = str(target)
            console.note(f"{target}: the same images as fake_images and fake_labels")
    console.note(f"{facts['folder']}: {facts['accepted']:,} images, {facts['bytes']:,} bytes")
    console.note(f"check it with: cgankd verify {facts['folder']}")
    return facts


def propose(run: Path, *, console: Console, selection: str, rejected: bool) -> Facts:
    """The version that a release of a selection would get, its parent, and why."""
    resolved = recipe_of_run(run, None, ())
    with opened(run, resolved, console=console) as ctx:
        return asdict(releasing.proposed(ctx, selection, rejected))
