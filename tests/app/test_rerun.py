"""A finished run, run again: what is replaced, what is kept for ever, what is refused and when."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from cgankd.app import context, diff, inspecting, pipeline
from cgankd.app.console import Console
from cgankd.app.context import Context
from cgankd.app.recipe import load_recipe
from cgankd.app.stages import STAGES
from cgankd.shardset.errors import BadInput, StaleStage
from cgankd.shardset.files import read_json, write_json
from cgankd.shardset.pool.run_folder import STAGES as FOLDERS
from cgankd.shardset.pool.run_folder import RunFolder
from cgankd.shardset.tables import read_table
from tests.app.tiny import OVERRIDES

FEW_ARMS = (*OVERRIDES, "seeds=[0]", "arms=[no-kd, cgan-kd]", "pool.max_factor=1.0")
LOOSE = "policy.filter.rho=0.99"


def run(out: Path, *more: str, **options: Any) -> dict[str, Any]:
    options = {"console": Console(json=True), "backend": "serial", "device": "cpu"} | options
    return pipeline.run("digits", out=out, overrides=[*FEW_ARMS, *more], **options)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run of two arms, to its report."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    run(out)
    return out


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A run of one's own, as it was left."""
    subprocess.run(["cp", "-a", str(finished), str(tmp_path / "tiny")], check=True)
    return tmp_path / "tiny"


