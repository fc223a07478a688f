"""What a folder, a preset or this machine holds: `verify`, `info`, `recipes` and `doctor`."""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cgankd.app.console import Console
from cgankd.shardset.errors import BadInput, ReleaseError

Result = dict[str, Any]


def verify(spec: str, *, console: Console, offline: bool = False) -> Result:
    """That nothing in a release, here or on the Hub, or in a run's pool and releases, was changed;
    else `ReleaseError` with what was.
    """
    from cgankd.shardset.pool.plan import read_plan
    from cgankd.shardset.pool.run_folder import RunFolder, is_run
    from cgankd.shardset.records import PoolFacts
    from cgankd.shardset.release.manifest import verify_pool
    from cgankd.shardset.release.verify import verify_release

    path = Path(spec).expanduser()
    verified = []
    if is_run(path):
        run = RunFolder.open(path)
        folders = sorted(p for p in run.release.glob("v*") if p.is_dir())
        if (run.pool / "plan.json").is_file():
            recorded = None
            if run.is_finished("pool"):
                recorded = run.read_facts("pool", PoolFacts).manifest_sha256
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

    from cgankd.app.machine import machine_facts

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
