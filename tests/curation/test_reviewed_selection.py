"""Reviewers overrule the policy on what they name, and touch nothing else but through quotas."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cgankd.curation.neighbours import Neighbours, Thresholds
from cgankd.curation.policies import Policy
from cgankd.curation.policies.rule import Scores
from cgankd.curation.policies.selection import KEPT, REASONS, select
from cgankd.shardset.errors import BadInput
from cgankd.shardset.reviews import VERDICTS, Reviews

OFF = {"subsample": None, "filter": None}
NOTHING = Policy.model_validate(OFF)


def scores(count=300, labels=3, seed=0, **columns):
    random = np.random.default_rng(seed)
    label = random.integers(0, labels, count)
    made = {
        "key": np.arange(count) * 2,
        "label": label,
        "group": label,
        "ratio": np.exp(random.normal(size=count)),
        "teacher_label": random.integers(0, labels, count),
        "teacher_error": random.exponential(size=count),
        "scored": np.ones(count, dtype=bool),
    }
    return Scores(**made | columns)


def reviews(verdicts):
    """Reviews of {key: verdict or (relabel's) label}."""
    key = np.array(sorted(verdicts), np.int64)
    given = [verdicts[k] for k in key.tolist()]
    text = ["relabel" if not isinstance(v, str) else v for v in given]
    return Reviews(
        key,
        np.array([VERDICTS.index(v) for v in text], np.int8),
        np.array([np.nan if isinstance(v, str) else v for v in given], float),
        np.array([""] * len(key), object),
        np.array(["first"] * len(key), object),
    )


def chosen(table, policy, verdicts=None, neighbours=None, features=None, first=None):
    count = len(table.key)
    uniforms = np.random.default_rng(9).random(count)
    first = np.ones(count, bool) if first is None else first
    said = None if verdicts is None else reviews(verdicts)
    return select(table, policy, uniforms, first, neighbours, features, said)


def reason(selection, key):
    code = selection.reason[np.searchsorted(selection.key, key)]
    return None if code == KEPT else REASONS[code]


def alike(table, pairs):
    """Neighbours in which pairs of keys are the same image, and nothing is near a real one."""
    count, groups = len(table.key), range(3)
    a, b = (np.array(part, np.int64) for part in zip(*pairs, strict=True))
    return Neighbours(
        key=table.key,
        nearest_real_id=np.zeros(count, np.int64),
        nearest_real_similarity=np.zeros(count, np.float32),
        nearest_validation_id=np.zeros(count, np.int64),
        nearest_validation_similarity=np.zeros(count, np.float32),
        outlier=np.ones(count, np.float32),
        key_a=a,
        key_b=b,
        similarity=np.ones(len(a), np.float32),
        thresholds=Thresholds(
            **{name: dict.fromkeys(groups, 0.9) for name in Thresholds.model_fields}
        ),
    )


@given(
    st.dictionaries(
        st.integers(0, 299).map(lambda row: row * 2),
        st.sampled_from(["accept", "reject", "flag", 0, 1, 2]),
        max_size=12,
    ),
    st.sampled_from([Policy(), Policy(subsample="rejection", relabel=True), NOTHING]),
)
def test_every_verdict_is_honoured_and_no_other_sample_changes(verdicts, policy):
    """Against a plain loop over samples, whatever the policy."""
    table = scores()
    before, after = chosen(table, policy), chosen(table, policy, verdicts)
    for row, key in enumerate(table.key.tolist()):
        verdict = verdicts.get(key, "flag")
        code = {"reject": REASONS.index("reviewer"), "flag": before.reason[row]}
        label = verdict if isinstance(verdict, int) else before.label[row]

        assert after.reason[row] == code.get(verdict, KEPT)
        assert after.label[row] == label
        assert after.original_label[row] == table.label[row]
    assert after.fitted == before.fitted


def test_a_failed_sample_cannot_be_accepted():
    """It has no image to keep."""
    table = scores(4, scored=np.array([True, False, True, False]))
    after = chosen(table, NOTHING, {2: "accept", 6: 1})

    assert [reason(after, key) for key in (0, 2, 4, 6)] == [None, "outlier", None, "outlier"]


def test_what_is_accepted_counts_in_the_quota_and_is_never_cut():
    """Of each label the accepted stay, and the lowest other keys fill what is left."""
    table = scores()
    own = [table.key[table.label == label] for label in range(3)]
    late = own[0][-2:].tolist()
    verdicts = {late[0]: "accept", late[1]: 2, **dict.fromkeys(own[1][-7:].tolist(), "accept")}
    after = chosen(table, Policy.model_validate({**OFF, "quota": 5}), verdicts)
    kept = [after.key[after.kept & (after.group == label)].tolist() for label in range(3)]

    assert kept[0] == [*own[0][:3].tolist(), *late]
    assert kept[1] == own[1][-7:].tolist()
    assert kept[2] == own[2][:5].tolist()
    assert after.shortfall == {}


def test_a_rejected_sample_makes_room_for_the_next():
    """The quota is filled without it."""
    table = scores()
    own = table.key[table.label == 0].tolist()
    after = chosen(table, Policy.model_validate({**OFF, "quota": 3}), {own[1]: "reject"})

    assert after.key[after.kept & (after.group == 0)].tolist() == [own[0], own[2], own[3]]
    assert reason(after, own[1]) == "reviewer"


@pytest.mark.parametrize("method", ["farthest", "kmeans"])
@pytest.mark.parametrize("accepted", [2, 6, 9])
def test_a_diverse_quota_keeps_what_is_accepted(method, accepted):
    """The most diverse fill the rest of the six, and nothing where more are accepted."""
    table = scores(labels=1)
    features = np.random.default_rng(3).normal(size=(300, 8))
    policy = Policy.model_validate({**OFF, "quota": 6, "diversity": method})
    keys = table.key[100 : 100 + accepted].tolist()
    after = chosen(table, policy, dict.fromkeys(keys, "accept"), features=features)

    assert after.kept.sum() == max(6, accepted)
    assert set(keys) <= set(after.key[after.kept].tolist())


def test_near_duplicates_of_a_rejected_sample_stay_dropped():
    """They look the same; an accepted one is kept beside the better one."""
    table = scores(6, labels=1, teacher_error=np.arange(6.0))
    policy = Policy.model_validate({**OFF, "duplicates": "calibrated"})
    neighbours = alike(table, [(0, 2), (4, 6)])
    after = chosen(table, policy, {0: "reject", 6: "accept"}, neighbours)
    reasons = [reason(after, key) for key in table.key]

    assert reasons == ["reviewer", "duplicate", None, None, None, None]


def test_relabelling_continuous_labels_keeps_the_assigned_one_beside():
    """A value of its own, in the label's unit."""
    label = np.linspace(-60, 60, 6)
    table = scores(
        6,
        label=label,
        group=np.zeros(6, np.int64),
        teacher_label=label + 1,
        scored=np.ones(6, bool),
    )
    after = chosen(table, Policy.model_validate({**OFF, "relabel": True}), {2: -12.25})
    row = after.table().to_pylist()[1]

    assert row == {
        "key": 2,
        "kept": True,
        "reason": None,
        "label": -12.25,
        "original_label": -36.0,
    }
    assert after.label[2] == label[2] + 1


def test_reviews_of_another_pool_are_refused():
    """By the first key that this pool does not have."""
    with pytest.raises(BadInput, match="reviews are on key 7, which is not in this pool"):
        chosen(scores(), NOTHING, {4: "accept", 7: "reject"})


def test_a_top_up_revokes_nothing_that_reviews_left():
    """With the same verdicts, what the first round kept is kept after a second one."""
    table = scores()
    first = np.arange(300) < 200
    part = Scores(**{name: column[:200] for name, column in vars(table).items()})
    verdicts = {0: "reject", 6: "accept", 8: 1}
    policy = Policy(quota=25)
    said = reviews(verdicts)
    uniforms = np.random.default_rng(9).random(300)
    before = select(part, policy, uniforms[:200], first[:200], reviews=said)
    after = select(table, policy, uniforms, first, reviews=said)

    assert set(before.key[before.kept]) <= set(after.key[after.kept])
