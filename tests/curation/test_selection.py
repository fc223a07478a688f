"""One decision with a reason for every sample, against plain loops over samples."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cgankd.curation.policies import Policy
from cgankd.curation.policies.rule import Scores, score_columns
from cgankd.curation.policies.selection import KEPT, REASONS, select
from cgankd.curation.policies.subsampling import acceptance_factor, running_bound
from cgankd.shardset.errors import BadInput
from cgankd.shardset.labels import ClassLabels, ContinuousLabels

DEGREES = ContinuousLabels(unit="degrees", low=-60, high=60, groups=4)
SPACE = ClassLabels(names=("0", "1", "2"))
OFF = {"subsample": None, "filter": None}
NOTHING = Policy.model_validate(OFF)


def scores(count=3000, labels=3, seed=0, **columns):
    random = np.random.default_rng(seed)
    made = {
        "key": np.arange(count),
        "label": random.integers(0, labels, count),
        "ratio": np.exp(random.normal(size=count)),
        "teacher_label": random.integers(0, labels, count),
        "teacher_error": random.exponential(size=count),
        "scored": np.ones(count, dtype=bool),
    }
    made |= columns
    return Scores(**{"group": made["label"]} | made)


def chosen(table, policy, first=None, seed=9):
    count = len(table.key)
    uniforms = np.random.default_rng(seed).random(count)
    first = np.ones(count, dtype=bool) if first is None else first
    return select(table, policy, uniforms, first)


def first_rows(table, count):
    """The same table cut short: what there was before a top-up."""
    return Scores(**{name: column[:count] for name, column in vars(table).items()})


def reasons(selection):
    return [None if code == KEPT else REASONS[code] for code in selection.reason.tolist()]


def test_without_a_policy_every_scored_sample_is_kept():
    """Only what has no score is dropped, as an outlier."""
    table = scores(6, scored=np.array([True, False, True, True, False, True]))
    assert reasons(chosen(table, NOTHING)) == [None, "outlier", None, None, "outlier", None]


def test_budgeted_acceptance_is_the_stated_fraction_of_each_label():
    """C is solved so that mean(min(1, c·r)) is exact; the draws then come close."""
    table = scores(30_000)
    policy = Policy(subsample="budget", accept=0.3, filter="none")
    selection = chosen(table, policy)
    for label in range(3):
        own = table.label == label
        c = selection.fitted["c"][str(label)]
        assert np.minimum(1, c * table.ratio[own]).mean() == pytest.approx(0.3)
        assert selection.kept[own].mean() == pytest.approx(0.3, abs=0.02)


def test_rejection_accepts_with_the_ratio_over_its_largest():
    """cDR-RS: a plain loop over each label with M its largest ratio decides the same."""
    table = scores()
    uniforms = np.random.default_rng(9).random(3000)
    selection = chosen(table, Policy(subsample="rejection", filter="none"))
    for row in range(3000):
        largest = max(table.ratio[table.label == table.label[row]])
        assert selection.kept[row] == (uniforms[row] <= table.ratio[row] / largest)
    assert selection.fitted["M"]["0"] == table.ratio[table.label == 0].max()


@given(
    ratios=arrays(np.float64, st.integers(1, 40), elements=st.floats(0, 2.0**20, width=32)),
    accept=st.floats(0.01, 1),
)
def test_acceptance_factor_meets_the_budget_or_takes_all_there_is(ratios, accept):
    """Any ratios: the mean acceptance is the budget, or every positive ratio is accepted."""
    factor = acceptance_factor(ratios, accept)
    if np.isinf(factor):
        assert np.count_nonzero(ratios) <= accept * len(ratios)
    else:
        assert np.minimum(1, factor * ratios).mean() == pytest.approx(accept, rel=1e-6)


def test_bound_grows_with_later_samples_and_never_falls():
    """The first round shares its largest; each later sample sees what came up to it."""
    first = np.array([True, True, False, False, False])
    ratios = np.array([2.0, 3.0, 1.0, 5.0, 4.0])
    assert running_bound(ratios[:2], ratios, first).tolist() == [3, 3, 3, 5, 5]


def test_filter_drops_the_largest_errors_of_each_label():
    """ρ = 0.8 keeps the four fifths of what subsampling kept that the teacher likes best."""
    table = scores()
    selection = chosen(table, Policy(subsample="none", rho=0.8))
    for label in range(3):
        own = table.label == label
        errors = np.sort(table.teacher_error[own])
        worst_kept = table.teacher_error[own & selection.kept].max()
        assert selection.kept[own].mean() == pytest.approx(0.8, abs=0.002)
        assert worst_kept == errors[selection.kept[own].sum() - 1]
    assert set(reasons(selection)) == {None, "teacher"}


def test_global_filter_lets_hard_labels_shrink():
    """One quantile for all labels: the label with twice the errors loses more."""
    table = scores()
    errors = table.teacher_error * np.where(table.label == 2, 2.0, 1.0)
    table = scores(teacher_error=errors)
    selection = chosen(table, Policy(subsample="none", scope="global", rho=0.8))
    assert selection.kept.mean() == pytest.approx(0.8, abs=0.001)
    assert selection.kept[table.label == 2].mean() < selection.kept[table.label == 0].mean() - 0.1


def test_quantile_is_of_what_subsampling_kept():
    """The filter does not count samples that are gone already."""
    table = scores()
    policy = Policy(subsample="budget", accept=0.5, rho=0.9)
    before = chosen(table, policy.model_copy(update={"filter": None}))
    after = chosen(table, policy)
    assert after.kept.sum() == pytest.approx(0.9 * before.kept.sum(), abs=3)
    assert not (after.kept & ~before.kept).any()


def test_relabelling_replaces_labels_and_keeps_the_assigned_ones():
    """The final label is the teacher's; a failed sample has none and keeps its own."""
    table = scores(scored=np.arange(3000) % 10 != 0)
    selection = chosen(table, Policy.model_validate({**OFF, "relabel": True}))
    assert np.array_equal(selection.label[table.scored], table.teacher_label[table.scored])
    assert np.array_equal(selection.label[~table.scored], table.label[~table.scored])
    assert np.array_equal(selection.original_label, table.label)


