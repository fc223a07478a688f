"""Selections: one decision and one reason for every sample, fitted on the first round alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.policy import Policy
from curation.selection import REASONS, Scores, acceptance_factor, running_bound, select
from shardset.errors import BadInput

NOTHING = {"subsample": "none", "filter": "none"}


def scores(n=400, labels=4, seed=0):
    """Made-up scores of `n` samples, labels in turn."""
    random = np.random.default_rng(seed)

    return Scores(
        key=np.arange(n),
        label=np.arange(n) % labels,
        ratio=random.lognormal(size=n),
        teacher_label=random.integers(labels, size=n),
        teacher_error=random.exponential(size=n),
        scored=np.ones(n, bool),
    )


def drawn(n, seed=1):
    """The keys' uniform numbers."""
    return np.random.default_rng(seed).random(n)


def test_without_a_policy_everything_is_kept():
    """No subsampling, no filter, no quota."""
    table = select(scores(), Policy(**NOTHING), drawn(400), np.ones(400, bool))

    assert table.kept.all()
    assert (table.label == table.original_label).all()


@given(
    st.lists(st.floats(0, 100, allow_subnormal=False), min_size=1, max_size=60),
    st.floats(0.05, 1.0),
)
@settings(deadline=None)
def test_the_factor_meets_the_stated_acceptance(ratios, accept):
    """mean(min(1, c·r)) is `accept`, unless too few ratios are positive."""
    ratios = np.array(ratios)
    factor = acceptance_factor(ratios, accept)

    if np.isinf(factor):
        assert np.count_nonzero(ratios) <= accept * len(ratios)
    else:
        assert np.minimum(1, factor * ratios).mean() == pytest.approx(accept, rel=1e-9)


def test_budgeted_acceptance_is_met_for_every_label():
    """Half of each label, within what 5,000 draws allow."""
    n = 20_000
    table = select(
        scores(n), Policy(subsample="budget", accept=0.5, filter="none"), drawn(n), np.ones(n, bool)
    )

    for label in range(4):
        share = table.kept[table.original_label == label].mean()
        assert share == pytest.approx(0.5, abs=4 * np.sqrt(0.25 / 5000))


def test_rejection_accepts_with_the_ratio_over_its_largest():
    """As by hand: u ≤ r / M, M the label's largest ratio."""
    given_scores, uniforms = scores(), drawn(400)
    policy = Policy(subsample="rejection", filter="none")
    table = select(given_scores, policy, uniforms, np.ones(400, bool))

    for i in range(400):
        bound = given_scores.ratio[given_scores.label == given_scores.label[i]].max()
        assert table.kept[i] == (uniforms[i] <= given_scores.ratio[i] / bound)
        assert table.kept[i] or REASONS[table.reason[i]] == "ratio"


def test_the_bound_grows_after_the_first_round_and_never_before():
    """M is the first round's largest ratio, then the largest so far, as in cDR-RS."""
    ratios = np.array([1.0, 3.0, 2.0, 5.0, 4.0])
    first = np.array([True, True, False, False, False])

    assert running_bound(ratios[first], ratios, first).tolist() == [3, 3, 3, 5, 5]


@pytest.mark.parametrize("scope", ["per-label", "global"])
def test_the_filter_keeps_errors_up_to_the_quantile(scope):
    """NumPy's quantile of each label, or of all."""
    given_scores = scores()
    policy = Policy(subsample="none", filter="quantile", rho=0.7, scope=scope)
    table = select(given_scores, policy, drawn(400), np.ones(400, bool))

    for label in range(4):
        own = given_scores.label == label
        cut = np.quantile(given_scores.teacher_error[own if scope == "per-label" else ...], 0.7)
        assert (table.kept[own] == (given_scores.teacher_error[own] <= cut)).all()


@pytest.mark.parametrize("subsample", ["budget", "rejection", "none"])
def test_a_top_up_never_revokes_a_kept_sample(subsample):
    """What was decided of the first round stays, whatever comes later."""
    after = scores(800)
    policy = Policy(subsample=subsample, rho=0.8, quota=30)
    uniforms = drawn(800)
    small = Scores(*(column[:400] for column in vars(after).values()))
    first = select(small, policy, uniforms[:400], np.ones(400, bool))
    both = select(after, policy, uniforms, np.arange(800) < 400)

    assert (first.kept == both.kept[:400]).all()


def test_a_quota_keeps_the_lowest_keys_and_says_what_is_missing():
    """100 of each label: 30 are kept; of a quota of 130, 30 are missing."""
    everything = np.ones(400, bool)
    table = select(scores(), Policy(**NOTHING, quota=30), drawn(400), everything)

    assert [table.kept_of(label) for label in range(4)] == [30] * 4
    assert table.kept[:120].all()
    assert not table.shortfall
    short = select(scores(), Policy(**NOTHING, quota=130), drawn(400), everything)
    assert short.shortfall == dict.fromkeys(range(4), 30)


def test_relabelling_takes_the_teachers_label_and_keeps_the_original():
    """Both are in the table."""
    given_scores = scores()
    table = select(given_scores, Policy(**NOTHING, relabel=True), drawn(400), np.ones(400, bool))

    assert (table.label == given_scores.teacher_label).all()
    assert (table.original_label == given_scores.label).all()


def test_a_sample_without_scores_is_an_outlier_and_spoils_nothing():
    """Its NaN ratio takes no part in c, M or quantile."""
    whole, broken = scores(), scores()
    broken.ratio[7], broken.teacher_error[7], broken.scored[7] = np.nan, np.nan, False
    for subsample in ("budget", "rejection"):
        policy = Policy(subsample=subsample)
        table = select(broken, policy, drawn(400), np.ones(400, bool))
        other = select(whole, policy, drawn(400), np.ones(400, bool))

        assert REASONS[table.reason[7]] == "outlier"
        untouched = whole.label != whole.label[7]
        assert (table.reason[untouched] == other.reason[untouched]).all()


def test_a_label_of_which_nothing_is_left_is_named_with_what_to_change():
    """All its ratios are 0."""
    given_scores = scores()
    given_scores.ratio[given_scores.label == 2] = 0
    table = select(given_scores, Policy(), drawn(400), np.ones(400, bool))

    (problem,) = table.problems()
    assert "label 2" in problem
    assert "policy." in problem


def test_misaligned_scores_are_refused():
    """A silent broadcast would select at random."""
    with pytest.raises(BadInput, match="aligned"):
        select(scores(), Policy(), drawn(399), np.ones(400, bool))


def test_the_table_has_a_reason_exactly_where_a_sample_is_dropped():
    """Null means kept."""
    table = select(scores(), Policy(quota=10), drawn(400), np.ones(400, bool)).table()

    for kept, reason in zip(table["kept"].to_pylist(), table["reason"].to_pylist(), strict=True):
        assert (reason is None) == kept
        assert kept or reason in REASONS
