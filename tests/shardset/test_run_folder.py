"""A run folder belongs to one process, knows what is done, and says what changed."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cgankd.shardset.errors import BadInput, CorruptShard, RunBusy, StaleStage
from cgankd.shardset.files import read_json
from cgankd.shardset.pool.run_folder import STAGES, RunFolder
from cgankd.shardset.records import PoolFacts

HOLDER = """
import sys
from pathlib import Path
from cgankd.shardset.pool.run_folder import RunFolder
with RunFolder.open(Path(sys.argv[1])).lock():
    sys.stdout.write("held\\n")
    sys.stdout.flush()
    sys.stdin.read()
"""
FIELDS = {"policy": {"rho": 0.9, "scope": ("per-label", 1)}, "pool": "a" * 64}


@pytest.fixture
def run(tmp_path):
    return RunFolder.open(tmp_path / "run", create=True)


def test_opening_needs_a_folder_unless_it_may_be_made(tmp_path):
    """A mistyped path does not become an empty run."""
    with pytest.raises(BadInput, match="is not a run folder"):
        RunFolder.open(tmp_path / "typo")
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="is a file"):
        RunFolder.open(tmp_path / "file", create=True)
    assert not (tmp_path / "typo").exists()
    assert tmp_path / "run" == RunFolder.open(str(tmp_path / "run"), create=True).path


def test_every_stage_has_its_folder(run):
    """The property of a stage's name is the folder of that name."""
    for stage in STAGES:
        assert run.path / stage == getattr(run, stage)


def test_a_run_in_use_is_refused_with_the_holders_number(run):
    """The lock is another process's while it lives, however it dies."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(run.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(RunBusy, match=f"is in use by process {holder.pid};"), run.lock():
            pass
        holder.send_signal(signal.SIGKILL)
    with run.lock():
        assert str(os.getpid()) == (run.path / ".lock").read_text()


def test_a_lock_is_given_back_after_an_error(run):
    """A failed command does not block the next one."""
    with pytest.raises(ZeroDivisionError), run.lock():
        _ = 1 / 0
    with run.lock():
        pass


def test_run_json_is_merged(run):
    """Each stage adds what it knows; test openings are counted for each command."""
    run.record(threads=2, machine={"cpu": "x"})
    run.record(threads=1)
    for command in ("evaluate", "report", "evaluate"):
        run.count_test_opening(command)

    expected = {
        "threads": 1,
        "machine": {"cpu": "x"},
        "test_openings": {"evaluate": 2, "report": 1},
    }
    assert expected == run.facts() == read_json(run.path / "run.json")


def test_run_json_loses_nothing_where_several_record_at_once(run):
    """Stages side by side end when they will."""
    with ThreadPoolExecutor(8) as threads:
        for _ in range(100):
            threads.submit(run.count_test_opening, "report")

    assert run.facts()["test_openings"] == {"report": 100}


@pytest.mark.parametrize("stage", ["pool", "students/cgan-kd/seed-0", "selections/cgan-kd"])
def test_a_stage_is_done_with_the_fields_it_was_finished_with(run, stage):
    """Lists and tuples are the same setting; facts are kept for later."""
    assert not run.stage_is_done(stage, FIELDS)
    run.finish_stage(stage, FIELDS, {"samples": 3})

    same = {"policy": {"scope": ["per-label", 1], "rho": 0.9}, "pool": "a" * 64}
    assert run.stage_is_done(stage, same)
    assert run.stage_facts(stage) == {"samples": 3}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"policy": {"rho": 0.8, "scope": ("per-label", 1)}}, "policy.rho = 0.9, now it is 0.8"),
        ({"pool": "b" * 64}, f"pool = {'a' * 64}, now it is {'b' * 64}"),
        ({"extra": None}, "extra = absent, now it is None"),
        ({"policy": None}, "policy = {.*}, now it is None"),
        ({"pool": list(range(1000))}, r"now it is \[0, 1, .{70,75}…;"),
        ({"policy": {"rho": 0.9, "scope": ("per-label", True)}}, "policy.scope = .* 1], now"),
    ],
)
def test_a_changed_field_is_named_with_both_values(run, change, message):
    """The user learns what to change back, or which stage to replace."""
    run.finish_stage("selections/cgan-kd", FIELDS, {})

    with pytest.raises(StaleStage, match=f"{message}.*--redo selections/cgan-kd"):
        run.stage_is_done("selections/cgan-kd", {**FIELDS, **change})


def test_a_broken_marker_is_named(run):
    """Half a marker is not a finished stage, and not a new one either."""
    run.finish_stage("teacher", FIELDS, {})
    (run.teacher / "stage.json").write_text("{")

    with pytest.raises(CorruptShard, match=r"stage\.json is not valid JSON"):
        run.stage_is_done("teacher", FIELDS)


def test_dropping_a_stage_removes_its_files_and_no_others(run):
    """One selection, one student or one release can be made anew alone."""
    for name in ("a", "b"):
        run.finish_stage(f"selections/{name}", FIELDS, {})
        (run.selections / f"{name}.parquet").touch()
        run.finish_stage(f"students/{name}/seed-0", FIELDS, {})
        run.finish_stage(f"release/v1.0.{len(name)}", FIELDS, {})
    (run.release / "v1.0.1").mkdir()
    for stage in ("selections/a", "students/a", "release/v1.0.1", "ratio"):
        run.drop_stage(stage)

    left = {str(p.relative_to(run.path)) for p in run.path.rglob("*") if p.is_file()}
    expected = {"selections/b.json", "selections/b.parquet", "students/b/seed-0/stage.json"}
    assert expected == left
    assert not (run.release / "v1.0.1").exists()


@pytest.mark.parametrize("stage", ["polo", "pool/../../x", "students//x", ""])
def test_names_that_are_no_stage_are_refused(run, stage):
    """A stage name is never a way out of the run folder."""
    with pytest.raises(BadInput, match="is not a stage"):
        run.drop_stage(stage)


def test_facts_of_an_unfinished_stage_are_refused(run):
    """The message says what to run."""
    with pytest.raises(BadInput, match="teacher is not finished"):
        run.stage_facts("teacher")


def test_facts_are_read_as_the_record_that_they_were_written_as(run):
    """An older pool does not say by which libraries it was made; other facts are named."""
    facts = {"pool_id": "a", "samples": 3, "rounds": 1, "shards": 1, "manifest_sha256": "b"}
    run.finish_stage("pool", FIELDS, facts)
    assert run.read_facts("pool", PoolFacts) == PoolFacts(**facts, libraries={})
    run.finish_stage("pool", FIELDS, {**facts, "samples": "3"})
    with pytest.raises(BadInput, match="is of another version: samples:"):
        run.read_facts("pool", PoolFacts)
