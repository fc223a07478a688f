"""The search of learning rates: what is dropped on the way, and the same students however."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from cgankd.app import pipeline
from cgankd.app.console import Console
from cgankd.app.context import write_metrics
from cgankd.app.student_jobs import StudentJob
from cgankd.nets.training import StudentTraining
from cgankd.shardset.files import fingerprint, read_json, write_json
from cgankd.shardset.testing import tiny_space
from tests.app.tiny import released_run

ARMS = "arms=[no-kd, no-kd-equal-compute, cgan-kd, hinton]"
RATES = ("student.learning_rates=[0.0001, 0.1]", "student.search_seeds=2", ARMS)
PACKED = "convnet-1k"
ALONE = "convnet-11k"  # too large for packs


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return released_run(tmp_path_factory.mktemp("search") / "run")


def trained(out: Path, *more: str) -> dict[str, dict[str, bytes]]:
    """The files of every student of the run, of those that are dropped too, after training."""
    options: dict[str, Any] = {"console": Console(json=True), "backend": "serial", "device": "cpu"}
    pipeline.stage("students", out, overrides=(*RATES, *more), **options)
    return {
        folder.name: {path.name: path.read_bytes() for path in folder.iterdir()}
        for folder in (out / "students" / "trained").iterdir()
    }


@pytest.mark.parametrize("network", [PACKED, ALONE])
def test_a_hopeless_rate_is_dropped_and_a_student_trained_again_alone_is_the_same(
    released: Path, tmp_path: Path, network: str
) -> None:
    """The lower one learns nothing in 20 steps. In a pack or not, a student that is missing is
    trained again to the same bytes, as is one that had stopped on the way.
    """
    out = tmp_path / "run"
    shutil.copytree(released, out, symlinks=True)
    setting = f"student.training.network={network}"
    students = trained(out, setting)
    kept = sorted(name for name, files in students.items() if "done.json" in files)
    dropped = sorted(students.keys() - kept)
    assert len(dropped) == len(kept) == 8  # four arms, two seeds
    for name in kept:
        done = read_json(out / "students" / "trained" / name / "done.json")
        assert done["fields"]["training"]["lr"] == 0.1
        assert "checkpoint.safetensors" not in students[name]
    for name in dropped:
        assert set(students[name]) == {"checkpoint.safetensors", "metrics.jsonl"}

    folders = out / "students" / "trained"
    shutil.rmtree(folders / kept[0])
    shutil.rmtree(folders / dropped[0])
    for name in ("done.json", "model.safetensors"):  # as if killed before it was done
        (folders / kept[1] / name).unlink()
    assert trained(out, setting) == students


def test_what_a_rate_was_worth_on_the_way_is_the_same_after_it_diverged(tmp_path: Path) -> None:
    """Else a second search would drop other rates than the first."""
    job = StudentJob(
        arrays=tmp_path,
        selection=None,
        reals="budget",
        training=StudentTraining(steps=20),
        method=None,
        space=tiny_space(2),
        seed=0,
        init=None,
        teacher=None,
        folder=tmp_path,
        facts={},
        device="cpu",
        precision="float32",
        fields={"pack": None},
    )
    rows = [{"step": step, "loss": 1.0, "accuracy": 10.0 * step} for step in (2, 4, 6, 8)]
    write_metrics(tmp_path, rows)
    before = job.figures(tenths=4)
    write_json(tmp_path / "done.json", {"fingerprint": fingerprint(job.fields), "figures": None})

    assert job.is_done
    assert job.figures(tenths=4) == before == {"accuracy": 80.0}
    assert job.figures(tenths=5) is None  # by then it had diverged
    assert job.figures() is None
