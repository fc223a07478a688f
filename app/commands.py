"""What every command does, as plain functions that a notebook can call.

Each takes plain values and a console, and returns what `--json` prints.
"""

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cgankd.app.console import Console
from cgankd.app.engine import Backend
from cgankd.shardset.errors import BadInput, ReleaseError

Result = dict[str, Any]


def run(
    recipe: str,
    *,
    console: Console,
    out: Path | None = None,
    overrides: Sequence[str] = (),
    device: str = "auto",
    workers: int | None = None,
    backend: Backend = "processes",
    redo: Sequence[str] = (),
    dry_run: bool = False,
) -> Result:
    """What the report says of the whole pipeline, run or continued in `out`."""
    from cgankd.app import pipeline
    from cgankd.app.recipe import load_recipe

    resolved = load_recipe(recipe, overrides, console.note)
    folder = out or Path("runs") / resolved.name
    if dry_run:
        from cgankd.app.estimate import dry_run as estimated

        return estimated(resolved, folder, device=device, workers=workers, console=console)
    with pipeline.opened(
        folder,
        resolved,
        console=console,
        device=device,
        workers=workers,
        backend=backend,
        redo=redo,
    ) as ctx:
        return pipeline.run_all(ctx)


def stage(
    name: str,
    run: Path,
    *,
    console: Console,
    recipe: str | None = None,
    overrides: Sequence[str] = (),
    device: str = "auto",
    workers: int | None = None,
    backend: Backend = "processes",
    redo: Sequence[str] = (),
) -> Result:
    """The facts of one stage of a run folder; `recipe` begins a new folder."""
    from cgankd.app import pipeline

    resolved = pipeline.recipe_of_run(run, recipe, overrides, console.note)
    with pipeline.opened(
        run,
        resolved,
        console=console,
        device=device,
        workers=workers,
        backend=backend,
        redo=redo,
    ) as ctx:
        return pipeline.run_stage(ctx, name)


def select(
    run: Path,
    *,
    console: Console,
    name: str = "cgan-kd",
    overrides: Sequence[str] = (),
) -> Result:
    """How many samples a policy keeps and why it drops the others, from the score table alone."""
    from cgankd.app import pipeline
    from cgankd.app.stages.selections import select_one

    resolved = pipeline.recipe_of_run(run, None, overrides, console.note)
    with pipeline.opened(run, resolved, console=console) as ctx:
        facts = select_one(ctx, name)
    console.note(f"{name}: kept {facts['kept']:,}, dropped {facts['dropped']}")
    return facts


def diff(
    before: str | Path,
    after: str | Path | None = None,
    *,
    console: Console,
    from_: str = "cgan-kd",
    to: str = "cgan-kd",
) -> Result:
    """What changed between two releases or selections of run folders, and why."""
    from cgankd.app.diff import changed

    return changed(str(before), None if after is None else str(after), from_, to, console)


def regenerate(
    where: str | Path,
    *,
    console: Console,
    keys: str | None = None,
    keys_file: Path | None = None,
    verify: bool = False,
    out: Path | None = None,
    generator: Path | None = None,
) -> Result:
    """Samples of a run or release made again, to a folder or to be compared with their record."""
    from cgankd.app.regenerating import regenerate as again

    return again(
        str(where),
        console=console,
        keys=keys,
        keys_file=keys_file,
        verify=verify,
        out=out,
        generator=generator,
    )