def test_quota_keeps_the_lowest_keys_and_tells_what_is_missing():
    """Of label 0 the first hundred stay; label 1 has only forty, sixty are missing."""
    labels = np.array([0] * 150 + [1] * 40)
    table = scores(190, label=labels)
    selection = chosen(table, Policy.model_validate({**OFF, "quota": 100}))
    assert np.flatnonzero(selection.kept).tolist() == [*range(100), *range(150, 190)]
    assert reasons(selection)[100:150] == ["quota"] * 50
    assert selection.shortfall == {1: 60}
    assert (selection.kept_of(0), selection.kept_of(1)) == (100, 40)


@pytest.mark.parametrize("subsample", ["none", "rejection", "budget"])
@pytest.mark.parametrize("scope", ["per-label", "global"])
def test_a_top_up_never_revokes_a_kept_sample(subsample, scope):
    """Decisions on the first round stay as they were when more rows follow, extreme ones too."""
    table = scores(4000)
    table.ratio[3500] = 1e6
    table.teacher_error[3000:] *= 0.01
    policy = Policy(subsample=subsample, scope=scope, rho=0.7, quota=300)
    first = np.arange(4000) < 3000
    before = chosen(first_rows(table, 3000), policy)
    after = chosen(table, policy, first)
    assert np.array_equal(before.reason, after.reason[:3000])
    third = chosen(first_rows(table, 3600), policy, first[:3600])
    assert np.array_equal(third.reason, after.reason[:3600])


def test_label_without_survivors_is_named_with_its_reason():
    """A ratio of 0 everywhere keeps nothing: said in one line, with what to change."""
    table = scores(300, label=np.arange(300) % 3)
    table.ratio[table.label == 1] = 0.0
    for subsample in ("rejection", "budget"):
        selection = chosen(table, Policy(subsample=subsample, filter="none"))
        (line,) = selection.problems(SPACE)
        assert line.startswith("label 1: none of 100 samples was kept, 100 were dropped for ratio")
        assert "policy.subsample null" in line
    assert chosen(table, NOTHING).problems(SPACE) == []