def bytes_below(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("stage", ["release", "selections"])
def test_redo_of_releases_or_selections_is_refused_and_deletes_nothing(
    copy: Path, stage: str
) -> None:
    """`--redo release` deleted every release, `--redo selections` every selection."""
    before = bytes_below(copy / "release"), bytes_below(copy / "selections")

    with pytest.raises(BadInput, match=f"--redo {stage}: .*cgankd (select|release) {copy}"):
        run(copy, redo=[stage])

    assert (bytes_below(copy / "release"), bytes_below(copy / "selections")) == before


def test_a_run_with_a_changed_policy_releases_the_next_version_and_trains_from_it(
    copy: Path,
) -> None:
    """The version before stays as it is; run once more, nothing is built."""
    first = bytes_below(copy / "release" / "v1.0.0")
    report = run(copy, LOOSE)
    versions = sorted(p.name for p in (copy / "release").iterdir() if p.is_dir())

    assert len(versions) == 2
    assert bytes_below(copy / "release" / "v1.0.0") == first
    table = RunFolder(copy).stage_facts("selections/cgan-kd")["sha256"]
    assert report["selection_sha256"] == table
    assert RunFolder(copy).stage_facts("students")["selections"] == {"cgan-kd": table}
    run(copy, LOOSE)
    assert sorted(p.name for p in (copy / "release").iterdir() if p.is_dir()) == versions


def test_selecting_again_replaces_the_selection_and_says_what_came_and_went(
    copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --redo; the other selections stay as they are."""
    raw = (copy / "selections" / "raw.parquet").read_bytes()
    old = read_table(copy / "selections" / "cgan-kd.parquet")
    facts = pipeline.select(
        copy, console=Console(), overrides=["policy.filter.rho=0.3", "policy.quota=null"]
    )
    new = read_table(copy / "selections" / "cgan-kd.parquet")
    kept_old, kept_new = (
        {k for k, kept in zip(t["key"].to_pylist(), t["kept"].to_pylist(), strict=True) if kept}
        for t in (old, new)
    )

    assert (facts["came"], facts["went"]) == (len(kept_new - kept_old), len(kept_old - kept_new))
    assert facts["came"] + facts["went"] > 0
    said = " ".join(capsys.readouterr().err.split())
    assert f"selected again: {facts['came']} samples came, {facts['went']} went" in said
    assert (copy / "selections" / "raw.parquet").read_bytes() == raw


def test_a_release_made_otherwise_names_the_folder_to_remove_by_hand(copy: Path) -> None:
    """A version never changes, and no option deletes one."""
    pipeline.select(copy, console=Console(json=True), overrides=["policy.filter.rho=0.3"])

    with pytest.raises(BadInput, match=f"remove {copy}/release/v1.0.0 by hand"):
        pipeline.release(
            copy,
            console=Console(json=True),
            selection="cgan-kd",
            rejected=False,
            version="v1.0.0",
        )


def test_a_stale_stage_is_refused_before_another_one_starts(copy: Path) -> None:
    """The teacher's setting was refused first and the pool's only after the generator; side by
    side, the generator would have begun.
    """
    RunFolder(copy).drop_stage("generator")

    with pytest.raises(StaleStage, match=r"^teacher in .* was made with teacher\.training\.steps"):
        run(copy, "teacher.training.steps=151")

    assert not (copy / "generator").exists()


def test_every_stage_that_redo_takes_is_done_again(copy: Path) -> None:
    """`students` and `report` were accepted and ignored."""
    redone = [stage.name for stage in STAGES if stage.in_run and not stage.not_redone]
    marks = {
        "teacher": "teacher/stage.json",
        "generator": "generator/stage.json",
        "pool": "pool/plan.json",
        "ratio": "ratio/stage.json",
        "scores": "scores/stage.json",
        "students": "students/arrays/pool.json",
        "report": "report/report.html",
    }
    assert set(marks) == set(redone)
    for mark in marks.values():
        (copy / mark).with_name("left-behind").touch()
    run(copy, redo=redone)

    for mark in marks.values():
        assert (copy / mark).is_file()
        assert not (copy / mark).with_name("left-behind").exists(), mark


def test_redo_of_features_or_neighbours_finds_them_again_where_they_are_asked_for(
    copy: Path,
) -> None:
    """`run` without a policy that needs them says so; the stage's own command does it."""
    options: dict[str, Any] = {"console": Console(json=True), "backend": "serial", "device": "cpu"}
    pipeline.stage("neighbours", copy, **options)
    with pytest.raises(BadInput, match=r"--redo features: .*cgankd find-neighbours"):
        run(copy, redo=["features"])

    for stage in ("features", "neighbours"):
        (copy / stage / "left-behind").touch()
        pipeline.stage("neighbours", copy, redo=[stage], **options)
        assert not (copy / stage / "left-behind").exists()
        assert (copy / "neighbours.parquet").is_file()


def test_a_run_of_an_older_version_can_be_read_and_released_but_not_trained(copy: Path) -> None:
    """Its markers are of another form; the refusal names the version that made it."""
    recipe = yaml.safe_load((copy / "recipe.yaml").read_text())
    (copy / "recipe.yaml").write_text(yaml.safe_dump({**recipe, "format_version": 1}))
    facts = read_json(copy / "run.json")
    del facts["format_version"]
    write_json(copy / "run.json", {**facts, "version": "0.1.0"})
    console = Console(json=True)
    options: dict[str, Any] = {"console": console, "backend": "serial", "device": "cpu"}

    assert inspecting.info(copy, console=console)["run"]["version"] == "0.1.0"
    inspecting.verify(str(copy), console=console)
    diff.diff(copy, console=console, to="raw")
    pipeline.release(copy, console=console, selection="raw", rejected=False)
    for stage in ("teacher", "scores", "students"):
        with pytest.raises(BadInput, match=r"was made by cgankd 0.1.0, whose stages"):
            pipeline.stage(stage, copy, **options)
    with pytest.raises(BadInput, match=r"was made by cgankd 0.1.0, whose stages"):
        pipeline.run(str(copy / "recipe.yaml"), out=copy, **options)


def test_a_stage_refuses_to_redo_another(copy: Path) -> None:
    """It would have been ignored."""
    with pytest.raises(BadInput, match="--redo pool: this command redoes scores alone"):
        pipeline.stage("scores", copy, console=Console(json=True), redo=["pool"])


@pytest.mark.parametrize(
    ("options", "more", "missing", "message"),
    [
        ({"backend": "rai"}, [], None, "'rai': expected one of serial, processes, ray"),
        ({"backend": "ray"}, [], "ray", r"cgankd\[ray\]"),
        ({}, ["policy.duplicates.threshold=0.9"], "faiss", r"cgankd\[cpu\]"),
    ],
)
def test_a_wrong_backend_or_a_missing_extra_is_refused_before_the_first_stage(
    options: dict[str, Any],
    more: list[str],
    missing: str | None,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each was found only after teacher and generator had trained."""
    if missing is not None:
        monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(BadInput, match=message):
        run(tmp_path / "new", *more, **options)

    assert not (tmp_path / "new" / "teacher").exists()


@pytest.mark.parametrize(
    ("device", "backend", "workers", "gpus"),
    [("cpu", "processes", 4, 0.0), ("cuda", "processes", 1, 1.0), ("cuda", "ray", 4, 1.0)],
)
def test_one_job_holds_a_gpu(
    device: str,
    backend: Any,
    workers: int,
    gpus: float,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On Ray a job got no GPU; with processes all of a machine's cores shared one."""
    given: dict[str, Any] = {}
    monkeypatch.setattr(context, "map_jobs", lambda *_, **options: given.update(options) or [])
    ctx = Context(
        run=RunFolder(tmp_path),
        recipe=load_recipe("digits"),
        device=torch.device(device),
        console=Console(json=True),
        workers=4,
        backend=backend,
    )
    ctx.map(len, ["a", "b"], "letters")

    assert (given["workers"], given["gpus"]) == (workers, gpus)


def test_workers_are_kept_from_one_map_to_the_next_and_end_with_the_run(tmp_path: Path) -> None:
    """Starting them anew for each cost a third of the digits' processor time; an error ends them,
    since others of their jobs would go on.
    """
    ctx = Context(
        run=RunFolder(tmp_path),
        recipe=load_recipe("digits"),
        device=torch.device("cpu"),
        console=Console(json=True),
        workers=1,
    )
    first, again = (ctx.map(process_of, [0], "process") for _ in range(2))
    with pytest.raises(ZeroDivisionError):
        ctx.map(process_of, [0, 1], "process")
    assert not Path(f"/proc/{first[0]}").exists()
    other = ctx.map(process_of, [0], "process")
    ctx.end_workers()

    assert first == again != other
    assert not Path(f"/proc/{other[0]}").exists()


def process_of(job: int) -> int:
    """The process that a job runs in; 1 fails."""
    return os.getpid() if job == 0 else 1 // 0


def test_an_arm_of_ones_own_is_trained_on_the_selection_that_it_names(copy: Path) -> None:
    """Nothing else is trained again."""
    weights = set(copy.glob("students/trained/*/*.safetensors"))
    report = run(copy, "selections.strict.filter.rho=0.3", "arms.mine.selection=strict")

    assert list(report["arms"]) == ["no-kd", "cgan-kd", "mine"]
    assert (copy / "selections" / "strict.parquet").is_file()
    assert (copy / "students" / "mine" / "seed-0" / "model.safetensors").is_file()
    assert len(set(copy.glob("students/trained/*/*.safetensors")) - weights) == 1


def test_report_draws_and_names_the_command_that_trains(copy: Path) -> None:
    """Without students, or with those of a selection that was replaced, it exits 2."""
    options: dict[str, Any] = {"console": Console(json=True), "backend": "serial", "device": "cpu"}
    weights = {p: p.stat().st_mtime_ns for p in copy.glob("students/trained/*/*.safetensors")}
    drawn = pipeline.stage("report", copy, **options)
    pipeline.select(copy, console=Console(json=True), overrides=["policy.filter.rho=0.3"])
    with pytest.raises(BadInput, match=f"older selection cgan-kd; .*cgankd train-students {copy}"):
        pipeline.stage("report", copy, **options)
    pipeline.stage("students", copy, **options)
    again = pipeline.stage("report", copy, **options)
    after = {p: p.stat().st_mtime_ns for p in copy.glob("students/trained/*/*.safetensors")}

    assert weights.items() <= after.items()
    assert again["selection_sha256"] != drawn["selection_sha256"]
    (copy / "students" / "stage.json").unlink()
    with pytest.raises(BadInput, match=r"no students are trained .*cgankd train-students"):
        pipeline.stage("report", copy, **options)


def test_info_lists_stages_in_the_order_in_which_they_run(finished: Path) -> None:
    """The ratio stood before the pool that it is fitted on."""
    stages = list(inspecting.info(finished, console=Console(json=True))["stages"])

    assert stages == list(FOLDERS) == [s.name for s in STAGES if s.name in FOLDERS]
    assert stages.index("pool") < stages.index("ratio") < stages.index("scores")
