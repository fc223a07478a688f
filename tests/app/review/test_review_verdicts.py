"""Verdicts, previews of policies, and two selections side by side."""

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from cgankd.app.recipe import load_recipe
from cgankd.app.review.policy import compare, overrides_of, preview
from cgankd.app.review.sample import open_reals
from cgankd.app.review.state import Filter, ReviewState, matching
from cgankd.app.review.subject import SCORES, open_subject
from cgankd.curation.policies import Policy
from cgankd.shardset.errors import BadInput
from cgankd.shardset.pool.run_folder import RunFolder
from cgankd.shardset.records import RatioFacts
from cgankd.shardset.reviews import VERDICTS, Decision, ReviewSession
from cgankd.shardset.tables import read_table, write_table
from cgankd.shardset.testing import tiny_plan, tiny_space
from tests.app.review.tiny_reviews import ME, shown, write_run


def test_verdicts_are_there_after_opening_again(run):
    """Reject three, relabel one, undo one, close, open: what is on disk is what was shown."""
    state = ReviewState.open(run)
    state.give([1, 2, 3], "reject", **ME)
    state.give([4], "relabel", label=2, comment="a two", **ME)
    state.give([5], "accept", **ME)
    assert state.undo(**ME).tolist() == [5]
    again = ReviewState.open(run)

    for name in ("verdict", "relabelled"):
        assert np.array_equal(getattr(state, name), getattr(again, name), equal_nan=True)
    assert again.counts() == {"reject": 3, "relabel": 1}
    assert again.relabelled[4] == 2
    assert again.comments[[4, 5]].tolist() == ["a two", ""]
    assert again.reviewers[[4, 5]].tolist() == ["first", ""]
    assert [again.verdict_text(row) for row in (3, 4, 5)] == ["reject", "relabel class 2", ""]
    assert shown(again.subject, Filter(verdicts=("relabel",)), again.verdict) == [4]


def test_undo_brings_back_each_verdict_that_stood_before(run):
    """Also where the rows of one go had different ones, step by step, and then nothing."""
    state = ReviewState.open(run)
    state.give([1], "relabel", label=0, comment="zero", **ME)
    state.give([2], "flag", reviewer="second")
    before = state.verdict.copy(), state.relabelled.copy()
    state.give([1, 2, 3], "reject", **ME)
    state.undo(**ME)
    again = ReviewState.open(run)

    assert np.array_equal(again.verdict, before[0])
    assert np.array_equal(again.relabelled, before[1], equal_nan=True)
    assert (again.comments[1], again.reviewers[2]) == ("zero", "second")
    state.undo(**ME)
    state.undo(**ME)
    assert state.undo(**ME) is None
    assert ReviewState.open(run).counts() == {}


def test_a_verdict_on_all_that_match_is_one_line(run):
    """One decision, one line; a comment keeps the verdicts and flags the rest."""
    state = ReviewState.open(run, session="tab")
    dropped = np.flatnonzero(matching(state.subject, state.verdict, Filter(kept=False)))
    state.give(dropped, "accept", **ME)
    assert len((run / "reviews" / "tab.jsonl").read_text().splitlines()) == 1
    rows = [int(dropped[0]), int(np.flatnonzero(state.subject.kept)[0])]
    state.comment(rows, "<b>look</b>", **ME)
    again = ReviewState.open(run)

    assert again.counts() == {"accept": len(dropped), "flag": 1}
    assert set(again.comments[rows]) == {"<b>look</b>"}
    state.undo(**ME)
    assert ReviewState.open(run).counts() == {"accept": len(dropped)}


def test_two_tabs_see_each_other_after_a_refresh(run):
    """Each writes its own file; whoever spoke last is heard."""
    subject = open_subject(run)
    one, two = ReviewState.open(subject), ReviewState.open(subject)
    one.give([1, 2], "accept", **ME)
    two.give([2], "reject", reviewer="second")
    one.refresh()
    two.refresh()

    assert len(list((run / "reviews").iterdir())) == 2
    assert one.verdict.tolist() == two.verdict.tolist()
    assert [VERDICTS[one.verdict[row]] for row in (1, 2)] == ["accept", "reject"]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ({"rows": [], "verdict": "accept"}, "no sample is chosen"),
        ({"rows": [1], "verdict": "relabel"}, "relabel needs a label"),
        ({"rows": [1], "verdict": "relabel", "label": 3}, "the new label: label 3"),
        ({"rows": [1], "verdict": "accept", "comment": "x" * 2001}, "not saved: comment"),
        ({"rows": [1], "verdict": "accept", "reviewer": ""}, "not saved: reviewer"),
    ],
)
def test_what_cannot_be_said_leaves_everything_as_it_was(run, words, problem):
    """One line, no file, nothing to undo."""
    state = ReviewState.open(run)
    with pytest.raises(BadInput, match=problem):
        state.give(**{**ME, **words})

    assert state.counts() == {}
    assert not (run / "reviews").exists()
    assert state.undo(**ME) is None


