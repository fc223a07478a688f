"""Neighbours as a stage, selections that go by them, and what differs between selections."""

import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from cgankd.app import diff, pipeline, regenerating
from cgankd.app.cli import app
from cgankd.app.console import Console
from cgankd.app.stages.selections import arm_policies, select_all
from cgankd.curation.policies import Policy
from cgankd.curation.policies.teacher_rules import Quantile
from cgankd.shardset.errors import BadInput
from cgankd.shardset.tables import read_metadata, read_table
from tests.app.curation.tiny_stages import DUPLICATES, QUIET, files, stage
from tests.app.tiny import OVERRIDES


def test_every_shard_has_features_of_every_sample_at_half_precision(found):
    """float16, a row per sample, one file per shard of 60, finite where there is an image."""
    parts = [np.load(path) for path in sorted((found / "features" / "ratio").glob("*.npy"))]

    assert [part.shape for part in parts] == [(60, 64)] * 5
    assert all(part.dtype == np.float16 and np.isfinite(part).all() for part in parts)


def test_two_workers_find_the_same_neighbours(scored, found, tmp_path):
    """Features and tables do not depend on the number of workers."""
    run = shutil.copytree(scored, tmp_path / "two")
    stage("neighbours", run, backend="processes", workers=2)

    assert files(run) == files(found)


def test_what_is_missing_is_made_again_and_the_rest_is_left(found, copy):
    """After a kill between two shards: only the missing one is made, with the same bytes."""
    (copy / "neighbours" / "stage.json").unlink()
    (copy / "features" / "ratio" / "000002.json").unlink()
    other = copy / "features" / "ratio" / "000001.npy"
    before = other.stat().st_mtime_ns
    stage("neighbours", copy)

    assert files(copy) == files(found)
    assert other.stat().st_mtime_ns == before


def test_selecting_by_duplicates_reads_tables_alone(copy):
    """Images, weights and features may be gone; no two kept samples are connected duplicates."""
    for gone in [*copy.glob("pool/*.tar"), *copy.glob("*/model.safetensors")]:
        gone.unlink()
    shutil.rmtree(copy / "features")
    facts = pipeline.select(copy, console=QUIET, overrides=[DUPLICATES, "policy.quota=null"])
    pairs = read_table(copy / "neighbours.parquet").to_pylist()
    least = read_metadata(copy / "neighbours.parquet")["thresholds"]["duplicates"]
    table = read_table(copy / "selections" / "cgan-kd.parquet").to_pylist()
    kept = {row["key"] for row in table if row["kept"]}

    assert facts["dropped"]["duplicate"] > 0
    assert facts["kept"] == len(kept)
    for pair in pairs:
        label = table[pair["key_a"]]["original_label"]
        if pair["key_b"] is not None and pair["similarity"] >= least[str(label)]:
            assert not {pair["key_a"], pair["key_b"]} <= kept


def test_a_diverse_quota_is_chosen_by_the_stored_features(copy):
    """Eight of each label are kept, others than the lowest keys."""
    pipeline.select(copy, console=QUIET, name="lowest")
    pipeline.select(copy, console=QUIET, name="far", overrides=["policy.diversity=farthest"])
    lowest, far = (
        read_table(copy / "selections" / f"{name}.parquet").to_pandas()
        for name in ("lowest", "far")
    )

    assert (far[far.kept].groupby("label").size() == 8).all()
    assert not far.kept.equals(lowest.kept)


def test_a_policy_on_neighbours_that_are_not_there_names_the_command(scored):
    """Nothing is searched behind one's back: `select` says what to run."""
    with pytest.raises(BadInput, match="run `cgankd find-neighbours"):
        pipeline.select(scored, console=QUIET, name="strict", overrides=[DUPLICATES])


def test_changed_settings_of_the_search_are_refused_by_name(copy):
    """A quantile is part of what the tables are; --redo replaces them."""
    with pytest.raises(BadInput, match=r"neighbours\.quantile = 0.9999, now it is 0.99"):
        stage("neighbours", copy, overrides=["neighbours.quantile=0.99"])
    stage("neighbours", copy, overrides=["neighbours.quantile=0.99"], redo=["neighbours"])

    assert read_metadata(copy / "neighbours.parquet")["thresholds"]["duplicates"]


def test_a_pool_that_grows_is_searched_again_before_selections_go_by_it(copy):
    """The arms' quota of 31 tops the pool up; neighbours then are of every sample."""
    recipe = pipeline.recipe_of_run(copy, None, [DUPLICATES, "policy.quota=31"])
    with pipeline.opened(copy, recipe, console=QUIET, device="cpu", backend="serial") as ctx:
        counts = select_all(ctx)
    rows = len(read_table(copy / "selections" / "cgan-kd.parquet"))

    assert rows > 300
    assert len(read_table(copy / "neighbours" / "columns.parquet")) == rows
    assert counts["cgan-kd"]["dropped"]["duplicate"] > 0
    assert all("duplicate" not in counts[name]["dropped"] for name in counts if name != "cgan-kd")


