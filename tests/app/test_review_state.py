"""What the review app's pages draw: columns, filters, images, verdicts, previews, comparisons."""

import base64
import io
import json
import shutil
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from PIL import Image

from app import commands
from app.console import Console
from app.recipe import load_recipe
from app.review_blind import BlindPair, blind_pairs, blind_score, wilson
from app.review_compare import compare
from app.review_data import SCORES
from app.review_filters import Filter, counted, histogram, matching, ordered, page, pages
from app.review_images import stored_pictures, thumbnails
from app.review_opening import open_subject, with_selection
from app.review_policy import overrides_of, preview, run_selection, save_recipe
from app.review_sample import (
    Reals,
    nearest_kept,
    open_reals,
    probabilities,
    real_picture,
    reals_or_reason,
    rows_along,
    rows_by_label,
    sample,
)
from app.review_state import ReviewState
from curation.neighbour_table import Neighbours, Thresholds
from curation.policy import Policy
from shardset.errors import BadInput, CorruptShard, RatioRefused, StaleStage
from shardset.files import read_json
from shardset.reviews import NONE, VERDICTS, Decision, ReviewSession
from shardset.run_folder import RunFolder
from shardset.shards import PoolShardWriter, read_shard
from shardset.tables import read_metadata, read_numbered, read_table, write_table
from shardset.testing import (
    tiny_continuous_plan,
    tiny_continuous_space,
    tiny_plan,
    tiny_space,
    write_tiny_pool,
    write_tiny_release,
    write_tiny_scores,
    write_tiny_selection,
)
from tests.app.tiny import OVERRIDES

QUIET = Console(json=True)
ME = {"reviewer": "first"}


def write_neighbours(run, plan, space):
    """Samples 0 and 1, and 2 and 4, are alike; sample 3 is as near to a real image as can be."""
    count = plan.count
    near = np.full(count, 0.5, np.float32)
    near[3] = 0.999
    groups = range(len(space.group_names))
    labels = np.concatenate([plan.labels(spec) for spec in plan.shards])
    found = Neighbours(
        key=np.arange(count),
        nearest_real_id=np.arange(count) % 5,
        nearest_real_similarity=near,
        nearest_validation_id=np.full(count, -1),
        nearest_validation_similarity=np.full(count, np.nan, np.float32),
        outlier=np.linspace(0, 2, count).astype(np.float32),
        key_a=np.array([0, 2]),
        key_b=np.array([1, 4]),
        similarity=np.array([0.97, 0.99], np.float32),
        thresholds=Thresholds(
            memorised=dict.fromkeys(groups, 0.99),
            duplicates=dict.fromkeys(groups, 0.95),
            outliers=dict.fromkeys(groups, 3.0),
            loosest=dict.fromkeys(groups, 0.9),
            centre_distance=dict.fromkeys(groups, 1.0),
        ),
    )
    write_table(
        run / "neighbours.parquet",
        found.table(space.group_of(labels)),
        {"thresholds": found.thresholds.as_json()},
    )
    write_table(run / "neighbours" / "columns.parquet", found.columns())