def test_a_release_is_reviewed_in_a_folder_beside_it(built, tmp_path):
    """Or in one that is given; the release itself stays as it is."""
    copy = shutil.copytree(built.folder, tmp_path / "v1.0.0")
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    ReviewState.open(copy).give([1], "reject", **ME)
    ReviewState.open(copy, reviews=tmp_path / "cache").give([2], "reject", **ME)

    assert before == {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    assert ReviewState.open(copy).verdict.argmax() == 1
    assert len(list((tmp_path / "reviews-v1.0.0").iterdir())) == 1
    assert ReviewState.open(copy, reviews=tmp_path / "cache").verdict.argmax() == 2


def test_verdicts_of_another_pool_are_refused_on_opening(run):
    """With file and line."""
    ReviewSession.open(run / "reviews", "old").append(
        [Decision(key=99, verdict="reject", reviewer="first")]
    )
    with pytest.raises(BadInput, match=r"old\.jsonl line 1: key 99 is not in this pool of 60"):
        ReviewState.open(run)


def test_a_preview_is_what_selecting_would_do(subject, made):
    """By the numbers of the keys; the difference is that of the two tables."""
    policy = Policy(accept=0.8, rho=0.7, quota=9)
    seen = preview(subject, policy)
    before = read_table(made / "selections" / "cgan-kd.parquet")
    keys = before["key"].to_numpy()
    now, was = seen.selection.kept, before["kept"].to_numpy()
    changes = {"came": keys[now & ~was], "went": keys[was & ~now]}

    assert seen.counts["kept"].max() <= 9
    assert seen.counts.sum(axis=1).tolist() == [20, 20, 20]
    for change, expected in changes.items():
        assert seen.examples[change].tolist() == expected[:12].tolist()
    assert sum(seen.why["count"].to_pylist()) == sum(map(len, changes.values()))
    assert len(preview(subject, policy, examples=1).examples["went"]) == 1


def test_a_preview_heeds_verdicts_and_neighbours(run):
    """Rejected samples go for reviewer; near-duplicates by the stored pairs."""
    state = ReviewState.open(run)
    state.give([10], "reject", **ME)
    policy = Policy(subsample="none", filter="none", duplicates="calibrated", memorised=0.99)
    seen = preview(state.subject, policy, state.reviews())

    assert seen.counts.drop(columns="kept").sum().to_dict() == {
        "duplicate": 2,
        "memorised": 1,
        "reviewer": 1,
    }
    with pytest.raises(BadInput, match="needs features"):
        preview(state.subject, Policy(quota=3, diversity="farthest"))
    (run / "neighbours.parquet").unlink()
    with pytest.raises(BadInput, match="need neighbours"):
        preview(open_subject(run), policy)


def test_a_starving_label_is_named(subject):
    """How many are missing to a quota."""
    assert preview(subject, Policy(quota=50)).shortfall.keys() == set(tiny_space().names)


def test_a_refused_ratio_does_not_subsample(run):
    """As selecting would not, and it is said."""
    refused = RatioFacts(
        sha256="0",
        problems=("mean ratio 0.2",),
        per_label=(),
        overall={},
        raw_mean=0.2,
        steps=0,
        strength=0.0,
    )
    RunFolder(run).finish_stage("ratio", {}, refused.model_dump(mode="json"))
    seen = preview(open_subject(run), Policy(accept=0.1, filter="none"))

    assert seen.selection.kept.all()
    assert "mean ratio 0.2" in seen.notes[0]


def test_a_policy_as_overrides_is_read_back(tmp_path):
    """Every field, also numbers that YAML writes in its own way, and null."""
    policy = Policy(rho=1e-5, duplicates=0.5, outliers="calibrated", quota=3, diversity="kmeans")

    assert load_recipe("digits", overrides_of(policy)).policy == policy
    assert load_recipe("digits", overrides_of(Policy())).policy == Policy()


def test_reals_are_not_there_without_a_source(subject, built):
    """A reason instead, in one line."""
    for one in (subject, open_subject(built.folder)):
        with pytest.raises(BadInput, match="holds no real images"):
            open_reals(one)


def test_two_selections_are_compared_key_by_key(run):
    """What only one keeps, the pairs of reasons, and scores on the same bins."""
    table = read_table(run / "selections" / "cgan-kd.parquet")
    kept = pc.and_(table["kept"], pc.greater_equal(table["key"], 30))
    reason = pc.if_else(kept, None, pc.coalesce(table["reason"], pa.scalar("quota")))
    other = table.set_column(1, "kept", kept).set_column(2, "reason", reason)
    write_table(run / "selections" / "late.parquet", other, {})
    first, second = open_subject(run), open_subject(run, "late")
    seen = compare(first, second)

    assert seen.only_first.tolist() == [key for key in first.key[first.kept] if key < 30]
    assert seen.only_second.tolist() == []
    assert seen.why.to_pylist() == [
        {
            "change": "went",
            "reason_before": None,
            "reason_after": "quota",
            "count": len(seen.only_first),
        }
    ]
    assert set(seen.spreads) == set(SCORES)
    assert all(np.allclose(shares.sum(), 1) for shares in seen.spreads.values())


def test_different_pools_are_compared_by_counts_alone(subject, tmp_path):
    """Their keys mean different samples; other labels cannot be compared at all."""
    other = write_run(tmp_path / "other", tiny_plan(seed=5), tiny_space())
    seen = compare(subject, open_subject(other))

    assert seen.why is None
    assert [counts.to_numpy().sum() for counts in seen.counts] == [60, 24]
    two = write_run(tmp_path / "two", tiny_plan(classes=2), tiny_space(2))
    with pytest.raises(BadInput, match="different labels"):
        compare(subject, open_subject(two))
