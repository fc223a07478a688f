"""The whole pipeline on a tiny scale: the same bytes however it is run, and everything in place."""

import json
import os
import shutil
import signal
import subprocess
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from datasets import ClassLabel, load_dataset

from cgankd.app import pipeline
from cgankd.app.console import Console
from cgankd.app.recipe import load_recipe
from cgankd.generator import BigGAN, build_generator
from cgankd.shardset.errors import BadInput
from cgankd.shardset.files import read_json, sha256_file, write_json
from cgankd.shardset.labels import ClassLabels
from cgankd.shardset.pool.plan import read_plan
from cgankd.shardset.release.manifest import read_manifest
from cgankd.shardset.release.verify import verify_release
from cgankd.shardset.tables import read_numbered, read_table
from tests.app.tiny import OVERRIDES, content, files, run_command, run_tiny, wait_for


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A tiny run, undisturbed, in this machine's one process."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    result = run_tiny(out, "--backend", "serial", "--json")

    assert result.returncode == 0, result.stderr
    return out, json.loads(result.stdout)


def test_a_run_leaves_what_the_format_promises(finished):
    """Every stage's folder is there and report.json follows its schema."""
    out, report = finished

    for name in ("teacher", "generator", "ratio", "pool", "scores", "students", "report"):
        assert (out / name).is_dir(), name
    assert {"task", "metric", "arms", "teacher", "pool", "kept", "dropped", "seconds"} <= set(
        report
    )
    assert report == json.loads((out / "report" / "report.json").read_text())
    assert report["arm_order"] == list(load_recipe("digits").arms)
    for arm in report["arms"].values():
        assert {"mean", "std", "values", "steps", "images_seen"} <= set(arm)
        assert len(arm["values"]) == 2


def test_every_arm_that_uses_generated_images_uses_the_same_number(finished):
    """Ten classes of quota 8, whatever the policy."""
    out, _ = finished
    tables = [read_table(path) for path in sorted((out / "selections").glob("*.parquet"))]

    assert len(tables) == 5
    assert {sum(table["kept"].to_pylist()) for table in tables} == {80}


def test_every_dropped_sample_has_one_reason_and_every_kept_one_none(finished):
    """`reason` is null exactly where `kept` is true, and keys are those of the pool."""
    out, _ = finished
    pool = read_numbered(out / "pool", ("key",))

    for path in (out / "selections").glob("*.parquet"):
        table = read_table(path)
        assert table["key"].equals(pool["key"])
        for kept, reason in zip(
            table["kept"].to_pylist(), table["reason"].to_pylist(), strict=True
        ):
            assert kept == (reason is None)


def test_the_release_loads_as_a_trainer_expects(finished):
    """Plain `load_dataset(folder)["train"]` has images and class names."""
    out, _ = finished
    data = load_dataset(str(out / "release" / "v1.0.0"), cache_dir=str(out.parent / "cache"))

    assert len(data["train"]) == 80
    assert isinstance(data["train"].features["label"], ClassLabel)
    assert data["train"][0]["image"].size == (8, 8)


def test_the_test_split_was_opened_once_by_the_report(finished):
    """run.json counts every look at the test images."""
    out, _ = finished

    assert json.loads((out / "run.json").read_text())["test_openings"] == {"report": 1}


def test_a_second_run_does_nothing_again(finished, tmp_path):
    """Finished stages are recognised: no file of theirs is written anew."""
    original, report = finished
    out = tmp_path / "copy"
    subprocess.run(["cp", "-a", str(original), str(out)], check=True)
    before = {p: p.stat().st_mtime_ns for p in (out / "pool").iterdir()}
    weights = [p.stat().st_mtime_ns for p in sorted(out.glob("students/trained/*/*.safetensors"))]
    result = run_tiny(out, "--backend", "serial", "--json")

    assert result.returncode == 0, result.stderr
    again = json.loads(result.stdout)
    assert {p: p.stat().st_mtime_ns for p in (out / "pool").iterdir()} == before
    assert weights == [
        p.stat().st_mtime_ns for p in sorted(out.glob("students/trained/*/*.safetensors"))
    ]
    assert {n: a["values"] for n, a in report["arms"].items()} == {
        n: a["values"] for n, a in again["arms"].items()
    }


def test_two_worker_processes_make_the_same_bytes(finished, tmp_path):
    """Stages side by side, and jobs in two workers: every file is that of one after the other, but
    for run.json and the report, which tell the time.
    """
    out, report = finished
    two = tmp_path / "two"
    result = run_tiny(two, "--workers", "2", "--json")

    assert result.returncode == 0, result.stderr
    ours, theirs = ({**files(run), "run.json": b""} for run in (out, two))
    assert list(ours) == list(theirs)
    assert [name for name, data in ours.items() if theirs[name] != data] == []
    assert report["arms"] == json.loads(result.stdout)["arms"]
    seconds = json.loads(result.stdout)["seconds"]
    assert set(seconds) == set(report["seconds"])


