"""What changed between two releases, or two selections, wherever they lie."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cgankd.app.console import Console
from cgankd.curation.difference import changes_per_group, difference, kept_per_group, why
from cgankd.curation.policies import current_names
from cgankd.shardset.errors import BadInput
from cgankd.shardset.files import read_json
from cgankd.shardset.identity import key_text
from cgankd.shardset.labels import ClassLabels, LabelSpace
from cgankd.shardset.release.manifest import REPORT
from cgankd.shardset.samples import Samples, open_samples

SHOWN = 20  # keys on a console; all are in the JSON
WIDTH = 40  # characters of a value on a console
# Compared in another place, or hashes.
NO_METRICS = ("policy", "scores", "neighbours", "groups", "labels")
SECTIONS = ("space", "columns", "policy", "recipe", "weights", "metrics", "lineage")


@dataclass(frozen=True)
class Side:
    """One side: a row of `DECISIONS` for every key, and by `SECTIONS` what is known beside them."""

    name: str
    decisions: pa.Table
    pool_id: str
    space: LabelSpace
    sections: Mapping[str, Mapping[str, Any]]


def diff(
    before: str | Path,
    after: str | Path | None = None,
    *,
    console: Console,
    from_: str = "cgan-kd",
    to: str = "cgan-kd",
) -> dict[str, Any]:
    """What `cgankd diff --json` prints: how many keys changed, why, of which labels and which they
    are (null where the pools differ), images for each label, and by `SECTIONS` the fields that
    changed.

    Each side is a release folder, a Hub id, or a run folder with a selection's name.
    """
    if (after is None or after == before) and from_ == to:
        raise BadInput(
            f"{before} was given alone; give a second folder, or a run folder with two selections: "
            "--from NAME --to NAME"
        )
    old, new = _side(str(before), from_), _side(str(before if after is None else after), to)
    result: dict[str, Any] = {
        "before": {"name": old.name, "pool_id": old.pool_id},
        "after": {"name": new.name, "pool_id": new.pool_id},
        **_keys(old, new, console),
        "counts": _counts(old, new, console),
    }
    for name in SECTIONS:
        if name in old.sections and name in new.sections:
            fields = list(field_changes(old.sections[name], new.sections[name]))
            if name == "metrics":  # one that was not measured before is no change
                fields = [f for f in fields if None not in (f["before"], f["after"])]
            result[name] = fields
            _show(
                name,
                [[f["field"], _cell(f["before"]), _cell(f["after"])] for f in fields],
                ["field", "before", "after"],
                console,
            )
    if old.pool_id == new.pool_id and not (
        result["changed"] or any(result.get(name) for name in SECTIONS)
    ):
        console.note("nothing changed")
    return result


def field_changes(before: Any, after: Any, field: str = "") -> Iterator[dict[str, Any]]:
    """The fields of two nested mappings whose values differ: `field` dotted, before, after.

    A field that is not there counts as null; lists are compared as a whole.
    """
    sides = [value for value in (before, after) if value is not None]
    if sides and all(isinstance(value, dict) for value in sides):
        old, new = before or {}, after or {}
        for name in sorted(old.keys() | new.keys()):
            inner = f"{field}.{name}" if field else name
            yield from field_changes(old.get(name), new.get(name), inner)
    # By text: 1, 1.0 and true are equal in Python but not the same setting.
    elif json.dumps(before, sort_keys=True) != json.dumps(after, sort_keys=True):
        yield {"field": field, "before": before, "after": after}


def _side(spec: str, selection: str) -> Side:
    """A release, or the selection of that name in a run; of the Hub no images are fetched."""
    samples = open_samples(spec, images=False)
    name = selection if samples.kind == "run" else samples.selections[0]
    sections = _sections_of_run if samples.kind == "run" else _sections_of_release
    return Side(
        name=f"{samples.path} ({name})" if samples.kind == "run" else samples.release.name,
        decisions=samples.decisions(name),
        pool_id=samples.pool_id,
        space=samples.space,
        sections={"space": _plain(samples.space), **sections(samples, name)},
    )


def _sections_of_run(samples: Samples, selection: str) -> dict[str, Any]:
    curation = samples.curation(selection)
    return {
        "policy": current_names(curation["policy"])[0],
        "metrics": _without(curation, *NO_METRICS),
    }


def _sections_of_release(samples: Samples, selection: str) -> dict[str, Any]:
    lineage, report = samples.release.manifest.lineage, samples.path / REPORT
    facts = lineage.plain()
    metrics = {
        **_without(samples.curation(selection), *NO_METRICS),
        "report": read_json(report) if report.is_file() else None,
    }
    if check := facts["check"]:
        metrics["check"] = {**check, "metrics": _by(check["metrics"], "metric", "split")}
    origin = _without(facts, "policy", "recipe", "weights", "check")
    origin["stages"] = _by(facts["stages"], "step")
    # Thousands of salted hashes: the set's fingerprint and the split's seed stand for them.
    origin["real"] = _without(facts["real"] or {}, "hashes", "salt")
    schema = pq.read_schema(samples.score_files()[0])
    return {
        "columns": {field.name: str(field.type) for field in schema},
        "policy": current_names(lineage.policy or {})[0],
        # The selection's own policy, above, is the one that was followed.
        "recipe": _without(lineage.recipe or {}, "policy"),
        "weights": facts["weights"] or {},
        "metrics": metrics,
        "lineage": origin,
    }


def _plain(space: LabelSpace) -> dict[str, Any]:
    """A label space in which each class is a field, so that one other name is one change."""
    plain = space.model_dump(mode="json")
    if isinstance(space, ClassLabels):
        plain["names"] = {str(index): name for index, name in enumerate(space.names)}
    return plain


def _by(rows: Any, *names: str) -> Any:
    """Rows as a mapping by what names them, so that each is compared with its own."""
    if not isinstance(rows, list) or not all(
        isinstance(row, dict) and row.keys() >= set(names) for row in rows
    ):
        return rows
    return {" ".join(str(row[name]) for name in names): _without(row, *names) for row in rows}


def _without(mapping: Any, *names: str) -> dict[str, Any]:
    """A mapping without some of its entries; empty for what somebody wrote in its place."""
    if not isinstance(mapping, dict):
        return {}
    return {name: value for name, value in mapping.items() if name not in names}


def _keys(old: Side, new: Side, console: Console) -> dict[str, Any]:
    """What became of each key, which only samples of one pool have in common."""
    if old.pool_id != new.pool_id:
        console.note(
            f"{old.name} and {new.name} are of different pools ({old.pool_id} and {new.pool_id}): "
            "the same key is another sample, so keys are not compared"
        )
        return dict.fromkeys(("changed", "why", "labels", "keys"))
    changes = difference(old.decisions, new.decisions)
    reasons, labels = why(changes), changes_per_group(changes, new.space)
    for title, table in (
        (f"{len(changes):,} samples changed", reasons),
        ("by assigned label", labels.drop_columns("group")),
        (f"keys, the first {SHOWN} at most", _with_key_text(changes.slice(0, SHOWN))),
    ):
        rows = [list(row.values()) for row in table.to_pylist()]
        _show(title, rows, [name.replace("_", " ") for name in table.column_names], console)
    return {
        "changed": len(changes),
        "why": reasons.to_pylist(),
        "labels": labels.to_pylist(),
        "keys": changes.to_pylist(),
    }


def _counts(old: Side, new: Side, console: Console) -> list[dict[str, Any]]:
    """Images for each label of either side, null where a side has no such label."""
    before, after = (kept_per_group(s.decisions, s.space) for s in (old, new))
    counts = [
        {"label": name, "before": before.get(name), "after": after.get(name)}
        for name in dict.fromkeys([*before, *after])
    ]
    total = f"images: {sum(before.values()):,} before, {sum(after.values()):,} after"
    rows = [list(row.values()) for row in counts if row["before"] != row["after"]]
    if rows:
        console.table(total, ["label", "before", "after"], rows)
    else:
        console.note(f"{total}, as many of each label")
    return counts


def _show(title: str, rows: list[list[Any]], columns: list[str], console: Console) -> None:
    if rows:
        console.table(title, columns, rows)


def _cell(value: Any) -> str | None:
    """A value as it is written in JSON, exact where a table would round it."""
    if value is None:
        return None
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 1]}…"


def _with_key_text(changes: pa.Table) -> pa.Table:
    """The same rows with keys as they are written everywhere: numbers, but none to count with."""
    keys = [key_text(key) for key in changes["key"].to_pylist()]
    return changes.set_column(0, "key", pa.array(keys, pa.string()))
