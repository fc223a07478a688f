"""The pipeline for labels that are numbers: the same promises as for classes."""

import csv
import json
import shutil
import signal
import subprocess

import numpy as np
import pytest
from datasets import load_dataset
from PIL import Image

from cgankd.app import evaluating, pipeline, train_from_release
from cgankd.app.console import Console
from cgankd.app.recipe import without_place
from cgankd.shardset.errors import BadInput, CorruptShard
from cgankd.shardset.pool.plan import read_plan, write_plan
from cgankd.shardset.tables import read_numbered, read_table
from tests.app.test_bad_input import refused
from tests.app.tiny import RECIPES, content, run_command, run_tiny, wait_for

RECIPE = "rotated-digits"


def pictures(folder, labels, size=32):
    """Colour pictures, each as bright as its label says, with Hugging Face's metadata.csv."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    rows = [("file_name", "label")]
    for number, label in enumerate(labels):
        pixels = random.integers(60, size=(size, size, 3), dtype=np.uint8)
        finite = label if isinstance(label, float) and np.isfinite(label) else 0.0
        pixels[: max(1, int(size * finite / 10))] += 150
        Image.fromarray(pixels, "RGB").save(folder / f"{number:03d}.png")
        rows.append((f"{number:03d}.png", label))
    with open(folder / "metadata.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A tiny run, undisturbed, in this machine's one process."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    result = run_tiny(out, "--backend", "serial", "--json", recipe=RECIPE)

    assert result.returncode == 0, result.stderr
    return out, json.loads(result.stdout)


def test_the_report_speaks_of_errors_in_the_labels_unit(finished):
    """`metric` is mae, every arm without logit losses is there."""
    out, report = finished

    assert report["task"] == "regression"
    assert report["metric"] == "mae"
    assert "hinton" not in report["arms"]
    for arm in report["arms"].values():
        assert len(arm["values"]) == 2
        assert all(0 < value < 120 for value in arm["values"])
    page = (out / "report" / "report.html").read_text("utf-8")
    assert "degrees" in page


def test_replaced_labels_are_the_teachers_numbers_within_the_range(finished):
    """Floats, clipped to ±60 degrees, with the original label kept beside them."""
    out, _ = finished
    scores = read_numbered(out / "scores")
    chosen = read_table(out / "selections" / "cgan-kd.parquet")
    labels = chosen["label"].to_numpy()

    np.testing.assert_array_equal(labels, scores["teacher_value"].to_numpy())
    np.testing.assert_array_equal(chosen["original_label"], scores["label"])
    assert labels.dtype == np.float64
    assert np.abs(labels).max() <= 60
    error = np.abs(scores["teacher_value"].to_numpy() - scores["label"].to_numpy())
    np.testing.assert_allclose(scores["teacher_error"], error, rtol=1e-5, atol=1e-5)


def test_the_release_loads_with_float_labels(finished):
    """Plain `load_dataset` gives images and numbers; the card names the unit."""
    out, _ = finished
    data = load_dataset(str(out / "release" / "v1.0.0"), cache_dir=str(out.parent / "cache"))

    assert data["train"].features["label"].dtype == "float64"
    assert data["train"][0]["image"].size == (16, 16)
    assert "degrees" in (out / "release" / "v1.0.0" / "README.md").read_text("utf-8")


def test_a_release_is_written_in_the_published_layout(finished, tmp_path):
    """`release --h5`: uint8 images and unnormalised labels under the authors' names."""
    h5py = pytest.importorskip("h5py")
    out, _ = finished
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", str(out), str(copy)], check=True)
    facts = pipeline.release(
        copy, console=Console(), version="v1.0.1", selection="cgan-kd", rejected=False, h5=True
    )
    kept = read_table(copy / "selections" / "cgan-kd.parquet").filter(
        read_table(copy / "selections" / "cgan-kd.parquet")["kept"]
    )
    with h5py.File(facts["h5"], "r") as file:
        assert file["fake_images"].shape == (len(kept), 1, 16, 16)
        np.testing.assert_array_equal(np.sort(file["fake_labels"][:]), np.sort(kept["label"]))


def test_a_student_trains_from_the_release_and_is_evaluated(finished, tmp_path):
    """From its folder alone; the figures are in the label's unit."""
    out, _ = finished
    facts = train_from_release.train(
        str(out / "release" / "v1.0.0"), "convnet-1k", tmp_path / "student",
        console=Console(), real="rotated-digits", method="labels", overrides=[], seed=0,
        device="cpu",
    )  # fmt: skip
    found = evaluating.evaluate(
        tmp_path / "student", "rotated-digits", console=Console(),
        overrides=["budget.test_fraction=0.1"], device="cpu",
    )  # fmt: skip

    assert facts["label_space"]["unit"] == "degrees"
    assert found["rmse"] >= found["mae"] > 0


