"""A real run: verdicts go into its next release, policies are saved and run."""

import json
import shutil
from contextlib import suppress

import numpy as np
import pytest

from cgankd.app import pipeline
from cgankd.app.recipe import load_recipe
from cgankd.app.review.policy import preview, run_selection, save_recipe
from cgankd.app.review.sample import open_reals, real_picture, sample
from cgankd.app.review.state import ReviewState
from cgankd.app.review.subject import open_subject
from cgankd.curation.policies import Policy
from cgankd.shardset.errors import BadInput, RatioRefused, StaleStage
from cgankd.shardset.files import read_json
from cgankd.shardset.pool.run_folder import RunFolder
from cgankd.shardset.tables import read_metadata, read_table
from tests.app.review.tiny_reviews import ME, QUIET, pixels_in
from tests.app.tiny import OVERRIDES


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A tiny run up to its scores."""
    run = tmp_path_factory.mktemp("whole") / "run"
    pipeline.stage(
        "teacher", run, console=QUIET, device="cpu", backend="serial",
        recipe="digits", overrides=OVERRIDES,
    )  # fmt: skip
    for name in ("generator", "pool", "ratio", "scores"):
        with suppress(RatioRefused):
            pipeline.stage(name, run, console=QUIET, device="cpu", backend="serial")
    pipeline.select(run, console=QUIET)
    pipeline.select(run, console=QUIET, name="raw")
    return run


def release(run, version):
    return pipeline.release(run, console=QUIET, version=version, selection="cgan-kd", rejected=True)


def test_verdicts_go_into_the_next_release(whole, tmp_path):
    """A verdict makes the selection stale; the next one and its release honour it, and name no
    one.
    """
    run = shutil.copytree(whole, tmp_path / "run")
    raw = (run / "selections" / "raw.parquet").read_bytes()
    release(run, "v1.0.0")
    state = ReviewState.open(run)
    subject = state.subject
    kept, dropped = np.flatnonzero(subject.kept), np.flatnonzero(~subject.kept)
    state.give(kept[:3], "reject", reviewer="Annabel Lee")
    state.give(kept[3:4], "relabel", label=9, reviewer="Annabel Lee")
    state.give(dropped[:1], "accept", reviewer="Annabel Lee", comment="fine by me")
    state.give(kept[4:5], "flag", reviewer="Annabel Lee")

    with pytest.raises(StaleStage, match="was selected before the newest verdicts"):
        release(run, "v1.1.0")
    facts = run_selection(subject, load_recipe(str(run / "recipe.yaml")).policy, "cgan-kd", True)
    built = release(run, "v1.1.0")
    released = open_subject(built["folder"])
    after = preview(subject, load_recipe(str(run / "recipe.yaml")).policy, state.reviews())

    assert facts["dropped"]["reviewer"] == 3
    assert [subject.space.names[released.label[row]] for row in kept[3:4]] == ["9"]
    assert released.original_label[kept[3]] == subject.original_label[kept[3]]
    assert released.kept[dropped[0]]
    assert not released.kept[kept[:3]].any()
    assert np.array_equal(released.reason, after.selection.reason)
    counts = {"accept": 1, "reject": 3, "relabel": 1}
    assert released.facts["reviews"] == {"sha256": state.reviews().deciding().sha256(), **counts}
    for path in (path for path in (run / "release" / "v1.1.0").rglob("*") if path.is_file()):
        assert b"Annabel" not in path.read_bytes()
        assert b"fine by me" not in path.read_bytes()
    assert (run / "selections" / "raw.parquet").read_bytes() == raw


def test_flags_and_comments_make_nothing_stale(whole, tmp_path):
    """They are notes to people."""
    run = shutil.copytree(whole, tmp_path / "run")
    before = (run / "selections" / "cgan-kd.parquet").read_bytes()
    ReviewState.open(run).give([0, 1], "flag", comment="hm", **ME)
    pipeline.select(run, console=QUIET)

    assert (run / "selections" / "cgan-kd.parquet").read_bytes() == before
    assert "reviews" not in read_metadata(run / "selections" / "cgan-kd.parquet")
    assert "reviews" not in read_json(run / "selections" / "cgan-kd.json")["fields"]


def test_arms_with_parts_left_out_heed_no_verdicts(whole, tmp_path):
    """They show what each part of the policy does."""
    run = shutil.copytree(whole, tmp_path / "run")
    before = (run / "selections" / "raw.parquet").read_bytes()
    state = ReviewState.open(run)
    state.give(np.arange(50), "reject", **ME)
    pipeline.select(run, console=QUIET, name="raw")
    pipeline.select(run, console=QUIET, name="mine")

    assert (run / "selections" / "raw.parquet").read_bytes() == before
    mine = read_table(run / "selections" / "mine.parquet")
    assert mine["reason"].to_pylist()[:50] == ["reviewer"] * 50


def test_a_previewed_policy_is_saved_and_run(whole, tmp_path):
    """As a recipe that loads with it, and as a selection under a name of its own."""
    run = shutil.copytree(whole, tmp_path / "run")
    subject, policy = open_subject(run), Policy(subsample="none", rho=0.5)
    saved = save_recipe(subject, policy, tmp_path / "mine.yaml")
    facts = run_selection(subject, policy, "half")
    seen = preview(subject, policy)

    assert load_recipe(str(saved)).policy == policy
    assert load_recipe(str(saved)).name == "digits"
    assert facts["kept"] == seen.counts["kept"].sum()
    again = open_subject(run, "half")
    assert np.array_equal(again.reason, seen.selection.reason)
    assert again.policy == policy
    for name, problem in (("half", "there is a selection"), ("raw", "the arms"), ("a/b", "name")):
        with pytest.raises(BadInput, match=problem):
            run_selection(again, policy, name)
    with pytest.raises(BadInput, match="exists"):
        save_recipe(subject, policy, saved)


def test_a_released_recipe_is_saved_with_another_policy(whole, tmp_path):
    """From the manifest's own recipe; a release is never selected again."""
    run = shutil.copytree(whole, tmp_path / "run")
    folder = release(run, "v1.0.0")["folder"]
    released = open_subject(folder)
    saved = save_recipe(released, Policy(rho=0.5), tmp_path / "mine.yaml")

    assert load_recipe(str(saved)).policy == Policy(rho=0.5)
    with pytest.raises(BadInput, match="which never changes"):
        run_selection(released, Policy(), "mine")
    assert "limits are fitted on all" in " ".join(preview(released, Policy(quota=8)).notes)
    assert json.loads(json.dumps(released.facts["policy"])) == released.policy.model_dump(
        mode="json"
    )


def test_reals_are_the_budgets_and_no_test_images(whole):
    """Training then validation, as the run's recipe splits them."""
    subject = open_subject(whole)
    reals = open_reals(subject)
    openings = RunFolder(whole).facts().get("test_openings", {})

    assert len(reals.pixels) == len(reals.labels) == 100  # ten of each class
    assert 0 < reals.train < 100
    assert openings == {}
    assert sample(subject, 0).nearest_real is None  # no neighbours were found
    assert np.array_equal(pixels_in(real_picture(reals, 3, side=0)), reals.pixels[3, 0])
    assert "is not among the 100" in real_picture(reals, 100).error
