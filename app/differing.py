"""What changed between two selections of one pool, wherever they lie."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import TypeAdapter

from app.console import Console
from curation.difference import changes_per_group, difference, why
from shardset.errors import BadInput, ReleaseError
from shardset.identity import key_text
from shardset.labels import LabelSpace
from shardset.manifest import MANIFEST, read_manifest
from shardset.plan import read_plan
from shardset.run_folder import RunFolder
from shardset.tables import read_table

COLUMNS = ("key", "kept", "reason", "label", "original_label")
SHOWN = 20  # keys on a console; all are in the JSON


@dataclass(frozen=True)
class Decided:
    """A selection with what it is a selection of."""

    table: pa.Table
    pool_id: str
    space: LabelSpace


def changed(
    before: Path, after: Path | None, from_: str, to: str, console: Console
) -> dict[str, Any]:
    """What `cgankd diff --json` prints: the keys that changed, the pairs of reasons with counts,
    and counts per label. Each side is a release folder, or a run folder with a selection's name.
    """
    if (after is None or after == before) and from_ == to:
        raise BadInput(
            f"{before} was given alone; give a second folder, or a run folder with two selections: "
            "--from NAME --to NAME"
        )
    old, new = decided(before, from_), decided(before if after is None else after, to)
    if old.pool_id != new.pool_id:
        raise BadInput(
            f"{before} and {after} select from different pools ({old.pool_id} and {new.pool_id}); "
            "compare selections of one pool"
        )
    changes = difference(old.table, new.table)
    reasons, labels = why(changes), changes_per_group(changes, new.space)
    for title, table in (
        (f"{len(changes):,} changed", reasons),
        ("labels", labels.drop_columns("group")),
        (f"keys, the first {SHOWN} at most", _with_key_text(changes.slice(0, SHOWN))),
    ):
        if len(table):
            rows = [list(row.values()) for row in table.to_pylist()]
            console.table(title, [name.replace("_", " ") for name in table.column_names], rows)
    if not len(changes):
        console.note("nothing changed")
    return {
        "changed": len(changes),
        "why": reasons.to_pylist(),
        "labels": labels.to_pylist(),
        "keys": changes.to_pylist(),
    }


def decided(path: Path, name: str) -> Decided:
    """The decisions in a release folder, or those of a run folder's selection of that name."""
    if (path / MANIFEST).is_file():
        manifest = read_manifest(path)
        files = sorted((path / "scores").glob("*.parquet"))
        if not files:
            raise ReleaseError(f"{path} holds no scores, which say why a sample was dropped")
        table = pa.concat_tables([read_table(file, COLUMNS) for file in files])
        return Decided(table.replace_schema_metadata(None), manifest.pool_id, manifest.space)
    run = RunFolder.open(path)
    chosen = run.selections / f"{name}.parquet"
    if not chosen.is_file():
        names = ", ".join(sorted(p.stem for p in run.selections.glob("*.parquet"))) or "none"
        raise BadInput(f"{path} has no selection {name!r}; it has {names}")
    space = TypeAdapter[LabelSpace](LabelSpace).validate_python(run.facts()["source"]["space"])
    table = read_table(chosen, COLUMNS).replace_schema_metadata(None)
    return Decided(table, read_plan(run.pool / "plan.json").pool_id, space)


def _with_key_text(changes: pa.Table) -> pa.Table:
    """The same rows with keys as they are written everywhere: numbers, but none to count with."""
    keys = [key_text(key) for key in changes["key"].to_pylist()]
    return changes.set_column(0, "key", pa.array(keys, pa.string()))