def test_a_check_slides_along_the_label(finished, tmp_path):
    """Each number has windows; the teacher's are what the score table says by hand."""
    out = shutil.copytree(finished[0], tmp_path / "run")
    told = pipeline.check(out, console=Console(json=True), selection="subsampled", backend="serial")
    table = read_table(out / "selections" / "subsampled.parquet").to_pandas()
    error = read_numbered(out / "scores").to_pandas()["teacher_error"][table["kept"]]
    rows = {(row["metric"], row["place"]): row for row in told["metrics"]}
    near = error[(table["label"][table["kept"]] + 60).abs() <= 1.5 * 120 / 4 / 2]

    assert rows["teacher_label_score", "all"]["value"] == pytest.approx(error.mean(), rel=1e-5)
    window = rows["teacher_label_score", "−60 degrees"]
    assert (window["value"], window["samples"]) == (pytest.approx(near.mean(), rel=1e-5), len(near))
    assert rows["learned_error", "all"]["judge"]["split"] == "validation"
    kinds = {name: {r["kind"] for r in told["metrics"] if r["metric"] == name} for name, _ in rows}
    assert all(kind == {"all", "group", "window"} for kind in kinds.values())
    assert not any("calibration" in name for name in kinds)
    assert "Along the label" in (out / "check" / "check.html").read_text("utf-8")


def test_two_worker_processes_make_the_same_bytes(finished, tmp_path):
    """Shards, scores, selections and release do not depend on the number of workers."""
    out, report = finished
    result = run_tiny(tmp_path / "two", "--workers", "2", "--json", recipe=RECIPE)

    assert result.returncode == 0, result.stderr
    assert content(out) == content(tmp_path / "two")
    assert report["arms"] == json.loads(result.stdout)["arms"]