def write_run(run, plan, space):
    """A run up to its selection, with what a page reads."""
    write_tiny_pool(run / "pool", plan)
    write_tiny_scores(run / "scores", plan)
    write_tiny_selection(run / "selections" / "cgan-kd.parquet", run / "scores")
    RunFolder(run).record(source={"spec": "none", "space": space.model_dump(mode="json")})
    write_neighbours(run, plan, space)
    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of classes."""
    folder = tmp_path_factory.mktemp("runs") / "classes"
    return write_run(folder, tiny_plan(per_label=20), tiny_space())


@pytest.fixture
def run(made, tmp_path):
    """One to change."""
    return shutil.copytree(made, tmp_path / "run")


@pytest.fixture(scope="module")
def subject(made):
    return open_subject(made)


@pytest.fixture(scope="module")
def angles(tmp_path_factory):
    """A run of continuous labels."""
    folder = tmp_path_factory.mktemp("runs") / "angles"
    return open_subject(write_run(folder, tiny_continuous_plan(), tiny_continuous_space()))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return write_tiny_release(tmp_path_factory.mktemp("released"))


def rows_where(table, test):
    return [i for i, row in enumerate(table.to_pylist()) if test(row)]


def nothing_said(subject):
    return np.full(len(subject), NONE, np.int8)


def shown(subject, wanted, verdict=None):
    verdict = nothing_said(subject) if verdict is None else verdict
    return np.flatnonzero(matching(subject, verdict, wanted)).tolist()


# What is on disk


def test_a_run_opens_as_columns_in_key_order(subject, made):
    """Every column is what the tables say, without an object for each row."""
    scores = read_numbered(made / "scores")
    chosen = read_table(made / "selections" / "cgan-kd.parquet")

    assert subject.key.tolist() == list(range(60))
    for name in ("density_ratio", "teacher_error", "teacher_entropy"):
        assert subject.scores[name].tolist() == scores[name].to_pylist()
    assert subject.teacher_told.tolist() == scores["teacher_label"].to_pylist()
    assert subject.kept.tolist() == chosen["kept"].to_pylist()
    assert subject.selection == "cgan-kd"
    assert subject.policy == Policy(filter="agreement")
    assert subject.notes == ()
    columns = [v for v in vars(subject).values() if isinstance(v, np.ndarray)]
    assert all(column.dtype != object for column in [*columns, *subject.scores.values()])


def test_neighbours_give_duplicates_memorised_and_outliers(subject):
    """By the thresholds that are stored with them."""
    alike = subject.duplicate_group

    assert np.flatnonzero(alike >= 0).tolist() == [0, 1, 2, 4]
    assert alike[0] == alike[1] != alike[2] == alike[4]
    assert np.flatnonzero(subject.memorised).tolist() == [3]
    assert subject.scores["outlier"][-1] == 2
    assert nearest_kept(replace(subject, reason=np.full(60, -1, np.int8)), 1)[0].key == 0


def test_a_release_opens_with_the_same_decisions(built):
    """As the run that it was made from has them; its verdicts lie beside it."""
    released = open_subject(built.folder)
    made_from = read_table(built.folder.parent / "run" / "selections" / "cgan-kd.parquet")

    assert released.kept.tolist() == made_from["kept"].to_pylist()
    assert released.kind == "release"
    assert released.reviews == built.folder.parent / "reviews-v1.0.0"
    assert "neighbours are not part of a release" in released.notes
    assert not released.memorised.any()


def test_what_is_missing_is_a_note_and_the_rest_is_shown(run):
    """No scores, no neighbours, no selection: the pool can still be looked at."""
    for folder in ("scores", "neighbours", "selections"):
        shutil.rmtree(run / folder)
    bare = open_subject(run)

    assert bare.kept.all()
    assert len(bare.notes) == 3
    assert all(np.isnan(values).all() for values in bare.scores.values())
    assert thumbnails(bare, [0])[0].error is None
    assert histogram(bare, "teacher_error") is None
    with pytest.raises(BadInput, match="no scores to select by"):
        preview(bare, Policy())
    assert sample(bare, 0).teacher == ()


def test_half_made_tables_are_named(run):
    """Scores of a part of the pool, and a selection from before a top-up."""
    (run / "scores" / "000005.parquet").unlink()
    table = read_table(run / "selections" / "cgan-kd.parquet")
    write_table(run / "selections" / "cgan-kd.parquet", table.slice(0, 50), {})
    notes = open_subject(run).notes

    assert "50 of 60 samples are scored: run score again" in notes
    assert any("selection cgan-kd decides on 50 samples of 60" in note for note in notes)


@pytest.mark.parametrize("spec", ["/nothing/here", "a/path/too/long", "."])
def test_what_cannot_be_opened_is_named(spec, tmp_path, monkeypatch):
    """Neither a run nor a release: one line."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=f"{spec} is neither a run nor a release"):
        open_subject(spec)