def check(
    run: Path,
    *,
    console: Console,
    selection: str = "cgan-kd",
    overrides: Sequence[str] = (),
    device: str = "auto",
    workers: int | None = None,
    backend: Backend = "processes",
) -> Result:
    """What a selection is like by a net that judges it; `CheckFailed` where a threshold breaks."""
    from cgankd.app import pipeline
    from cgankd.app.stages.check import check as checked

    pipeline.require_faiss()
    resolved = pipeline.recipe_of_run(run, None, overrides, console.note)
    with pipeline.opened(
        run, resolved, console=console, device=device, workers=workers, backend=backend
    ) as ctx:
        return pipeline.Stopwatch(ctx)("check", lambda c: checked(c, selection))


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
) -> Result:
    """Where the release of a selection lies and what it holds; with `h5` also the authors' layout,
    in a file beside it, with `wds` also the tar copy. Without a version, what changed since the
    last one decides, and where nothing did, nothing is built. `overrides` may set the recipe's
    `card` and `release`, which no stage before read.
    """
    from cgankd.app import pipeline
    from cgankd.app.stages import release as releasing
    from cgankd.shardset.release.exports import require_h5py, write_fake_h5

    for override in overrides:
        if not override.startswith(("card.", "release.")):
            raise BadInput(f"--set {override}: a release takes card.… and release.… alone")
    if h5:
        require_h5py()
    resolved = pipeline.recipe_of_run(run, None, overrides, console.note)
    with pipeline.opened(run, resolved, console=console) as ctx:
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


def propose(run: Path, *, console: Console, selection: str, rejected: bool) -> Result:
    """The version that a release of a selection would get, its parent, and why."""
    from cgankd.app import pipeline
    from cgankd.app.stages import release as releasing

    resolved = pipeline.recipe_of_run(run, None, ())
    with pipeline.opened(run, resolved, console=console) as ctx:
        return asdict(releasing.proposed(ctx, selection, rejected))


def review(
    spec: str, *, console: Console, port: int, host: str, reviewer: str | None = None
) -> Result:
    """Where the review app was served, until Ctrl-C; what cannot be reviewed is an error first."""
    from cgankd.app.review.serve import serve

    return serve(spec, console=console, port=port, host=host, reviewer=reviewer)


def verify(spec: str, *, console: Console, offline: bool = False) -> Result:
    """That nothing in a release, here or on the Hub, or in a run's pool and releases, was changed;
    else `ReleaseError` with what was.
    """
    from cgankd.shardset.pool.plan import read_plan
    from cgankd.shardset.pool.run_folder import RunFolder, is_run
    from cgankd.shardset.release.manifest import verify_pool
    from cgankd.shardset.release.verify import verify_release

    path = Path(spec).expanduser()
    verified = []
    if is_run(path):
        run = RunFolder.open(path)
        folders = sorted(p for p in run.release.glob("v*") if p.is_dir())
        if (run.pool / "plan.json").is_file():
            facts = run.stage_facts("pool") if run.is_finished("pool") else {}
            recorded = facts.get("manifest_sha256")
            verify_pool(run.pool, read_plan(run.pool / "plan.json"), recorded)
            verified.append(str(run.pool))
            what = "its marker says" if recorded is None else "it was made"
            console.note(f"{run.pool}: every shard is as {what}")
        elif not folders:
            raise ReleaseError(
                f"{path} holds neither a pool nor a release yet: there is nothing to verify"
            )
    else:
        from cgankd.shardset.hub.ids import HubId, release_at

        where = release_at(spec)
        if isinstance(where, HubId):
            from cgankd.app.publishing import verify_on_hub

            return verify_on_hub(spec, console=console, offline=offline)
        folders = [where]
    for folder in folders:
        problems = verify_release(folder)
        for problem in problems:
            console.note(problem)
        if problems:
            raise ReleaseError(f"{folder} is not as its manifest says: {len(problems)} problems")
        console.note(f"{folder}: every file is as its manifest says")
        verified.append(str(folder))
    return {"verified": verified}


def publish(
    folder: Path,
    target: str,
    *,
    console: Console,
    private: bool = False,
    dry_run: bool = False,
    generator: Path | None = None,
    generator_repo: str | None = None,
    message: str | None = None,
    allow_failures: bool = False,
) -> Result:
    """What was published, or with `dry_run` would be: files, bytes and the version's commit."""
    from cgankd.app.publishing import publish_release

    return publish_release(
        folder,
        target,
        console=console,
        private=private,
        dry_run=dry_run,
        generator=generator,
        generator_repo=generator_repo,
        message=message,
        allow_failures=allow_failures,
    )


