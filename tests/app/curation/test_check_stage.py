"""`check`: what it measures, by which nets, its page and its thresholds."""

import json
import shutil
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pytest
from markupsafe import escape
from typer.testing import CliRunner

from cgankd.app import pipeline
from cgankd.app.cli import app
from cgankd.app.console import Console
from cgankd.app.pages.check import WORDS
from cgankd.app.pages.records import CheckFacts, read_record
from cgankd.app.recipe import load_recipe
from cgankd.nets.networks import load_network
from cgankd.shardset.errors import BadInput
from cgankd.shardset.records import CheckSummary
from cgankd.shardset.tables import read_metadata, read_numbered, read_table, write_table
from cgankd.shardset.weights import weights_sha256
from cgankd.student.evaluate import outputs_of
from tests.app.curation.tiny_stages import FIDELITY, QUIET


@pytest.fixture(scope="module")
def checked(found, tmp_path_factory):
    """A run whose plain selection was checked, what was told, and the page."""
    run = tmp_path_factory.mktemp("runs") / "checked"
    shutil.copytree(found, run)
    overrides = ["policy.quota=15", "policy.filter=none"]
    pipeline.select(run, console=QUIET, name="plain", overrides=overrides)
    told = pipeline.check(
        run, console=QUIET, selection="plain", backend="serial", overrides=["policy.quota=15"]
    )
    return run, told, (run / "check" / "check.html").read_text("utf-8")


def test_a_check_tells_what_the_tables_hold(checked):
    """Counts and shares, from the selection and the pairs by hand; the file says what was told."""
    run, told, _ = checked
    table = read_table(run / "selections" / "plain.parquet").to_pylist()
    columns = read_table(run / "neighbours" / "columns.parquet").to_pylist()
    thresholds = read_metadata(run / "neighbours.parquet")["thresholds"]
    kept = {row["key"] for row in table if row["kept"]}
    groups = {key: {key} for key in range(len(table))}
    for pair in read_table(run / "neighbours.parquet").to_pylist():
        a, b = pair["key_a"], pair["key_b"]
        least = thresholds["duplicates"][str(table[a]["original_label"])]
        if b is not None and pair["similarity"] >= least:
            both = groups[a] | groups[b]
            groups |= dict.fromkeys(both, both)
    alike = {frozenset(members & kept) for members in groups.values()}
    copies = [
        row["key"]
        for row in columns
        if row["key"] in kept
        and row["nearest_real_similarity"]
        >= thresholds["memorised"][str(table[row["key"]]["original_label"])]
    ]

    assert told == json.loads((run / "check" / "check.json").read_text("utf-8"))
    assert told["kept"] == len(kept)
    assert sum(told["dropped"].values()) == len(table) - len(kept)
    assert {frozenset(keys) for keys in told["duplicates"]} == {g for g in alike if len(g) > 1}
    assert told["overall"]["duplicates"] == pytest.approx(
        sum(len(group) - 1 for group in alike if group) / len(kept)
    )
    assert sorted(row["key"] for row in told["memorised"]) == copies
    assert sum(row["duplicates"] for row in told["labels"]) == sum(
        len(keys) - 1 for keys in told["duplicates"]
    )


def test_judge_and_fresh_student_train_as_long_as_the_recipe_says(found, tmp_path):
    """Fewer steps where it asks for fewer; at most so many for the student."""
    run = tmp_path / "run"
    shutil.copytree(found, run)
    pipeline.select(run, console=QUIET, name="plain", overrides=["policy.filter=none"])
    steps = {}

    class Counting(Console):
        @contextmanager
        def task(self, name):
            def progress(done, total, values):
                steps[name] = total

            yield progress

    told = pipeline.check(
        run,
        console=Counting(json=True),
        selection="plain",
        backend="serial",
        overrides=["check.judge_steps=12", "check.learner_steps=7"],
    )

    assert (steps["judge"], steps["learned"]) == (12, 7)
    assert json.loads((run / "check" / "judge" / "config.json").read_text())["steps"] == 12
    assert told["learned"]["steps"] == 7
    assert load_recipe("digits").check.judge_steps == 400