def test_a_selection_is_chosen_by_name(run):
    """Another one's decisions on the same samples; an unknown name is refused."""
    write_tiny_selection(run / "selections" / "raw.parquet", run / "scores")
    table = read_table(run / "selections" / "raw.parquet")
    everything = table.set_column(1, "kept", pa.array([True] * 60))
    everything = everything.set_column(2, "reason", pa.nulls(60, pa.string()))
    write_table(run / "selections" / "raw.parquet", everything, {"policy": {"accept": 7}})
    opened = open_subject(run)

    assert opened.selections == ("cgan-kd", "raw")
    assert not opened.kept.all()
    raw = with_selection(opened, "raw")
    assert raw.kept.all()
    assert raw.policy is None  # one that this version does not know
    with pytest.raises(BadInput, match="no selection 'best'; it has cgan-kd, raw"):
        open_subject(run, "best")


def test_a_strange_reason_is_refused(run):
    """A table that contradicts itself is not shown."""
    path = run / "selections" / "cgan-kd.parquet"
    table = read_table(path)
    strange = pc.if_else(table["kept"], None, "<script>")
    write_table(path, table.set_column(2, "reason", strange), {})
    with pytest.raises(CorruptShard, match="is dropped for <script>, expected one of ratio"):
        open_subject(run)


# Filters, order, pages, counts


def test_filters_are_what_a_loop_over_rows_finds(subject, made):
    """Each one alone, against the tables."""
    scores, chosen = (
        read_numbered(made / "scores"),
        read_table(made / "selections" / "cgan-kd.parquet"),
    )
    told = rows_where(scores, lambda row: row["label"] != row["teacher_label"])
    verdict = nothing_said(subject)
    verdict[[5, 7]] = VERDICTS.index("reject"), VERDICTS.index("flag")

    assert shown(subject, Filter()) == list(range(60))
    assert shown(subject, Filter(labels=(0, 2))) == rows_where(scores, lambda r: r["label"] != 1)
    assert shown(subject, Filter(kept=True)) == rows_where(chosen, lambda r: r["kept"])
    assert shown(subject, Filter(reasons=("teacher",))) == rows_where(
        chosen, lambda r: not r["kept"]
    )
    assert shown(subject, Filter(reasons=("ratio",))) == []
    assert shown(subject, Filter(ranges=(("teacher_error", 0.1, 1.0),))) == rows_where(
        scores, lambda r: 0.1 <= r["teacher_error"] <= 1
    )
    assert shown(subject, Filter(duplicates=True)) == [0, 1, 2, 4]
    assert shown(subject, Filter(memorised=True)) == [3]
    assert shown(subject, Filter(teacher_disagrees=True)) == told != []
    assert shown(subject, Filter(verdicts=("reject", "flag")), verdict) == [5, 7]
    assert shown(subject, Filter(verdicts=("none",)), verdict) == [
        i for i in range(60) if i not in (5, 7)
    ]
    assert shown(subject, Filter(labels=(0,), duplicates=True, verdicts=("none",))) == [0, 1, 2, 4]


def test_a_limit_read_from_a_score_lets_that_score_pass(subject):
    """A slider at the largest value shows the sample that has it."""
    errors = subject.scores["teacher_error"]
    least, most = float(errors.min()), float(errors.max())

    assert len(shown(subject, Filter(ranges=(("teacher_error", least, most),)))) == 60


def test_continuous_labels_are_filtered_by_range_and_by_part(angles):
    """Both ends included; the teacher disagrees where its value is in another part."""
    labels = angles.original_label.tolist()
    parts = angles.space.group_of(angles.teacher_told) != angles.space.group_of(np.array(labels))

    assert shown(angles, Filter(label_range=(-60, 0))) == [
        i for i, label in enumerate(labels) if label <= 0
    ]
    assert shown(angles, Filter(teacher_disagrees=True)) == np.flatnonzero(parts).tolist()
    strip = rows_along(angles, 5)
    assert (np.diff(angles.label[strip]) > 0).all()
    assert angles.kept[strip].all()
    ends = angles.label[angles.kept]
    assert angles.label[strip][[0, -1]].tolist() == [ends.min(), ends.max()]


