"""`publish`, `verify` and `pull` against a Hub on loopback, killed at every step of the way."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from typer.testing import CliRunner

from cgankd.app.cli import app
from cgankd.shardset.files import read_json, sha256_file, write_json
from cgankd.shardset.hub.read import opened
from cgankd.shardset.release.exports import build_wds
from cgankd.shardset.release.manifest import read_manifest
from cgankd.shardset.testing import tiny_facts, tiny_plan, write_tiny_release
from tests.hub.faults import Fault
from tests.hub.server import client_environment
from tests.shardset.hubs import REPO, TOKEN, hub_and_client, sent, tags, titles

FIRST = "initial commit"  # the Hub's own
BOTH = [FIRST, "Release v1.0.0", "Release v1.1.0"]
ACCEPTED = "data/accepted/train-00000-of-00001.parquet"
GENERATOR = "user/generator"
LOAD = """
import itertools, json, sys
from datasets import load_dataset
found = {}
for version in sys.argv[2:]:
    rows = list(load_dataset(sys.argv[1], revision=version)["train"])
    stream = list(load_dataset(sys.argv[1], revision=version, streaming=True)["train"])
    assert [row["key"] for row in rows] == [row["key"] for row in stream]
    assert all(a["image"].tobytes() == b["image"].tobytes() for a, b in zip(rows, stream))
    found[version] = {"rows": len(rows), "labels": sum(row["label"] for row in rows)}
json.dump(found, sys.stdout)
"""


def check(*failures):
    """What a release tells of the check of its selection."""
    judge = {"net": "convnet-8k", "images": 10, "sha256": "3" * 64}
    return {"judge": judge, "shares": {}, "limits": {}, "failures": failures, "metrics": []}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """v1.0.0, v1.1.0 with other samples, one that failed its check, one that names a generator."""
    out = tmp_path_factory.mktemp("built")
    weights = out / "generator"
    weights.mkdir()
    (weights / "model.safetensors").write_bytes(b"weights of a generator")
    (weights / "config.json").write_text("{}")
    checked = {**tiny_facts(), "check": check()}
    failed = {**tiny_facts(), "check": check("memorised is 0.5, at most 0 was asked for.")}
    named = {
        **checked,
        "generator_repo": GENERATOR,
        "weights": {"generator": sha256_file(weights / "model.safetensors")},
    }
    return {
        "v1.0.0": write_tiny_release(out / "a", facts=checked).folder,
        "v1.1.0": write_tiny_release(
            out / "b", "v1.1.0", plan=tiny_plan(9), facts=checked, include_rejected=False
        ).folder,
        "failed": write_tiny_release(out / "c", facts=failed).folder,
        "unchecked": write_tiny_release(out / "e").folder,
        "named": write_tiny_release(out / "d", facts=named).folder,
        "generator": weights,
    }


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty Hub, to which this process's client points."""
    with hub_and_client(tmp_path, monkeypatch) as hub:
        yield hub


def command(*words, code=0):
    """What a command prints, in one text; it never holds the token or a traceback."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert (result.exit_code, result.output) == (code, result.output)
    assert TOKEN not in result.output
    assert "Traceback" not in result.output
    return " ".join(result.output.split())


def test_two_versions_are_published_loaded_and_verified(hub, built, tmp_path):
    """By any trainer's plain `load_dataset`, streaming or not."""
    command("publish", built["v1.0.0"], f"{REPO}@v1.0.0")
    command("publish", built["v1.1.0"], f"{REPO}@v1.1.0", "--message", "Release v1.1.0")

    assert titles() == BOTH
    for version in ("v1.0.0", "v1.1.0"):
        assert "every file is as its manifest says" in command("verify", f"{REPO}@{version}")
    loaded = subprocess.run(
        [sys.executable, "-c", LOAD, REPO, "v1.0.0", "v1.1.0"],
        env=client_environment(hub, tmp_path / "other", token=TOKEN),
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(loaded.stdout)
    for version in ("v1.0.0", "v1.1.0"):
        counts = read_manifest(built[version]).accepted
        labels = sum(label * count for label, count in enumerate(counts))
        assert found[version] == {"rows": sum(counts), "labels": labels}


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("method", "step"),
    [
        ("POST", "/repos/create"),
        ("POST", "/preupload/"),
        ("PUT", "/lfs/"),
        ("POST", "/commit/main"),
        ("POST", "/tag/"),
    ],
)
def test_killed_at_any_step_it_is_completed_by_running_again(
    hub, built, tmp_path, method, step, after
):
    """Before the Hub did what was asked, and after: one commit per version, the tag on it."""
    words = [sys.executable, "-m", "cgankd.app", "publish", str(built["v1.0.0"]), f"{REPO}@v1.0.0"]
    environment = client_environment(hub, tmp_path / "other", token=TOKEN)
    waiting: list[subprocess.Popen[bytes]] = []

    def kill():
        os.kill(waiting[0].pid, signal.SIGKILL)
        waiting[0].wait()

    hub.faults.append(Fault(step, method=method, after=after, call=kill, drop=True))
    with subprocess.Popen(words, env=environment) as process:
        waiting.append(process)
    assert process.returncode == -signal.SIGKILL

    command("publish", built["v1.0.0"], f"{REPO}@v1.0.0")

    assert titles() == [FIRST, "Release v1.0.0"]
    command("verify", f"{REPO}@v1.0.0")
    command("publish", built["v1.1.0"], REPO)
    assert titles() == BOTH
    command("verify", f"{REPO}@v1.1.0")


