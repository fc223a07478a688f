"""What changed between two selections of one pool, and why."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cgankd.shardset.errors import BadInput
from cgankd.shardset.labels import LabelSpace

CHANGES = ("came", "went", "relabelled")
COLUMNS = ["key", "kept", "reason", "label", "original_label"]
SIDES = ("reason_before", "reason_after", "label_before", "label_after")


def difference(before: pa.Table, after: pa.Table) -> pa.Table:
    """One row for each key that came, went or has another label, in key order.

    before, after: selections as they lie on disk (`Selection.table`), of one pool, which may have
    been topped up in between. Columns: key int64; change, one of `CHANGES`; reason_before and
    reason_after, why it was dropped, null where it was kept or not yet there; label_before and
    label_after, null where it was not there; original_label. Raises `BadInput` where a key has
    another assigned label, so that the pools differ.
    """
    before, after = (table.select(COLUMNS) for table in (before, after))
    both = before.join(
        after, "key", join_type="full outer", left_suffix="_before", right_suffix="_after"
    ).sort_by("key")

    def differs(name: str) -> pa.ChunkedArray:
        """Whether a column's values differ; False where a key is in one selection alone."""
        return pc.fill_null(pc.not_equal(both[f"{name}_before"], both[f"{name}_after"]), False)

    if len(others := both.filter(differs("original_label"))):
        first = others.slice(0, 1).to_pylist()[0]
        raise BadInput(
            f"key {first['key']} is labelled {first['original_label_before']} in one selection and "
            f"{first['original_label_after']} in the other: they are of different pools; compare "
            "selections of one run"
        )
    kept_before = pc.fill_null(both["kept_before"], False).to_numpy()
    kept_after = pc.fill_null(both["kept_after"], False).to_numpy()
    came, went = kept_after & ~kept_before, kept_before & ~kept_after
    relabelled = kept_before & kept_after & differs("label").to_numpy()
    change = np.select([came, went, relabelled], CHANGES, "")
    columns = {
        "key": both["key"],
        "change": pa.array(change, pa.string()),
        **{name: both[name] for name in SIDES},
        "original_label": pc.coalesce(both["original_label_before"], both["original_label_after"]),
    }
    return pa.table(columns).filter(pa.array(change != ""))


def why(changes: pa.Table) -> pa.Table:
    """How many keys changed for each pair of reasons, most first: change, reason_before,
    reason_after, count.
    """
    by = ["change", "reason_before", "reason_after"]
    counted = changes.group_by(by).aggregate([([], "count_all")])
    counted = counted.rename_columns([*by, "count"])
    return counted.sort_by([("count", "descending"), *((name, "ascending") for name in by)])


def changes_per_group(changes: pa.Table, space: LabelSpace) -> pa.Table:
    """How many keys of each group of assigned labels came, went and have another label: group
    int64, name, and one count for each of `CHANGES`; groups without a change are left out.
    """
    groups = space.group_of(changes["original_label"].to_numpy())
    present, index = np.unique(groups, return_inverse=True)
    counts = {
        change: np.bincount(
            index[pc.equal(changes["change"], change).to_numpy()], minlength=len(present)
        )
        for change in CHANGES
    }
    names = pa.array([space.group_names[group] for group in present], pa.string())
    return pa.table({"group": present, "name": names, **counts})


def kept_per_group(selection: pa.Table, space: LabelSpace) -> dict[str, int]:
    """How many samples a selection keeps of each group, by the labels that they are given."""
    kept = selection.filter(selection["kept"])
    groups = space.group_of(kept["label"].to_numpy())
    counts = np.bincount(groups, minlength=len(space.group_names))
    return dict(zip(space.group_names, counts.tolist(), strict=True))