@pytest.mark.parametrize(
    "wanted",
    [
        Filter(reasons=("love",)),
        Filter(ranges=(("beauty", 0, 1),)),
        Filter(verdicts=("maybe",)),
    ],
)
def test_an_unknown_name_in_a_filter_is_refused(subject, wanted):
    """With the names there are."""
    with pytest.raises(BadInput, match="is not one of"):
        shown(subject, wanted)


def test_rows_are_sorted_stably_with_missing_values_last(subject):
    """Equal values stay in the order of keys, up or down."""
    values = np.tile(np.array([2, np.nan, 1], np.float32), 20)
    some = replace(subject, scores={**subject.scores, "outlier": values})
    everything = np.ones(60, bool)
    up = ordered(some, nothing_said(some), everything, "outlier").tolist()
    down = ordered(some, nothing_said(some), everything, "outlier", descending=True).tolist()
    ones, twos, none = list(range(2, 60, 3)), list(range(0, 60, 3)), list(range(1, 60, 3))

    assert up == ones + twos + none
    assert down == twos + ones + none
    backwards = ordered(some, nothing_said(some), everything, "key", descending=True)
    assert backwards.tolist() == list(range(59, -1, -1))
    with pytest.raises(BadInput, match="column 'beauty'"):
        ordered(some, nothing_said(some), everything, "beauty")


def test_pages_hold_what_fits_and_end():
    """The last page is short, and one beyond it is the last."""
    rows = np.arange(45)

    assert pages(rows, 20) == 3
    assert page(rows, 2, 20).tolist() == [40, 41, 42, 43, 44]
    assert page(rows, 9, 20).tolist() == page(rows, 2, 20).tolist()
    assert page(rows[:0], 0, 20).tolist() == []


def test_counts_and_histograms_add_up(subject):
    """Every sample is once in a count and once in each histogram."""
    counts = counted(subject)
    drawn = histogram(subject, "teacher_error", bins=7)

    assert counts.produced.tolist() == [20, 20, 20]
    assert counts.kept.sum() == subject.kept.sum() == drawn.kept.sum()
    assert list(counts.dropped) == ["teacher"]
    assert drawn.dropped.sum() == 60 - subject.kept.sum()
    assert len(drawn.kept) == 7


# Images


def pixels_in(picture):
    return np.array(Image.open(io.BytesIO(picture.png)))


def test_images_are_those_of_the_shards_in_the_order_asked(subject, made):
    """By offset from several shards, twice where asked twice."""
    expected = np.concatenate([read_shard(made / "pool", index)[0] for index in range(6)])
    rows = [59, 0, 31, 0]
    found = stored_pictures(subject, rows)

    assert [pixels_in(p).tolist() for p in found] == [expected[row, 0].tolist() for row in rows]


def test_thumbnails_repeat_pixels_and_are_data_uris(subject):
    """8 × 8 shown at 24 is every pixel three by three; a URI decodes to the same PNG."""
    small, large = stored_pictures(subject, [7])[0], thumbnails(subject, [7], side=20)[0]
    expected = pixels_in(small).repeat(3, axis=0).repeat(3, axis=1)
    head, _, data = large.uri.partition(",")

    assert np.array_equal(pixels_in(large), expected)
    assert head == "data:image/png;base64"
    assert base64.b64decode(data) == large.png