@pytest.mark.long  # the same stages with classes are killed in test_pipeline
@pytest.mark.parametrize(
    "marker", ["pool/000001.json", "scores/000001.json", "selections/raw.parquet"]
)
def test_a_run_killed_in_a_stage_ends_with_the_same_bytes(finished, tmp_path, marker):
    """SIGKILL while producing, scoring or selecting, then the same command again."""
    out, _ = finished
    killed = tmp_path / "killed"
    process = subprocess.Popen(
        run_command(killed, "--backend", "serial", recipe=RECIPE),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wait_for(killed / marker, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    result = run_tiny(killed, "--backend", "serial", recipe=RECIPE)

    assert result.returncode == 0, result.stderr
    assert content(out) == content(killed)


def test_a_folder_that_no_preset_was_made_for(tmp_path):
    """32 px in colour, labels in bar, one of them outside the range: a row, not the end."""
    random = np.random.default_rng(1)
    labels = [*random.uniform(0, 10, 69).tolist(), 10.5]
    folder = pictures(tmp_path / "photos", labels)
    out = tmp_path / "run"
    result = run_tiny(
        out, "--json", "--set", f"source=imagefolder:{folder}", "--set", "label.unit=bar",
        "--set", "label.range=[0, 10]", "--set", "budget.total=45",
        "--set", "pool.labels=11", recipe=RECIPE,
    )  # fmt: skip

    assert result.returncode == 0, result.stderr
    source = json.loads((out / "run.json").read_text())["source"]
    assert [row["image"] for row in source["rejected"]] == ["069.png"]
    assert "10.5" in source["rejected"][0]["status"]
    assert "bar" in (out / "release" / "v1.0.0" / "README.md").read_text("utf-8")


def refused_source(tmp_path, source, *sets):
    """The error line of a run on a source."""
    out = tmp_path / "run"
    words = [word for override in (f"source={source}", *sets) for word in ("--set", override)]
    return refused(out, "run", RECIPE, "--out", out, *words)


def test_a_missing_unit_is_refused(tmp_path):
    """A folder of numbers does not say what they are."""
    folder = pictures(tmp_path / "photos", [1.0, 2.0, 3.0, 4.0, 5.0])
    line = refused_source(tmp_path, f"imagefolder:{folder}", "label.range=[0, 10]")

    assert "label.unit" in line


def test_one_unique_label_is_refused(tmp_path):
    """There is nothing to learn along one number."""
    folder = pictures(tmp_path / "photos", [4.0] * 8)
    line = refused_source(
        tmp_path, f"imagefolder:{folder}", "label.unit=bar", "label.range=[0, 10]"
    )

    assert "label" in line


def test_labels_that_are_no_numbers_are_refused_when_none_is_left(tmp_path):
    """NaN is no label."""
    folder = pictures(tmp_path / "photos", [float("nan")] * 6)
    line = refused_source(
        tmp_path, f"imagefolder:{folder}", "label.unit=bar", "label.range=[0, 10]"
    )

    assert "nan" in line.lower()


def test_a_full_turn_is_refused_as_circular(tmp_path):
    """0 and 360 degrees would be one label."""
    folder = pictures(tmp_path / "photos", [1.0, 2.0, 3.0, 4.0, 5.0])
    line = refused_source(
        tmp_path, f"imagefolder:{folder}", "label.unit=degrees", "label.range=[0, 360]"
    )

    assert "circular" in line


def test_an_h5_file_without_the_expected_keys_lists_its_own(tmp_path):
    """The keys found are named, and the layouts that are known."""
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        file["pictures"] = np.zeros((4, 1, 16, 16), np.uint8)
    line = refused_source(tmp_path, f"h5:{path}", "label.unit=years", "label.range=[1, 60]")

    assert "pictures" in line
    assert "images_train" in line


def test_arms_that_distil_logits_are_refused_for_numbers(tmp_path):
    """A regression teacher has no logits."""
    out = tmp_path / "run"
    line = refused(out, "run", RECIPE, "--out", out, "--set", "arms=[no-kd, hinton]")

    assert "hinton" in line


def test_another_number_of_parts_is_another_selection(finished, tmp_path):
    """Its table says by which parts it was made, and the recipe's release does not take it."""
    out, _ = finished
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", str(out), str(copy)], check=True)
    again = pipeline.select(copy, console=Console(), overrides=["label.groups=6"])
    pipeline.select(copy, console=Console(), name="six", overrides=["label.groups=6"])

    assert again["came"] + again["went"] > 0
    with pytest.raises(BadInput, match="6 parts"):
        pipeline.release(copy, console=Console(), version="v1.1.0", selection="six", rejected=False)


def test_a_release_does_not_say_where_a_file_lies(tmp_path):
    """Only the names of files and folders of this machine go into the manifest."""
    (tmp_path / "data.h5").touch()

    assert without_place(f"h5:{tmp_path / 'data.h5'}") == "h5:data.h5"
    assert without_place(str(tmp_path / "data.h5")) == "data.h5"
    assert without_place("hf:someone/faces@main") == "hf:someone/faces@main"
    assert without_place("digits") == "digits"


def test_a_pool_that_was_only_planned_follows_the_recipe(tmp_path):
    """A plan without a shard is made anew when the recipe asks for other labels."""
    overrides = list(RECIPES[RECIPE])
    out = tmp_path / "run"
    pipeline.stage(
        "generator", out, console=Console(), recipe=RECIPE, overrides=overrides, backend="serial"
    )
    other = [*overrides, "pool.labels=5"]
    pipeline.stage("pool", out, console=Console(), recipe=RECIPE, overrides=other, backend="serial")
    for path in (out / "pool").iterdir():
        if path.name != "plan.json":
            path.unlink()
    facts = pipeline.stage(
        "pool", out, console=Console(), recipe=RECIPE, overrides=overrides, backend="serial"
    )

    assert facts["samples"] == 12 * 25


def test_a_killed_top_up_is_finished_by_the_next_run(finished, tmp_path):
    """Shards that are planned and missing are made, though the stage was done before."""
    out, _ = finished
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", str(out), str(copy)], check=True)
    plan = read_plan(copy / "pool" / "plan.json")
    more = plan.topped_up(dict.fromkeys(plan.planned, 2))
    write_plan(copy / "pool" / "plan.json", more)
    facts = pipeline.stage("pool", copy, console=Console(), backend="serial")

    assert facts["samples"] == more.count


def test_a_top_up_reads_what_an_earlier_run_made(finished, tmp_path):
    """A shard that has changed since is named, whatever shards are made now."""
    out, _ = finished
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-a", str(out), str(copy)], check=True)
    plan = read_plan(copy / "pool" / "plan.json")
    write_plan(copy / "pool" / "plan.json", plan.topped_up(dict.fromkeys(plan.planned, 2)))
    tar = copy / "pool" / "000000.tar"
    data = bytearray(tar.read_bytes())
    data[-1] ^= 1
    tar.write_bytes(data)

    with pytest.raises(CorruptShard, match=r"000000\.tar has other bytes"):
        pipeline.stage("pool", copy, console=Console(), backend="serial")