def test_a_check_is_read_by_the_record_that_wrote_it(checked, tmp_path):
    """A damaged one names the field and what to do."""
    run, told, _ = checked
    path = run / "check" / "check.json"

    assert read_record(path, CheckFacts, "check").model_dump(mode="json") == told
    damaged = tmp_path / "check.json"
    damaged.write_text(json.dumps({**told, "kept": "many"}))
    with pytest.raises(BadInput, match=r"kept: .*cgankd check"):
        read_record(damaged, CheckFacts, "check")


def test_a_summary_of_format_1_is_read_with_the_name_it_had(checked):
    """Its overall numbers were called shares."""
    summary = read_record(checked[0] / "check" / "check.json", CheckFacts, "check").of_release()
    older = summary.model_dump(mode="json")
    older["shares"] = older.pop("overall")

    assert CheckSummary.model_validate_json(json.dumps(older)) == summary


def test_the_judge_selected_nothing_and_saw_no_test_image(checked):
    """Fidelity is the judge's alone, whose weights are not the ratio's; no opening was counted."""
    run, told, _ = checked
    ratio = json.loads((run / "ratio" / "stage.json").read_text())["facts"]["sha256"]
    fidelity = [row for row in told["metrics"] if row["metric"] in FIDELITY]

    assert told["judge"]["sha256"] != ratio
    assert {row["metric"] for row in fidelity} == FIDELITY
    assert {row["judge"]["sha256"] for row in fidelity} == {told["judge"]["sha256"]}
    assert {row["judge"]["split"] for row in fidelity} == {None, "train", "validation"}
    assert not any(row["judge"]["selected"] for row in fidelity)
    assert "test_openings" not in json.loads((run / "run.json").read_text())


def test_nets_that_took_part_say_in_what(checked):
    """The teacher filters nothing here, so it flatters nothing; the ratio subsampled, if at all."""
    run, told, _ = checked
    teacher = json.loads((run / "teacher" / "stage.json").read_text())["facts"]["sha256"]
    policy = read_metadata(run / "selections" / "plain.parquet")["policy"]
    by = {row["metric"]: row["judge"] for row in told["metrics"]}
    subsampled = "policy.subsample" if policy["subsample"] is not None else ""

    assert {by[name]["sha256"] for name in by if name.startswith("teacher")} == {teacher}
    assert by["teacher_agreement"]["selected"] == ""
    assert by["duplicate_rate"]["selected"] == subsampled


def test_teacher_and_tables_are_measured_overall_and_by_label(checked):
    """As the score table says by hand; shares of real validation images beside them."""
    run, told, _ = checked
    table = read_table(run / "selections" / "plain.parquet").to_pandas()
    scores = read_numbered(run / "scores").to_pandas()
    kept = scores[table["kept"]]
    right = kept["teacher_label"] == kept["label"]
    value = {(row["metric"], row["place"]): row["value"] for row in told["metrics"]}
    ratio = json.loads((run / "ratio" / "stage.json").read_text())["facts"]

    assert value["teacher_agreement", "all"] == pytest.approx(right.mean())
    for label, own in right.groupby(kept["label"]):
        assert value["teacher_agreement", str(label)] == pytest.approx(own.mean())
    assert 0 <= value["teacher_calibration_error", "all"] <= 1
    assert 0 <= value["teacher_calibration_error_on_real", "all"] <= 1
    validation = json.loads((run / "teacher" / "stage.json").read_text())["facts"]["validation"]
    assert value["teacher_accuracy", "all"] == pytest.approx(validation["accuracy"] / 100)
    assert value["duplicate_rate", "all"] == told["overall"]["duplicates"]
    assert (("effective_sample", "all") in value) == (not ratio["problems"])


def test_a_fresh_student_learns_from_kept_images_alone(checked):
    """Its stored weights answer for the validation images as check.json says."""
    run, told, _ = checked
    recipe = pipeline.recipe_of_run(run, None, [])
    net, config = load_network(run / "check" / "learned")
    with pipeline.opened(run, recipe, console=QUIET, device="cpu", backend="serial") as ctx:
        pixels, labels = ctx.data.validation_pixels, ctx.data.validation_labels
    right = outputs_of(net, pixels).argmax(1) == labels
    row = next(r for r in told["metrics"] if r["metric"] == "classification_accuracy_score")

    assert (row["value"], row["samples"]) == (pytest.approx(right.mean()), len(labels))
    assert row["judge"]["sha256"] == weights_sha256(run / "check" / "learned")
    assert told["learned"] == {
        "network": config["network"],
        "images": told["kept"],
        "steps": 20,
        "batch": 64,
        "lr": 0.1,
    }