def test_whoever_reads_while_a_version_is_published_gets_the_old_one(hub, built):
    """Whole, after each step, and when the last one fails."""
    command("publish", built["v1.0.0"], REPO)
    before, found = tags(), []

    def look():
        found.append(opened(REPO).version)

    for step in ("/preupload/", "/commit/main"):
        hub.faults.append(Fault(step, method="POST", after=True, call=look))
    hub.faults.append(Fault("/tag/", method="POST", call=look, status=500))
    command("publish", built["v1.1.0"], REPO, code=1)

    assert found == ["v1.0.0"] * 3
    assert tags() == before
    command("publish", built["v1.1.0"], REPO)
    assert titles() == BOTH


def test_a_dry_run_shows_files_and_bytes_and_sends_nothing(hub, built):
    """On an empty Hub, and for a second version."""
    command("publish", built["v1.0.0"], REPO, "--dry-run")
    assert sent(hub) == []
    command("publish", built["v1.0.0"], REPO)
    sent(hub)
    result = CliRunner().invoke(app, ["publish", str(built["v1.1.0"]), REPO, "--dry-run", "--json"])
    facts = json.loads(result.stdout)["dataset"]

    assert sent(hub) == []
    assert facts["files"] == {"replaced": 6, "deleted": 1}
    gone = "data/rejected/train-00000-of-00001.parquet"
    assert facts["changes"][gone] == "deleted"
    assert facts["bytes"]["deleted"] == (built["v1.0.0"] / gone).stat().st_size
    sizes = [path.stat().st_size for path in built["v1.1.0"].rglob("*.*") if path.is_file()]
    assert facts["bytes"]["replaced"] == sum(sizes)


def test_a_second_publication_says_that_it_was_published(hub, built):
    """With the same commit, and exit code 0."""
    command("publish", built["v1.0.0"], REPO)
    sent(hub)

    assert "was published before" in command("publish", built["v1.0.0"], REPO)
    assert sent(hub) == []


def test_another_version_than_the_folders_is_refused(hub, built):
    """Neither renamed nor published."""
    assert "is v1.0.0, not v2.0.0" in command("publish", built["v1.0.0"], f"{REPO}@v2.0.0", code=2)
    assert hub.requests == []


def test_a_damaged_folder_is_not_published(hub, built, tmp_path):
    """The Hub is not even asked."""
    shutil.copytree(built["v1.0.0"], tmp_path / "copy")
    with open(tmp_path / "copy" / ACCEPTED, "ab") as file:
        file.write(b"x")

    assert ACCEPTED in command("publish", tmp_path / "copy", REPO, code=1)
    assert hub.requests == []


def test_a_failed_check_stops_publication_unless_it_is_allowed(hub, built):
    """The line says which limit was not met."""
    line = command("publish", built["failed"], REPO, code=1)

    assert "memorised is 0.5" in line
    assert "never checked" in command("publish", built["unchecked"], REPO, code=1)
    assert hub.requests == []
    command("publish", built["failed"], REPO, "--allow-failures")
    assert list(tags()) == ["v1.0.0"]


def test_the_generator_goes_to_its_own_repository_first(hub, built):
    """Tagged with the same version; a second run sends neither."""
    words = ["publish", built["named"], REPO]
    more = ["--generator", built["generator"], "--generator-repo", GENERATOR]
    hub.faults.append(Fault("datasets/user/tiny/commit/", status=500))
    command(*words, *more, code=1)

    assert list(tags(GENERATOR, "model")) == ["v1.0.0"]
    command(*words, *more)
    sent(hub)
    command(*words, *more)
    assert sent(hub) == []
    assert titles(GENERATOR, "model") == [FIRST, "Release v1.0.0"]
    assert set(HfApi().list_repo_files(GENERATOR)) == {
        ".gitattributes",
        "model.safetensors",
        "config.json",
    }


@pytest.mark.parametrize(
    ("release", "more", "reason"),
    [
        ("v1.0.0", ["--generator-repo", GENERATOR], "the release names no such repository"),
        ("named", ["--generator-repo", "user/x"], f"the release names {GENERATOR}"),
        ("named", ["--generator-repo", f"{GENERATOR}@v1.0.0"], "leave out the version"),
    ],
)
def test_a_generator_that_the_release_does_not_name_is_explained(hub, built, release, more, reason):
    """Before the Hub is asked."""
    words = ["publish", built[release], REPO, "--generator", built["generator"], *more]

    assert reason in command(*words, code=2)
    assert hub.requests == []