def test_ctrl_c_while_stages_run_side_by_side_leaves_a_run_that_goes_on(finished, tmp_path):
    """One line is said, no process is left, and the same command ends with the same bytes."""
    out, _ = finished
    ended = tmp_path / "ended"
    process = subprocess.Popen(
        run_command(ended, "--workers", "2", "--set", "generator.training.iterations=1000000"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    wait_for(ended / "generator" / "checkpoint.safetensors", process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
    messages = process.stderr.read().decode()  # ends when no process holds the pipe any more
    process.stderr.close()

    assert process.wait() == 1
    assert messages.splitlines()[-1].startswith("error: interrupted; run the same command again")
    assert "Traceback" not in messages
    shutil.rmtree(ended / "generator")  # those of a longer training
    result = run_tiny(ended, "--workers", "2")
    assert result.returncode == 0, result.stderr
    assert content(out) == content(ended)


@pytest.mark.parametrize(
    "marker", ["pool/000001.json", "scores/000002.json", "selections/raw.parquet"]
)
def test_a_run_killed_in_a_stage_ends_with_the_same_bytes(finished, tmp_path, marker):
    """SIGKILL while producing, scoring or selecting, then the same command again."""
    out, _ = finished
    killed = tmp_path / "killed"
    process = subprocess.Popen(
        run_command(killed, "--backend", "serial"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(killed / marker, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    result = run_tiny(killed, "--backend", "serial")

    assert result.returncode == 0, result.stderr
    assert content(out) == content(killed)


def test_a_changed_setting_is_refused_by_name_and_redo_replaces_it(finished, tmp_path):
    """A stale stage says which field changed; --redo makes it anew."""
    out, _ = finished
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", str(out), str(copy)], check=True)
    refused = run_tiny(copy, "--set", "pool.per_label=31")

    assert refused.returncode == 2
    assert "per_label = 30, now it is 31" in " ".join(refused.stderr.split())
    assert "--redo pool" in " ".join(refused.stderr.split())
    assert content(copy) == content(out)


def test_selecting_with_another_rho_reads_the_score_table_alone(finished, tmp_path):
    """The source, the weights and the shards may be gone."""
    out, _ = finished
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", str(out), str(copy)], check=True)
    for gone in [*copy.glob("pool/*.tar"), *copy.glob("*/model.safetensors")]:
        gone.unlink()
    command = run_command(copy)[:3]
    result = subprocess.run(
        [*command, "select", str(copy), "--name", "strict", "--set", "policy.rho=0.5"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode == 0, result.stderr
    reasons = read_table(copy / "selections" / "strict.parquet")["reason"].to_pylist()
    loose = read_table(copy / "selections" / "cgan-kd.parquet")["reason"].to_pylist()
    assert reasons.count("teacher") > loose.count("teacher")
    assert (copy / "recipe.yaml").read_bytes() == (out / "recipe.yaml").read_bytes()


def test_a_published_generator_takes_the_place_of_training(tmp_path):
    """A `G_ema.pth` as ajbrock/BigGAN-PyTorch saves it produces a pool without a training step."""
    config = BigGAN(kind="biggan-cifar", width=8, latent_dim=8)
    space = ClassLabels(names=tuple("0123456789")).model_dump(mode="json")
    shape = {**config.model_dump(), "image_size": 8, "channels": 1, "space": space}
    torch.save(build_generator(shape).state_dict(), tmp_path / "G_ema.pth")
    out, console = tmp_path / "run", Console()
    overrides = [
        *OVERRIDES,
        f"generator.weights={tmp_path / 'G_ema.pth'}",
        "generator.network.kind=biggan-cifar",
    ]
    facts = pipeline.stage(
        "generator", out, console=console, recipe="digits", overrides=overrides, backend="serial"
    )
    pool = pipeline.stage("pool", out, console=console, backend="serial")

    assert facts["steps"] == 0
    assert pool["samples"] == 300


def test_a_release_is_the_next_version_of_what_changed(finished, tmp_path):
    """The students' results are a patch with the same data, other samples are minor, nothing is
    nothing; what the publisher states goes into the card.
    """
    out, report = finished
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", str(out), str(copy)], check=True)
    console = Console(json=True)
    given = {"console": console, "selection": "cgan-kd", "rejected": False}

    other = read_json(copy / "report" / "report.json")
    write_json(copy / "report" / "report.json", {**other, "selection_sha256": "0" * 64})
    assert pipeline.release(copy, **given)["version"] == "v1.0.0"  # it is of another selection
    write_json(copy / "report" / "report.json", other)
    patch = pipeline.release(copy, **given)
    first, second = copy / "release" / "v1.0.0", copy / "release" / "v1.0.1"
    assert patch["version"] == "v1.0.1"
    for path in first.rglob("*.parquet"):
        assert path.read_bytes() == (second / path.relative_to(first)).read_bytes()
    told = read_json(second / "metadata" / "report.json")
    assert {n: a["values"] for n, a in told["arms"].items()} == {
        n: a["values"] for n, a in report["arms"].items()
    }
    assert "seconds" not in told
    assert "## Students" in (second / "README.md").read_text()

    assert pipeline.release(copy, **given) == patch
    stated = pipeline.release(copy, **given, overrides=["card.license=mit"], wds=True)
    assert stated["version"] == "v1.0.2"
    assert "license: mit\n" in (copy / "release" / "v1.0.2" / "README.md").read_text()
    assert verify_release(Path(stated["wds"])) == []
    assert pipeline.release(copy, **given, wds=True)["wds"] == stated["wds"]
    with pytest.raises(BadInput, match=r"policy\.rho=0\.5: a release takes card"):
        pipeline.release(copy, **given, overrides=["policy.rho=0.5"])

    pipeline.select(copy, console=console, name="strict", overrides=["policy.quota=5"])
    strict = pipeline.release(copy, console=console, selection="strict", rejected=True)
    assert (strict["version"], strict["accepted"]) == ("v1.1.0", 50)
    manifest = read_manifest(copy / "release" / "v1.1.0")
    assert manifest.changes is not None
    assert manifest.changes.policy == {"quota.size": (8, 5)}
    with pytest.raises(BadInput, match=r"release/v1\.0\.0 .* a release never changes"):
        pipeline.release(copy, console=console, selection="strict", rejected=True, version="v1.0.0")


def test_a_check_of_the_released_selection_is_in_its_card(finished, tmp_path):
    """One of another selection is not."""
    out, _ = finished
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", str(out), str(copy)], check=True)
    console = Console(json=True)
    found = pipeline.check(copy, console=console, backend="serial")

    for selection, expected in (("cgan-kd", "v1.0.1"), ("raw", "v1.1.0")):
        built = pipeline.release(copy, console=console, selection=selection, rejected=False)
        assert built["version"] == expected
        manifest = read_manifest(copy / "release" / expected)
        checked, text = (
            manifest.lineage.plain()["check"],
            (copy / "release" / expected / "README.md"),
        )
        if selection == "cgan-kd":
            assert checked["judge"] == found["judge"]
            assert len(checked["metrics"]) == sum(m["kind"] == "all" for m in found["metrics"])
            assert "## Fidelity" in text.read_text()
        else:
            assert checked is None
            assert "## Fidelity" not in text.read_text()


def test_a_release_says_how_to_make_its_samples_again(finished):
    """The plan's numbers, what computed it and the hashes of the weights; nothing of time."""
    out, _ = finished
    manifest = read_manifest(out / "release" / "v1.0.0")
    plan = read_plan(out / "pool" / "plan.json")

    assert manifest.lineage.plain()["production"] == {
        "seed": plan.seed,
        "batch": 20,
        "threads": 1,
        "precision": "float32",
        "device": read_json(out / "run.json")["device"],
        "libraries": {name: version(name) for name in ("torch", "numpy")},
        "plan_version": 1,
        "shard_size": 60,
        "rounds": [300],
    }
    for network, folder in (("generator", "generator"), ("teacher", "teacher")):
        weights = out / folder / "model.safetensors"
        assert getattr(manifest.lineage.weights, network) == sha256_file(weights)
    assert manifest.lineage.generator_repo is None
    assert [stage["step"] for stage in manifest.lineage.stages] == [
        "teacher", "generator", "pool", "density ratio", "scores", "selection",
    ]  # fmt: skip
    assert verify_release(out / "release" / "v1.0.0") == []


def test_a_release_whose_run_was_killed_before_its_marker_is_kept(finished, tmp_path):
    """A folder that is there is whole; only the same inputs take it for theirs."""
    out, _ = finished
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", str(out), str(copy)], check=True)
    (copy / "release" / "v1.0.0.json").unlink()
    given = {"console": Console(json=True), "selection": "cgan-kd", "version": "v1.0.0"}
    before = content(copy)
    with pytest.raises(BadInput, match=r"v1\.0\.0 exists and a release never changes"):
        pipeline.release(copy, **given, rejected=True)
    pipeline.release(copy, **given, rejected=False)

    after = content(copy)
    assert after.keys() - before.keys() == {"release/v1.0.0.json"}
    assert {name: after[name] for name in before} == before