def test_a_check_without_the_teachers_weights_leaves_real_images_out(checked, tmp_path):
    """What the score table holds is there all the same."""
    run = shutil.copytree(checked[0], tmp_path / "run")
    (run / "teacher" / "model.safetensors").unlink()
    told = pipeline.check(run, console=QUIET, selection="plain", backend="serial")
    names = {row["metric"] for row in told["metrics"]}

    assert {"teacher_agreement", "teacher_calibration_error"} <= names
    assert not {"teacher_accuracy", "teacher_calibration_error_on_real"} & names


def test_a_label_with_one_kept_image_is_checked_too(checked, tmp_path):
    """What it is too small for has no value and says so; the page is written."""
    run = shutil.copytree(checked[0], tmp_path / "run")
    path = run / "selections" / "plain.parquet"
    table, metadata = read_table(path), read_metadata(path)
    kept = table["kept"].to_numpy().copy()
    own = np.flatnonzero(kept & (table["label"].to_numpy() == 3))
    kept[own[1:]] = False
    write_table(path, table.set_column(1, "kept", pa.array(kept)), metadata)
    told = pipeline.check(run, console=QUIET, selection="plain", backend="serial")
    fid = next(r for r in told["metrics"] if (r["metric"], r["place"]) == ("fid", "3"))

    assert next(row for row in told["labels"] if row["label"] == "3")["auc"] is None
    assert fid["value"] is None
    assert fid["warning"].startswith("1 samples against")
    assert (run / "check" / "check.html").is_file()


def test_a_check_compares_every_step_of_the_selection(checked):
    """Two-sample check and bound of each arm's set, in order; labels worst first."""
    _, told, _ = checked
    names = ["raw", "subsampled", "filtered", "relabelled", "plain"]
    agreements = [row["agreement"] for row in told["labels"]]

    assert [row["name"] for row in told["bound"]["terms"]] == names
    assert set(told["two_sample"]) == set(names)
    assert told["advice"][-1].endswith(told["bound"]["line"])
    assert agreements == sorted(agreements)


def test_the_page_of_a_check_needs_nothing_else(checked):
    """Pictures are in it, at most twenty groups are shown, and every table that was promised."""
    _, told, page = checked

    assert "http:" not in page
    assert "https:" not in page
    assert 'src="/' not in page
    assert page.count("data:image/png") == min(len(told["duplicates"]), 20) + min(
        len(told["memorised"]), 20
    )
    for title in ("Labels, worst first", "Near-duplicates", "Memorised", "Real or kept?"):
        assert title in page
    for name in {row["metric"] for row in told["metrics"]}:
        assert escape(WORDS[name].meaning) in page
    assert told["judge"]["sha256"][:12] in page


def test_a_check_fails_beyond_a_threshold_and_writes_its_page_all_the_same(checked, tmp_path):
    """Exit 1, the threshold by name and value; the same check without thresholds passes."""
    run = shutil.copytree(checked[0], tmp_path / "run")
    shutil.rmtree(run / "neighbours")  # a check finds them where they are not there
    command = ["check", str(run), "--selection", "plain", "--backend", "serial"]
    limits = ["--set", "check.duplicates=0.01", "--set", "check.memorised=1"]
    result = CliRunner().invoke(app, [*command, *limits])
    told = json.loads((run / "check" / "check.json").read_text("utf-8"))

    assert result.exit_code == 1
    assert (run / "recipe.yaml").read_bytes() == (checked[0] / "recipe.yaml").read_bytes()
    assert len(told["failures"]) == 1
    assert "at most 0.01 was asked for" in " ".join(result.stderr.split())
    assert told["failures"][0] in (run / "check" / "check.html").read_text("utf-8")


def test_a_check_of_a_selection_that_is_not_there_names_those_that_are(checked):
    """The names come from the folder."""
    with pytest.raises(BadInput, match="no selection 'none'; it has plain"):
        pipeline.check(checked[0], console=QUIET, selection="none", backend="serial")