def test_a_broken_shard_is_a_text_for_each_of_its_images(run):
    """Cut, gone or overwritten: the other images are there."""
    pool = run / "pool"
    (pool / "000001.tar").write_bytes((pool / "000001.tar").read_bytes()[:1024])
    (pool / "000002.tar").unlink()
    (pool / "000003.tar").write_bytes(bytes((pool / "000003.tar").stat().st_size))
    found = thumbnails(open_subject(run), [0, 15, 25, 35, 45])

    assert [picture.png is None for picture in found] == [False, True, True, True, False]
    assert "000001.tar is cut" in found[1].error
    assert "000002.tar: No such file" in found[2].error
    assert "is not a PNG" in found[3].error
    assert all(p.uri is None for p in found[1:4])


def test_a_failed_sample_has_a_text(tmp_path):
    """No image was made, so there is none to show, and it was dropped."""
    run = write_run(tmp_path / "run", tiny_plan(), tiny_space())
    plan = tiny_plan()
    with PoolShardWriter(run / "pool", 2, "f") as writer:
        for key in range(20, 24):
            writer.add(key, None, 2, 2, None, plan.seed, plan.pool_id, "not finite")
    found = thumbnails(open_subject(run), [23])[0]

    assert found.error == "the generator failed to make this image"


def test_a_release_shows_its_own_images_and_says_which_it_left_out(built, tmp_path):
    """Accepted and rejected alike, from the row group that holds each; else a text."""
    released = open_subject(built.folder)
    pool = built.folder.parent / "run" / "pool"
    expected = np.concatenate([read_shard(pool, index)[0] for index in range(3)])
    rows = list(range(23, -1, -1))
    copy = shutil.copytree(built.folder, tmp_path / "v1.0.0")
    shutil.rmtree(copy / "data" / "rejected")
    small = open_subject(copy)
    texts = [picture.error for picture in thumbnails(small, rows)]

    assert [pixels_in(p).tolist() for p in stored_pictures(released, rows)] == [
        expected[row, 0].tolist() for row in rows
    ]
    assert [text is None for text in texts] == small.kept[rows].tolist()
    assert {"this image is not part of the release", None} == set(texts)
    accepted = next((copy / "data" / "accepted").glob("*.parquet"))
    accepted.write_bytes(b"PAR1")
    assert "is cut" in stored_pictures(small, np.flatnonzero(small.kept)[:1])[0].error


# One sample


def test_a_sample_tells_what_is_known_of_it(subject, made):
    """Scores, the teacher's classes from stored logits, neighbours, and how to make it again."""
    row = 14
    stored = read_numbered(made / "scores").slice(row, 1).to_pylist()[0]
    logits = np.array(stored["teacher_logits"], float)
    likeliest = np.exp(logits) / np.exp(logits).sum()
    seen = sample(subject, row)

    assert seen.key == 14
    assert set(seen.scores) == set(SCORES)
    assert seen.scores["teacher_error"] == pytest.approx(stored["teacher_error"])
    assert [name for name, _ in seen.teacher] == [
        f"class {label}" for label in np.argsort(-likeliest)
    ]
    assert [share for _, share in seen.teacher] == pytest.approx(sorted(likeliest, reverse=True))
    assert seen.nearest_real == 14 % 5
    assert seen.near == ()
    assert seen.origin == {
        "pool_id": tiny_plan().pool_id,
        "seed": 0,
        "key": "000000014",
        "label": 0,
        "condition": 0,
    }
    assert seen.regenerate == f"cgankd regenerate {made} --keys 14 --verify"


def test_the_nearest_kept_are_those_of_stored_pairs(subject):
    """The most alike first; a dropped one is left out."""
    kept = replace(subject, reason=np.full(60, -1, np.int8))
    dropped = replace(kept, reason=np.where(subject.key == 4, 0, -1).astype(np.int8))

    assert [(near.key, round(near.similarity, 2)) for near in nearest_kept(kept, 4)] == [(2, 0.99)]
    assert nearest_kept(dropped, 2) == ()


