"""Plans are appended to and never renumbered."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cgankd.shardset.errors import BadInput, CorruptShard
from cgankd.shardset.pool.plan import Plan, Segment, ShardSpec, make_plan, read_plan, write_plan

counts = st.dictionaries(st.integers(0, 5), st.integers(0, 30), min_size=1).filter(
    lambda per_label: any(per_label.values())
)


def planned(per_label, shard_size=10) -> Plan:
    return make_plan(
        seed=1,
        pool_id="0123456789abcdef",
        shard_size=shard_size,
        batch=4,
        threads=1,
        precision="float32",
        per_label=per_label,
    )


def every_label(plan: Plan) -> list[int]:
    return np.concatenate([plan.labels(spec) for spec in plan.shards]).tolist()


def test_a_plan_is_labels_in_order_cut_into_shards():
    """Keys count up through the labels; the last shard of a round is short."""
    plan = planned({1: 3, 0: 4}, shard_size=5)

    assert (ShardSpec(0, 0, 5), ShardSpec(1, 5, 2)) == plan.shards
    assert every_label(plan) == [0, 0, 0, 0, 1, 1, 1]
    assert np.int64 == plan.labels(plan.shards[0]).dtype
    assert plan.planned == {0: 4, 1: 3}
    assert plan.count == 7


@given(first=counts, second=counts, shard_size=st.integers(1, 12))
def test_a_top_up_leaves_shards_labels_and_first_round_alone(first, second, shard_size):
    """What was produced stays valid: a round only adds shards behind the others."""
    before = planned(first, shard_size)
    _ = before.shards  # computed once already, as in a run
    after = before.topped_up(second)

    assert before.shards == after.shards[: len(before.shards)]
    assert every_label(before) == every_label(after)[: before.count]
    assert sum(second.values()) == after.count - before.count
    assert all(spec.count <= shard_size for spec in after.shards)
    keys = np.arange(after.count)
    assert [key < before.count for key in keys] == after.in_first_round(keys).tolist()
    assert [first.get(n, 0) + second.get(n, 0) for n in range(6)] == np.bincount(
        every_label(after), minlength=6
    ).tolist()


def test_a_plan_survives_the_disk(tmp_path):
    """plan.json says everything, also after a top-up with NumPy's integers."""
    plan = planned({0: 4, 1: 4}).topped_up({np.int64(1): np.int64(2)})
    write_plan(tmp_path / "plan.json", plan)

    assert plan == read_plan(tmp_path / "plan.json")


def test_a_broken_or_missing_plan_is_named(tmp_path):
    """The error names the file and the field."""
    path = tmp_path / "plan.json"
    with pytest.raises(BadInput, match="no pool was planned"):
        read_plan(path)
    write_plan(path, planned({0: 4}))
    path.write_bytes(path.read_bytes().replace(b'"batch": 4', b'"batch": 0'))
    with pytest.raises(CorruptShard, match=r"plan\.json is not a plan .*batch"):
        read_plan(path)


def test_impossible_plans_are_refused():
    """Nothing asked for, less than nothing, more than nine digits of keys, keys with a gap."""
    with pytest.raises(BadInput, match="without samples"):
        planned({0: 0})
    with pytest.raises(BadInput, match="label 1: -3"):
        planned({1: -3})
    with pytest.raises(BadInput, match="at most 1000000000"):
        planned({0: 10**9 + 1})
    with pytest.raises(ValidationError, match="starts at key 5, expected 4"):
        Plan.model_validate(
            {
                **planned({0: 4}).model_dump(),
                "rounds": (
                    (
                        Segment(label=0, first_key=0, count=4),
                        Segment(label=1, first_key=5, count=1),
                    ),
                ),
            }
        )


def test_numbers_are_planned_as_they_are(tmp_path):
    """Floats stay floats on disk, also whole ones and NumPy's, and labels are float64."""
    plan = planned({0.1: 2, -3.0: 3}, shard_size=4).topped_up({np.float64(7.0): np.int64(1)})
    write_plan(tmp_path / "plan.json", plan)
    again = read_plan(tmp_path / "plan.json")

    assert plan == again
    assert every_label(again) == [-3.0, -3.0, -3.0, 0.1, 0.1, 7.0]
    assert {plan.labels(spec).dtype for spec in again.shards} == {np.dtype(np.float64)}
    assert {type(label) for label in again.planned} == {float}
    assert again.planned == {-3.0: 3, 0.1: 2, 7.0: 1}
    assert {type(label) for label in planned({np.int64(2): 1}).planned} == {int}


def test_a_plan_has_labels_of_one_kind():
    """Classes and numbers do not meet, and a label is a number."""
    with pytest.raises(ValidationError, match="labels are both int and float"):
        planned({0: 4}).topped_up({0.5: 1})
    with pytest.raises(ValidationError):
        planned({float("nan"): 1})