def test_infinite_factor_accepts_every_positive_ratio():
    """Fewer positive ratios than the budget: all of them, nothing else, and no c to store."""
    table = scores(100, labels=1, ratio=np.where(np.arange(100) < 20, 1.0, 0.0))
    selection = chosen(table, Policy(subsample="budget", accept=0.5, filter="none"))
    assert np.flatnonzero(selection.kept).tolist() == list(range(20))
    assert selection.fitted["c"] == {"0": None}


def test_counts_and_table_say_the_same():
    """Every sample has one decision; a kept one has no reason."""
    selection = chosen(scores(scored=np.arange(3000) % 50 != 0), Policy(quota=200))
    table, counts = selection.table(), selection.counts()
    assert table.column_names == ["key", "kept", "reason", "label", "original_label"]
    assert table["reason"].to_pylist() == reasons(selection)
    assert counts["kept"] == sum(table["kept"].to_pylist())
    assert set(counts["dropped"]) == {"ratio", "teacher", "outlier", "quota"}
    assert counts["kept"] + sum(counts["dropped"].values()) == 3000


def test_scores_come_from_a_score_table():
    """Nulls of failed samples become NaN and −1, which no policy looks at."""
    table = pa.table(
        {
            "key": [0, 1, 2],
            "label": [0, 1, 1],
            "density_ratio": pa.array([0.5, None, 2.0], pa.float32()),
            "teacher_label": pa.array([0, None, 0], pa.int64()),
            "teacher_error": pa.array([0.1, None, 1.5], pa.float32()),
            "status": ["ok", "not finite", "ok"],
        }
    )
    read = Scores.from_table(table, SPACE)
    assert read.scored.tolist() == [True, False, True]
    assert read.teacher_label.tolist() == [0, -1, 0]
    for policy in (Policy(), Policy(subsample="rejection", relabel=True)):
        assert reasons(chosen(read, policy))[1] == "outlier"


def test_rows_that_do_not_match_are_refused():
    """Columns of unequal length, and keys out of order, end in one line."""
    table = scores(10)
    with pytest.raises(BadInput, match="aligned"):
        select(table, NOTHING, np.zeros(9), np.ones(10, bool))
    with pytest.raises(BadInput, match="order of their keys"):
        chosen(scores(10, key=np.arange(10)[::-1]), NOTHING)


def continuous_scores(count=3000, seed=0):
    random = np.random.default_rng(seed)
    label = random.uniform(-60, 60, count)
    value = np.clip(label + random.normal(size=count) * 10, -60, 60)
    return scores(
        count,
        label=label,
        group=DEGREES.group_of(label),
        teacher_label=value,
        teacher_error=np.abs(value - label),
    )


def test_continuous_labels_are_filtered_and_replaced_as_published():
    """The global ρ-quantile of |value − label|, then the teacher's unrounded value as the label."""
    table = continuous_scores()
    policy = Policy(subsample="none", scope="global", rho=0.7, relabel=True)
    selection = chosen(table, policy)
    cut = np.quantile(table.teacher_error, 0.7)
    assert np.array_equal(selection.kept, table.teacher_error <= cut)
    assert np.array_equal(selection.label, table.teacher_label)
    assert np.array_equal(selection.original_label, table.label)
    assert selection.table()["label"].type == selection.table()["original_label"].type == "double"


def test_continuous_labels_are_subsampled_and_evened_out_by_part_of_the_range():
    """Each of four parts has its own c and its own quota."""
    table = continuous_scores()
    policy = Policy(subsample="budget", accept=0.4, filter="none", quota=150)
    selection = chosen(table, policy)
    assert list(selection.fitted["c"]) == ["0", "1", "2", "3"]
    for group in range(4):
        own = (table.label >= -60 + 30 * group) & (table.label < -30 + 30 * group)
        c = selection.fitted["c"][str(group)]
        assert np.minimum(1, c * table.ratio[own]).mean() == pytest.approx(0.4)
        assert selection.kept[own].sum() == selection.kept_of(group) == 150
    table.ratio[table.group == 1] = 0.0
    (line,) = chosen(table, policy).problems(DEGREES)
    assert line.startswith("label −30 … 0: none of ")


def test_columns_read_are_those_of_the_task():
    """A teacher of classes has a label, one of continuous labels a value."""
    assert score_columns(SPACE)[3] == "teacher_label"
    assert score_columns(DEGREES)[3] == "teacher_value"
