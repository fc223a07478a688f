"""Teacher filters and diversity in a selection, against plain loops over samples."""

import numpy as np
import pytest
from pydantic import ValidationError

from cgankd.curation.policies import Policy
from cgankd.curation.policies.quotas import most_diverse
from cgankd.curation.policies.rule import Scores
from cgankd.curation.policies.selection import select
from cgankd.curation.policies.teacher_rules import Agreement, Band
from cgankd.shardset.errors import BadInput
from cgankd.shardset.labels import ClassLabels

SPACE = ClassLabels(names=("0", "1", "2"))
PLAIN = Policy(subsample="none", filter="none", quota=10)
BAND = Policy(subsample="none", filter="band", rho=0.9, band_low=0.2)
AGREEMENT = Policy(subsample="none", filter="agreement")


def scores(count=1200, continuous=False, seed=0):
    random = np.random.default_rng(seed)
    group = random.integers(0, 3, count)
    label = group + random.random(count) if continuous else group
    told = label + random.normal(size=count) if continuous else random.integers(0, 3, count)
    return Scores(
        key=np.arange(count),
        label=label,
        group=group,
        ratio=np.exp(random.normal(size=count)),
        teacher_label=told,
        teacher_error=np.abs(told - label) if continuous else random.exponential(size=count),
        scored=np.ones(count, dtype=bool),
    )


def first_rows(table, count):
    return Scores(**{name: column[:count] for name, column in vars(table).items()})


def chosen(table, policy, first=None, features=None):
    count = len(table.key)
    first = np.ones(count, dtype=bool) if first is None else first
    uniforms = np.random.default_rng(9).random(count)
    return select(table, policy, uniforms, first, features=features)


def test_band_drops_the_wrong_and_the_trivial_of_each_label():
    """Between the 0.2- and the 0.9-quantile of each label: seven tenths, the middle ones."""
    table = scores()
    selection = chosen(table, BAND)
    for label in range(3):
        own = table.label == label
        errors = np.sort(table.teacher_error[own])
        kept = np.sort(table.teacher_error[own & selection.kept])
        assert len(kept) == pytest.approx(0.7 * own.sum(), abs=2)
        start = int(np.searchsorted(errors, kept[0]))
        assert start == pytest.approx(0.2 * own.sum(), abs=1)
        assert np.array_equal(errors[start : start + len(kept)], kept)
        assert selection.fitted["band_low"][str(label)] <= kept[0]
        assert selection.fitted["quantile"][str(label)] >= kept[-1]


def test_band_over_all_labels_has_one_pair_of_limits():
    """The global scope: NumPy's quantiles of all errors decide."""
    table = scores()
    selection = chosen(table, Policy(subsample=None, filter=Band(low=0.2, scope="global")))
    low, high = np.quantile(table.teacher_error, [0.2, 0.9])
    inside = (table.teacher_error >= low) & (table.teacher_error <= high)
    assert np.array_equal(selection.kept, inside)


def test_agreement_keeps_the_classes_that_the_teacher_tells():
    """Where the teacher's class is the assigned one, whatever its error."""
    table = scores()
    selection = chosen(table, AGREEMENT)
    assert np.array_equal(selection.kept, table.label == table.teacher_label)
    assert set(selection.counts()["dropped"]) == {"teacher"}


def test_agreement_of_continuous_labels_is_within_a_distance():
    """Half a unit: kept where the teacher's value is at most so far off."""
    table = scores(continuous=True)
    selection = chosen(table, Policy(subsample=None, filter=Agreement(within=0.5)))
    assert np.array_equal(selection.kept, np.abs(table.teacher_label - table.label) <= 0.5)


def test_agreement_without_its_distance_or_with_a_useless_one_is_refused():
    """Continuous labels need `policy.filter.within`, classes have no use for it."""
    with pytest.raises(BadInput, match=r"needs policy\.filter\.within"):
        chosen(scores(continuous=True), AGREEMENT)
    with pytest.raises(BadInput, match="of no use to classes"):
        chosen(scores(), Policy(subsample=None, filter=Agreement(within=1.0)))


def test_impossible_policies_are_refused():
    """A band that is empty, and diversity with no quota to choose for."""
    with pytest.raises(ValidationError, match=r"low 0\.5 must be below rho 0\.4"):
        Policy(filter="band", band_low=0.5, rho=0.4)
    with pytest.raises(ValidationError, match=r"quota\.farthest\.size\n.*Field required"):
        Policy(diversity="farthest")