def test_a_sample_of_a_release_or_of_numbers_tells_what_there_is(built, angles):
    """A value with its unit instead of classes; no command where no generator is at hand."""
    released = sample(open_subject(built.folder), 3)
    angle = sample(angles, 3)

    assert len(released.teacher) == 3
    assert released.regenerate is None
    assert released.origin["condition"] == released.origin["label"] == 0
    assert angle.teacher == ()
    assert angle.teacher_value.endswith("degrees")
    assert probabilities([0.0, np.log(3)], tiny_space(2)) == (
        ("class 1", pytest.approx(0.75)),
        ("class 0", pytest.approx(0.25)),
    )


# Verdicts


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
    assert again.said_of(4).comment == "a two"
    assert again.said_of(4).reviewer == "first"
    assert again.said_of(5) is None
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
    assert (again.said_of(1).comment, again.said_of(2).reviewer) == ("zero", "second")
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
    assert {again.said_of(row).comment for row in rows} == {"<b>look</b>"}
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


# Policies


def test_a_preview_is_what_selecting_would_do(subject, made):
    """By the numbers of the keys; the difference is that of the two tables."""
    policy = Policy(accept=0.8, rho=0.7, quota=9)
    seen = preview(subject, policy)
    before = read_table(made / "selections" / "cgan-kd.parquet")
    keys = before["key"].to_numpy()
    now, was = seen.selection.kept, before["kept"].to_numpy()
    changes = {"came": keys[now & ~was], "went": keys[was & ~now]}

    assert seen.counts.kept.max() <= 9
    assert seen.counts.produced.tolist() == [20, 20, 20]
    for change, expected in changes.items():
        assert getattr(seen, change).tolist() == expected[:12].tolist()
    assert sum(seen.why["count"].to_pylist()) == sum(map(len, changes.values()))
    assert len(preview(subject, policy, examples=1).went) == 1


