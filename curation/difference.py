"""What changed between two selections of one pool, and why."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cgankd.shardset.errors import BadInput
from cgankd.shardset.labels import LabelSpace

CHANGES = ("came", "went", "relabelled")


def difference(before: pa.Table, after: pa.Table) -> pa.Table:
    """One row for each key that came, went or has another label, in key order.

    before, after: selections as they lie on disk (`Selection.table`), of one pool, which may have
    been topped up in between. Columns: key int64; change, one of `CHANGES`; reason_before and
    reason_after, why it was dropped, null where it was kept or not yet there; label_before and
    label_after, null where it was not there; original_label. Raises `BadInput` where a key has
    another assigned label, so that the pools differ.
    """
    keys = np.union1d(before["key"].to_numpy(), after["key"].to_numpy())
    a, b = _Side(before, keys), _Side(after, keys)
    assigned = a.column("original_label"), b.column("original_label")
    other = np.flatnonzero(a.there & b.there & (assigned[0] != assigned[1]))
    if other.size:
        raise BadInput(
            f"key {keys[other[0]]} is labelled {assigned[0][other[0]]} in one selection and "
            f"{assigned[1][other[0]]} in the other: they are of different pools; compare "
            "selections of one run"
        )
    came, went = b.kept & ~a.kept, a.kept & ~b.kept
    relabelled = a.kept & b.kept & (a.column("label") != b.column("label"))
    rows = np.flatnonzero(came | went | relabelled)
    change = np.select([came[rows], went[rows]], [0, 1], 2).astype(np.int8)
    return pa.table(
        {
            "key": keys[rows],
            "change": pa.DictionaryArray.from_arrays(change, list(CHANGES)).cast(pa.string()),
            "reason_before": a.take("reason", rows),
            "reason_after": b.take("reason", rows),
            "label_before": a.take("label", rows),
            "label_after": b.take("label", rows),
            "original_label": np.where(a.there, *assigned)[rows],
        }
    )


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


class _Side:
    """One selection, aligned with the keys of both."""

    def __init__(self, table: pa.Table, keys: np.ndarray):
        self.table = table
        own = table["key"].to_numpy()
        self.row = np.minimum(np.searchsorted(own, keys), max(len(own) - 1, 0))
        self.there = own[self.row] == keys if len(own) else np.zeros(len(keys), bool)
        self.kept = self.column("kept") & self.there

    def column(self, name: str) -> np.ndarray:
        """A column `[len(keys)]`; any value where the key is not there."""
        values = self.table[name].to_numpy()
        return values[self.row] if len(values) else np.zeros(len(self.row), values.dtype)

    def take(self, name: str, rows: np.ndarray) -> pa.Array:
        """A column for some of the keys, null where the key is not there."""
        return self.table[name].take(pa.array(self.row[rows], mask=~self.there[rows]))
