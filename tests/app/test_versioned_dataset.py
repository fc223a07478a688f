"""The life of a dataset: a run is checked, released, published, trained from, changed, compared."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cgankd.app.cli import app
from cgankd.shardset.files import read_json
from tests.app.tiny import run_tiny
from tests.hub.server import LoopbackHub, client_environment
from tests.shardset.hubs import REPO, TOKEN, hub_and_client, tags

LOAD = """
import json, sys
from datasets import load_dataset
rows = load_dataset(sys.argv[1], revision=sys.argv[2])["train"]
stream = load_dataset(sys.argv[1], revision=sys.argv[2], streaming=True)["train"]
assert [row["key"] for row in stream] == list(rows["key"])
assert all(row["image"].size == (8, 8) for row in rows)
json.dump({"keys": rows["key"][:], "names": rows.features["label"].names}, sys.stdout)
"""


def command(*words: object, code: int = 0) -> str:
    """What a command prints on standard output."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert (result.exit_code, result.output) == (code, result.output)
    return result.stdout


def loaded(hub: LoopbackHub, home: Path, version: str) -> dict[str, list[object]]:
    """What plain `datasets` makes of a version, in a process that knows nothing of this project."""
    told = subprocess.run(
        [sys.executable, "-c", LOAD, REPO, version],
        env=client_environment(hub, home, token=TOKEN),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(told.stdout)


def test_two_versions_of_a_run_are_published_loaded_trained_from_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the real clients over HTTP, and nothing but commands."""
    run, student = tmp_path / "run", tmp_path / "student"
    assert run_tiny(run, "--set", "arms=[no-kd, cgan-kd]").returncode == 0
    with hub_and_client(tmp_path, monkeypatch) as hub:
        command("publish", run / "release/v1.0.0", REPO, code=1)  # was never checked
        command("check", run, "--set", "check.memorised=1", "--backend", "serial")
        command("release", run)
        command("publish", run / "release/v1.0.1", f"{REPO}@v1.0.1")
        first = loaded(hub, tmp_path / "home1", "v1.0.1")
        assert len(first["keys"]) == 80
        assert first["names"] == [str(digit) for digit in range(10)]

        words = ("--student", "convnet-1k", "--set", "student.steps=[20]", "--out", student)
        command("train-student", "--dataset", f"{REPO}@v1.0.1", *words)
        dataset = read_json(student / "config.json")["dataset"]
        assert (dataset["id"], dataset["version"]) == (REPO, "v1.0.1")
        assert dataset["commit"] == tags()["v1.0.1"]
        command("evaluate", student, "--source", "digits")
        command("publish-student", student, "user/pupil@v1.0.0")
        assert list(tags("user/pupil", "model")) == ["v1.0.0"]

        command("select", run, "--name", "strict", "--set", "policy.quota=5")
        chosen = ("--selection", "strict")
        command("check", run, *chosen, "--set", "check.memorised=1", "--backend", "serial")
        command("release", run, *chosen)
        command("publish", run / "release/v1.1.0", f"{REPO}@v1.1.0")
        second = loaded(hub, tmp_path / "home2", "v1.1.0")
        assert len(second["keys"]) == 50
        for version in ("v1.0.1", "v1.1.0"):
            command("verify", f"{REPO}@{version}")
        told = json.loads(command("diff", f"{REPO}@v1.0.1", f"{REPO}@v1.1.0", "--json"))
        assert set(second["keys"]) < set(first["keys"])
        assert {row["key"] for row in told["keys"]} == set(first["keys"]) - set(second["keys"])
        why = {"change": "went", "reason_before": None, "reason_after": "quota", "count": 30}
        assert told["why"] == [why]