def test_each_arm_differs_from_the_next_in_one_thing():
    """Subsampling, then the recipe's filter; what goes by neighbours is in the last one alone."""
    policy = Policy(
        filter="band",
        memorised=0.9,
        outliers="calibrated",
        duplicates="calibrated",
        relabel=True,
        quota=5,
        diversity="farthest",
    )
    arms = {name: arm.model_dump() for name, arm in arm_policies(policy).items()}

    def changed(first, second):
        return {field for field in arms[first] if arms[first][field] != arms[second][field]}

    assert changed("raw", "subsampled") == {"subsample"}
    assert changed("subsampled", "filtered") == {"filter"}
    assert changed("subsampled", "relabelled") == {"relabel"}
    assert changed("filtered", "cgan-kd") == {
        "relabel",
        "copies",
        "outliers",
        "duplicates",
        "quota",
    }
    assert arms["filtered"]["filter"]["kind"] == "band"
    assert arm_policies(Policy(filter="none"))["filtered"].filter == Quantile()


def test_diff_says_which_keys_changed_and_why(copy):
    """Of two selections of a run: those and only those whose row of the tables changed."""
    pipeline.select(copy, console=QUIET, name="loose")
    pipeline.select(copy, console=QUIET, name="strict", overrides=[DUPLICATES])
    command = ["diff", str(copy), "--from", "loose", "--to", "strict", "--json"]
    result = CliRunner().invoke(app, command)
    told = json.loads(result.stdout)
    loose, strict = (
        read_table(copy / "selections" / f"{name}.parquet").to_pylist()
        for name in ("loose", "strict")
    )
    expected = [a["key"] for a, b in zip(loose, strict, strict=True) if a["kept"] != b["kept"]]

    assert result.exit_code == 0
    assert [row["key"] for row in told["keys"]] == expected
    assert told["changed"] == sum(row["count"] for row in told["why"]) == len(expected)
    assert {"change": "went", "reason_before": None, "reason_after": "duplicate"}.items() <= (
        told["why"][0].items()
    )
    assert sum(row["went"] for row in told["labels"]) == sum(
        row["count"] for row in told["why"] if row["change"] == "went"
    )


def test_diff_of_two_releases_is_that_of_their_selections(copy):
    """A release holds every key's decision."""
    for version, name in (("v1.0.0", "raw"), ("v1.1.0", "subsampled")):
        overrides = ["policy.subsample=none", f"policy.quota={5 + len(name)}"]
        pipeline.select(copy, console=QUIET, name=name, overrides=overrides)
        pipeline.release(copy, console=QUIET, version=version, selection=name, rejected=False)
    folders = [copy / "release" / version for version in ("v1.0.0", "v1.1.0")]

    between = diff.diff(*folders, console=QUIET)
    of_tables = diff.diff(copy, console=QUIET, from_="raw", to="subsampled")
    same = ("changed", "why", "labels", "keys", "counts", "space", "policy", "metrics")
    assert [between[name] for name in same] == [of_tables[name] for name in same]
    assert between["why"] == [
        {"change": "came", "reason_before": "quota", "reason_after": None, "count": 70}
    ]


def test_a_release_of_a_run_tells_how_its_samples_are_made_again(copy):
    """Every one of them, by the manifest and the generator's weights alone."""
    pipeline.select(copy, console=QUIET)
    facts = pipeline.release(
        copy, console=QUIET, version="v1.0.0", selection="cgan-kd", rejected=False
    )
    again = regenerating.regenerate(
        facts["folder"], console=QUIET, keys="0-299", verify=True, generator=copy / "generator"
    )

    assert again["equal"] == 300


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "was given alone"),
        ({"from_": "nothing"}, "has no selection 'nothing'"),
        ({"after": "elsewhere"}, r"neither a run nor a release folder.* user/name@v1\.0\.0"),
    ],
)
def test_diff_of_nothing_to_compare_says_what_to_give(copy, given, message):
    """One folder without two names, a name that is not there, a folder that is none."""
    given = {n: copy / v if n == "after" else v for n, v in given.items()}
    pipeline.select(copy, console=QUIET)
    with pytest.raises(BadInput, match=message):
        diff.diff(copy, console=QUIET, **given)


def test_a_quota_above_the_pool_keeps_all_and_names_what_is_short(copy, capsys):
    """The pool grows to its bound; then each label is told with what is missing."""
    overrides = ["policy.quota=1000", "policy.subsample=none", "policy.filter=none"]
    recipe = pipeline.recipe_of_run(copy, None, [*overrides, "pool.max_factor=1"])
    with pipeline.opened(copy, recipe, console=Console(), device="cpu", backend="serial") as ctx:
        counts = select_all(ctx)
    said = " ".join(capsys.readouterr().err.split())

    assert counts["cgan-kd"]["kept"] == 300
    assert "cgan-kd: 3 is 970 short of its quota; raise pool.max_factor" in said


@pytest.mark.parametrize(("given", "counted"), [([], False), ([DUPLICATES], True)])
def test_a_dry_run_counts_neighbours_where_the_policy_goes_by_them(tmp_path, given, counted):
    """In time and in disk; nothing is written."""
    out = tmp_path / "run"
    told = pipeline.run(
        "digits",
        out=out,
        console=QUIET,
        device="cpu",
        overrides=[*OVERRIDES, *given],
        dry_run=True,
    )

    assert ("neighbours" in told["seconds"]) == counted
    seconds = told["seconds"].values()  # some of them beside one another
    assert max(seconds) <= told["total_seconds"] <= sum(seconds)
    assert not out.exists()