def test_a_preview_heeds_verdicts_and_neighbours(run):
    """Rejected samples go for reviewer; near-duplicates by the stored pairs."""
    state = ReviewState.open(run)
    state.give([10], "reject", **ME)
    policy = Policy(subsample="none", filter="none", duplicates="calibrated", memorised=0.99)
    seen = preview(state.subject, policy, state.reviews())

    assert {name: int(n.sum()) for name, n in seen.counts.dropped.items()} == {
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
    RunFolder(run).finish_stage("ratio", {}, {"problems": ["mean ratio 0.2"]})
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
        reals, reason = reals_or_reason(one)
        assert reals is None
        assert "holds no real images" in reason


# Two selections


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
    assert len(seen.changes) == len(seen.only_first)
    for one, two in seen.histograms:
        assert np.array_equal(one.edges, two.edges)
        assert (one.kept + one.dropped).sum() == (two.kept + two.dropped).sum() == 60


def test_different_pools_are_compared_by_counts_alone(subject, tmp_path):
    """Their keys mean different samples; other labels cannot be compared at all."""
    other = write_run(tmp_path / "other", tiny_plan(seed=5), tiny_space())
    seen = compare(subject, open_subject(other))

    assert not seen.same_pool
    assert seen.changes is None
    assert [counts.produced.sum() for counts in seen.counts] == [60, 24]
    two = write_run(tmp_path / "two", tiny_plan(classes=2), tiny_space(2))
    with pytest.raises(BadInput, match="different labels"):
        compare(subject, open_subject(two))


# The blind test


def some_reals(count=12):
    random = np.random.default_rng(1)
    pixels = random.integers(256, size=(count, 1, 8, 8), dtype=np.uint8)
    return Reals(pixels, np.arange(count) % 3, count - 3)


def test_blind_pairs_share_a_label_and_are_the_same_for_a_seed(subject):
    """A kept sample and a real image; no image twice before all of its label came."""
    reals = some_reals()
    pairs = blind_pairs(subject, reals, 12, seed=4)

    assert pairs == blind_pairs(subject, reals, 12, seed=4) != blind_pairs(subject, reals, 12, 5)
    assert all(subject.kept[pair.row] for pair in pairs)
    assert all(subject.group[pair.row] == reals.labels[pair.real] for pair in pairs)
    assert len({pair.real for pair in pairs}) == len({pair.row for pair in pairs}) == 12
    assert {pair.generated_first for pair in pairs} == {True, False}
    assert len(blind_pairs(subject, some_reals(1), 30, seed=0)) == 30
    nothing = replace(subject, reason=np.zeros(60, np.int8))
    with pytest.raises(BadInput, match="no label has both"):
        blind_pairs(nothing, reals, 5, seed=0)


def test_the_blind_score_has_wilsons_interval():
    """Against scipy; nothing before the first answer."""
    from scipy.stats import binomtest

    pairs = [BlindPair(0, 0, first) for first in (True, False, True, True)]
    score = blind_score(pairs, [True, False, False])
    expected = binomtest(2, 3).proportion_ci(method="wilson")

    assert (score.right, score.of) == (2, 3)
    assert (score.low, score.high) == pytest.approx((expected.low, expected.high))
    assert wilson(0, 10)[0] == 0
    assert wilson(10, 10)[1] == pytest.approx(1)
    assert blind_score(pairs, []) is None


def test_random_rows_of_a_label_are_kept_ones_and_seeded(subject):
    """For grids of reals beside fakes."""
    rows = rows_by_label(subject, 1, 5, seed=3)

    assert rows.tolist() == rows_by_label(subject, 1, 5, seed=3).tolist()
    assert (subject.group[rows] == 1).all()
    assert subject.kept[rows].all()
    assert (~subject.kept[rows_by_label(subject, 1, 5, kept=False)]).all()


def test_nothing_here_imports_streamlit_or_torch():
    """Opening, filtering, deciding and previewing start at once."""
    names = ["state", "data", "filters", "images", "sample", "policy", "compare", "blind"]
    code = f"import sys, {', '.join(f'app.review_{name}' for name in names)}; "
    code += "print([n for n in ('streamlit', 'torch', 'faiss', 'datasets') if n in sys.modules])"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert output.stdout.strip() == "[]"


# A real run


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A tiny run up to its scores."""
    run = tmp_path_factory.mktemp("whole") / "run"
    commands.stage(
        "teacher", run, console=QUIET, device="cpu", backend="serial",
        recipe="digits", overrides=OVERRIDES,
    )  # fmt: skip
    for name in ("generator", "pool", "ratio", "scores"):
        with suppress(RatioRefused):
            commands.stage(name, run, console=QUIET, device="cpu", backend="serial")
    commands.select(run, console=QUIET)
    commands.select(run, console=QUIET, name="raw")
    return run


def release(run, version):
    return commands.release(run, console=QUIET, version=version, selection="cgan-kd", rejected=True)


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
    with pytest.raises(StaleStage, match="reviews"):
        commands.select(run, console=QUIET)
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
    commands.select(run, console=QUIET)

    assert (run / "selections" / "cgan-kd.parquet").read_bytes() == before
    assert "reviews" not in read_metadata(run / "selections" / "cgan-kd.parquet")
    assert "reviews" not in read_json(run / "selections" / "cgan-kd.json")["fields"]


def test_arms_with_parts_left_out_heed_no_verdicts(whole, tmp_path):
    """They show what each part of the policy does."""
    run = shutil.copytree(whole, tmp_path / "run")
    before = (run / "selections" / "raw.parquet").read_bytes()
    state = ReviewState.open(run)
    state.give(np.arange(50), "reject", **ME)
    commands.select(run, console=QUIET, name="raw")
    commands.select(run, console=QUIET, name="mine")

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
    assert facts["kept"] == seen.counts.kept.sum()
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
    assert sample(subject, 0, reals).nearest_real_label is None  # no neighbours were found
    assert np.array_equal(pixels_in(real_picture(reals, 3, side=0)), reals.pixels[3, 0])
    assert "is not among the 100" in real_picture(reals, 100).error