def pull(spec: str, out: Path, *, console: Console, offline: bool = False) -> Result:
    """Where a verified copy of a release now lies, and the commit that it is of."""
    from cgankd.app.publishing import pull as pulled

    return pulled(spec, out, console=console, offline=offline)


def info(path: Path, *, console: Console) -> Result:
    """What a run or release folder holds."""
    from cgankd.shardset.pool.run_folder import STAGES, RunFolder, is_run
    from cgankd.shardset.release.build import release_facts
    from cgankd.shardset.release.manifest import MANIFEST

    if (path / MANIFEST).is_file():
        facts = {
            k: str(v) if isinstance(v, Path) else v for k, v in asdict(release_facts(path)).items()
        }
        console.table(str(path), ["", ""], [[k, str(v)] for k, v in facts.items()])
        return facts
    if not is_run(path):
        raise BadInput(f"{path} is neither a run nor a release folder")
    run = RunFolder.open(path)
    done = {
        stage: (run.path / stage).is_dir() and any((run.path / stage).iterdir()) for stage in STAGES
    }
    seconds = run.facts().get("seconds", {})
    console.table(
        str(path),
        ["stage", "begun", "seconds"],
        [[stage, "yes" if begun else "no", seconds.get(stage)] for stage, begun in done.items()],
    )
    return {"stages": done, "run": run.facts()}


def recipes(*, console: Console, name: str | None = None) -> Result:
    """The presets, or the YAML of one."""
    from cgankd.app.recipe import load_recipe, preset_names, preset_text, recipe_yaml
    from cgankd.generator import in_words

    if name is not None:
        recipe = load_recipe(name)
        console.text(preset_text(name) if name in preset_names() else recipe_yaml(recipe))
        return recipe.model_dump(mode="json")
    presets = {preset: load_recipe(preset) for preset in preset_names()}
    console.table(
        "presets",
        ["name", "source", "generator", "teacher", "student"],
        [
            [
                preset,
                r.source,
                in_words(r.generator.network),
                r.teacher.weights or f"{r.teacher.training.network} ({r.teacher.data})",
                r.student.training.network,
            ]
            for preset, r in presets.items()
        ],
    )
    return {preset: recipe.model_dump(mode="json") for preset, recipe in presets.items()}


def doctor(*, console: Console) -> Result:
    """What this machine has for a run."""
    from importlib.util import find_spec

    import torch

    from cgankd.app.context import machine_facts

    facts: Result = {
        **machine_facts(),
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "free_bytes": shutil.disk_usage(".").free,
        "extras": {name: find_spec(name) is not None for name in ("faiss", "ray", "h5py")},
    }
    rows = [[name, str(value)] for name, value in facts.items() if name != "libraries"]
    rows += [[name, version] for name, version in facts["libraries"].items()]
    console.table("this machine", ["", ""], rows)
    return facts


def train_student(
    dataset: str,
    student: str,
    out: Path,
    *,
    console: Console,
    real: str,
    method: str,
    overrides: Sequence[str],
    seed: int,
    device: str,
    offline: bool = False,
    streaming: bool = False,
    cache: Path | None = None,
) -> Result:
    """Figures of one student trained from a release; its weights lie in `out`."""
    from cgankd.app.train_from_release import Reading, train

    return train(
        dataset,
        student,
        out,
        console=console,
        real=real,
        method=method,
        overrides=overrides,
        seed=seed,
        device=device,
        reading=Reading(offline=offline, streaming=streaming, cache=cache),
    )


def evaluate(
    model: Path, source: str, *, console: Console, overrides: Sequence[str], device: str
) -> Result:
    """A trained network's accuracy, or mean error, on the test images of a source."""
    from cgankd.app.evaluating import evaluate as measured

    return measured(model, source, console=console, overrides=overrides, device=device)


def publish_student(
    student: Path,
    target: str,
    *,
    console: Console,
    private: bool = False,
    dry_run: bool = False,
    license: str | None = None,
) -> Result:
    """Where a trained student is on the Hub, as a version, and which files that took."""
    from cgankd.app.publishing_student import publish_student as published

    return published(
        student, target, console=console, private=private, dry_run=dry_run, license=license
    )