def test_other_weights_than_the_generators_are_refused(hub, built, tmp_path):
    """Nobody could make the samples again from them."""
    shutil.copytree(built["generator"], tmp_path / "generator")
    (tmp_path / "generator" / "model.safetensors").write_bytes(b"of another")
    more = ["--generator", tmp_path / "generator", "--generator-repo", GENERATOR]

    assert "is not the generator" in command("publish", built["named"], REPO, *more, code=2)
    assert "go together" in command("publish", built["named"], REPO, *more[:2], code=2)


def test_large_files_go_through_xet_where_the_client_has_it(hub, built, tmp_path):
    """The way of the Hub itself; what is read is the same."""
    environment = client_environment(hub, tmp_path / "other", token=TOKEN, xet=True)
    words = ["publish", str(built["v1.0.0"]), REPO]
    subprocess.run([sys.executable, "-m", "cgankd.app", *words], env=environment, check=True)

    assert [path for _, path in hub.requests if "xet-write-token" in path]
    assert not [path for _, path in hub.requests if path.startswith("/lfs/")]
    command("verify", REPO)


def test_the_tar_copy_is_published_to_a_repository_of_its_own(hub, built, tmp_path):
    """One repository has one layout."""
    shutil.copytree(built["v1.0.0"], tmp_path / "v1.0.0")
    folder = build_wds(tmp_path / "v1.0.0").folder
    command("publish", folder, "user/tiny-wds")

    command("verify", "user/tiny-wds@v1.0.0")
    line = command("publish", built["v1.1.0"], "user/tiny-wds", code=2)
    assert "holds .tar files" in line


def test_verify_finds_what_was_changed_on_the_hub(hub, built):
    """An added file and a moved tag."""
    command("publish", built["v1.0.0"], REPO)
    api = HfApi()
    operation = CommitOperationAdd("notes.txt", b"notes")
    commit = api.create_commit(REPO, [operation], commit_message="x", repo_type="dataset").oid
    assert "notes.txt was added" in command("verify", f"{REPO}@{commit}", code=1)

    api.delete_tag(REPO, tag="v1.0.0", repo_type="dataset")
    api.create_tag(REPO, tag="v1.0.0", revision=commit, repo_type="dataset")

    assert "the tag moved" in command("verify", f"{REPO}@v1.0.0", code=1)


def test_verify_finds_what_a_publisher_lied_about(hub, built, tmp_path):
    """Every byte is as listed, but there are fewer images than the manifest counts."""
    folder = tmp_path / "v1.0.0"
    shutil.copytree(built["v1.0.0"], folder)
    manifest = read_json(folder / "metadata/manifest.json")
    manifest["accepted"][0] += 1
    write_json(folder / "metadata/manifest.json", manifest)
    api = HfApi()
    api.create_repo(REPO, repo_type="dataset")
    api.upload_folder(repo_id=REPO, folder_path=folder, repo_type="dataset")
    api.create_tag(REPO, tag="v1.0.0", repo_type="dataset")

    assert "accepted" in command("verify", f"{REPO}@v1.0.0", code=1)


def test_pull_gives_a_folder_that_verifies_and_publishes(hub, built, tmp_path):
    """The same release, so publishing it again is nothing new."""
    command("publish", built["v1.0.0"], REPO)
    out = tmp_path / "copy"
    assert "v1.0.0" in command("pull", REPO, "--out", out)

    assert "every file is as its manifest says" in command("verify", out)
    assert "was published before" in command("publish", out, REPO)
    assert "exists; give a new folder" in command("pull", REPO, "--out", out, code=2)
    hub.stop()
    command("pull", f"{REPO}@v1.0.0", "--out", tmp_path / "other", code=1)
    assert not (tmp_path / "other").exists()
    command("pull", f"{REPO}@v1.0.0", "--out", tmp_path / "other", "--offline")


def test_a_hub_that_is_down_and_what_is_not_there_are_explained(hub, built):
    """One line each, with the exit code of its kind."""
    assert "no such dataset" in command("verify", "user/none", code=2)
    assert "does not exist" in command("verify", "./none", code=2)
    hub.stop()
    assert "does not answer" in command("publish", built["v1.0.0"], REPO, code=1)
    assert "does not answer" in command("verify", REPO, code=1)
    assert "never read here" in command("verify", f"{REPO}@v1.0.0", "--offline", code=2)


def test_the_token_is_nowhere_in_what_is_printed_or_kept(hub, built, tmp_path):
    """In a real process with all of the client's logging, also where a server repeats it."""
    told = {"X-Error-Message": f"no: {TOKEN}"}
    hub.faults.append(Fault("/commit/main", method="POST", status=500, headers=told))
    environment = client_environment(hub, tmp_path / "other", token=TOKEN)
    environment["HF_HUB_VERBOSITY"] = "debug"
    words = ([*("publish", str(built["v1.0.0"]), REPO)], ["verify", REPO])
    outputs = [
        subprocess.run(
            [sys.executable, "-m", "cgankd.app", *word], env=environment, capture_output=True
        )
        for word in (words[0], *words)
    ]

    assert [output.returncode for output in outputs] == [1, 0, 0]
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    printed = b"".join(output.stdout + output.stderr for output in outputs)
    assert b"no: ***" in printed
    assert TOKEN.encode() not in printed + kept
