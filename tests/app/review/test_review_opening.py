"""What opens, and what the pages then filter, sort, count and show."""

import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from cgankd.app.review.policy import counted, preview, spread
from cgankd.app.review.sample import nearest_kept, rows_along, sample, thumbnails
from cgankd.app.review.state import Filter, ordered, page, pages
from cgankd.app.review.subject import open_subject, with_selection
from cgankd.curation.policies import Policy
from cgankd.shardset.errors import BadInput, CorruptShard
from cgankd.shardset.reviews import VERDICTS
from cgankd.shardset.tables import read_numbered, read_table, write_table
from cgankd.shardset.testing import write_tiny_selection
from tests.app.review.tiny_reviews import nothing_said, rows_where, shown


def test_a_run_opens_as_columns_in_key_order(subject, made):
    """Every column is what the tables say, without an object for each row."""
    scores = read_numbered(made / "scores")
    chosen = read_table(made / "selections" / "cgan-kd.parquet")

    assert subject.key.tolist() == list(range(60))
    for name in ("density_ratio", "teacher_error", "teacher_entropy"):
        assert subject.scores[name].tolist() == scores[name].to_pylist()
    assert subject.teacher_prediction.tolist() == scores["teacher_label"].to_pylist()
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
    assert spread(bare, bare, "teacher_error") is None
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
    parts = angles.space.group_of(angles.teacher_prediction) != angles.space.group_of(
        np.array(labels)
    )

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


def test_counts_and_distributions_add_up(subject):
    """Every sample is once in a count, and what is kept once in a distribution."""
    counts = counted(subject)
    everything = replace(subject, reason=np.full(60, -1, np.int8))
    shares = spread(subject, everything, "teacher_error", bins=7)
    errors = subject.scores["teacher_error"]
    low, high = np.quantile(errors.astype(float), [0.005, 0.995])
    expected, _ = np.histogram(np.clip(errors, low, high), np.linspace(low, high, 8))

    assert list(counts) == ["kept", "teacher"]
    assert counts.sum(axis=1).tolist() == [20, 20, 20]
    assert counts["kept"].sum() == subject.kept.sum()
    assert shares["second"].tolist() == (expected / 60).tolist()
    assert shares["first"].sum() == pytest.approx(1)