@pytest.mark.parametrize("method", ["farthest", "kmeans"])
def test_diversity_decides_what_the_quota_keeps_of_each_label(method):
    """Of what the filter left, each label's most diverse stay; what is missing is told."""
    table = scores()
    features = np.random.default_rng(3).normal(size=(1200, 6)).astype(np.float16)
    policy = Policy(subsample="none", quota=50, diversity=method)
    left = chosen(table, Policy(subsample="none")).kept
    selection = chosen(table, policy, features=features)
    for label in range(3):
        rows = np.flatnonzero(left & (table.label == label))
        kept = np.flatnonzero(selection.kept & (table.label == label))
        assert np.array_equal(kept, rows[most_diverse(features[rows], 50, method)])
    assert selection.counts()["dropped"]["quota"] == left.sum() - 150
    assert selection.shortfall == {}
    starving = chosen(
        table, Policy(subsample=None, quota={"kind": method, "size": 500}), features=features
    )
    assert set(starving.shortfall) == {0, 1, 2}
    assert np.array_equal(starving.kept, left)


@pytest.mark.parametrize("quota", [40, 250])
@pytest.mark.parametrize("policy", [Policy(diversity="farthest", quota=1), BAND, AGREEMENT])
def test_a_top_up_never_revokes_a_kept_sample(policy, quota):
    """Every decision stays as it was when later rounds follow, also where the first starves."""
    table = scores()
    features = np.random.default_rng(3).normal(size=(1200, 6)).astype(np.float16)
    kind = policy.quota.kind if policy.quota else "lowest-keys"
    policy = Policy.model_validate({**policy.model_dump(), "quota": {"kind": kind, "size": quota}})
    first = np.arange(1200) < 600
    sizes = (600, 900, 1200)
    kept = [chosen(first_rows(table, n), policy, first[:n], features[:n]).reason for n in sizes]
    assert np.array_equal(kept[0], kept[2][:600])
    assert np.array_equal(kept[1], kept[2][:900])


def test_diversity_without_features_is_refused():
    """None at all, or of another pool: one line that says how many were expected."""
    policy = Policy(quota=10, diversity="farthest")
    with pytest.raises(BadInput, match="needs the features of all 1200 samples, got none"):
        chosen(scores(), policy)
    with pytest.raises(BadInput, match="got 7"):
        chosen(scores(), policy, features=np.zeros((7, 2), np.float16))


def test_a_label_whose_features_are_equal_is_named():
    """No choice within a collapsed label: its group is said, with what to do."""
    features = np.random.default_rng(3).normal(size=(1200, 6)).astype(np.float16)
    table = scores()
    features[table.label == 1] = 1
    with pytest.raises(BadInput, match=r"label group 1: features of all \d+ samples are equal"):
        chosen(table, Policy(quota=10, diversity="kmeans"), features=features)


@pytest.mark.parametrize("method", ["farthest", "kmeans"])
def test_features_that_are_not_numbers_are_named(method):
    """Neither guessed nor left out: which group, how many, and what to do."""
    features = np.random.default_rng(3).normal(size=(1200, 6)).astype(np.float16)
    table = scores()
    features[np.flatnonzero(table.label == 2)[4], 1] = np.nan
    quota = {"kind": method, "size": 10}
    with pytest.raises(BadInput, match=r"label group 2: features of 1 of \d+ samples .* sample 4;"):
        chosen(table, Policy(filter=None, subsample=None, quota=quota), features=features)


@pytest.mark.parametrize("diversity", ["none", "farthest", "kmeans"])
@pytest.mark.parametrize("filter_", ["none", "quantile", "band", "agreement"])
@pytest.mark.parametrize("subsample", ["none", "rejection", "budget"])
def test_a_label_with_one_sample_is_decided_like_any_other(subsample, filter_, diversity):
    """Kept or dropped with a reason; a quota above the pool keeps what there is and says so."""
    table = scores()
    table.label[:] = np.r_[2, np.arange(1199) % 2]
    table.group[:] = table.label
    features = np.random.default_rng(3).normal(size=(1200, 6)).astype(np.float16)
    policy = Policy(subsample=subsample, filter=filter_, quota=5000, diversity=diversity)
    selection = chosen(table, policy, features=features)
    assert selection.shortfall == {group: 5000 - selection.kept_of(group) for group in range(3)}
    assert selection.kept_of(2) + len(selection.problems(SPACE)) == 1
    if subsample != "budget" and filter_ in ("none", "quantile"):
        assert selection.kept[0]
