"""What is compared of a release, or of a selection in a run folder."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from cgankd.shardset.errors import BadInput, ReleaseError
from cgankd.shardset.files import read_json
from cgankd.shardset.hub.read import Opened, opened
from cgankd.shardset.labels import ClassLabels, LabelSpace
from cgankd.shardset.pool.plan import read_plan
from cgankd.shardset.pool.run_folder import RunFolder
from cgankd.shardset.release.manifest import CURATION, REPORT
from cgankd.shardset.release.tables import SCORES
from cgankd.shardset.tables import read_metadata, read_table

DECISIONS = ("key", "kept", "reason", "label", "original_label")
NO_METRICS = ("policy", "scores", "neighbours", "groups", "labels")  # told elsewhere, or hashes
MEASURED = ("fidelity", "check")  # facts of a release that are figures
SECTIONS = ("space", "columns", "policy", "recipe", "weights", "metrics", "lineage")


@dataclass(frozen=True)
class Side:
    """One side: a row of `DECISIONS` for every key, and by `SECTIONS` what is known beside them."""

    name: str
    decisions: pa.Table
    pool_id: str
    space: LabelSpace
    sections: Mapping[str, Mapping[str, Any]]


def side(spec: str, selection: str) -> Side:
    """A release folder or one on the Hub, or the selection of that name in a run folder.

    Of a release on the Hub only metadata and scores are fetched. `BadInput` for a selection or a
    release that is not there.
    """
    if (Path(spec) / "recipe.yaml").is_file():
        return _of_run(RunFolder.open(spec), selection)
    return _of_release(spec, opened(spec, only=("metadata/*", "scores/*")))


def _of_run(run: RunFolder, selection: str) -> Side:
    chosen = run.selections / f"{selection}.parquet"
    if not chosen.is_file():
        names = ", ".join(sorted(p.stem for p in run.selections.glob("*.parquet"))) or "none"
        raise BadInput(f"{run.path} has no selection {selection!r}; it has {names}")
    space = TypeAdapter[LabelSpace](LabelSpace).validate_python(run.facts()["source"]["space"])
    metadata = read_metadata(chosen)
    return Side(
        name=f"{run.path} ({selection})",
        decisions=read_table(chosen, DECISIONS).replace_schema_metadata(None),
        pool_id=read_plan(run.pool / "plan.json").pool_id,
        space=space,
        sections={
            "space": _plain(space),
            "policy": metadata["policy"],
            "metrics": _without(metadata, *NO_METRICS),
        },
    )


def _of_release(spec: str, release: Opened) -> Side:
    manifest, folder = release.manifest, release.folder
    files = [folder / entry.path for entry in manifest.files if entry.path.startswith(f"{SCORES}/")]
    if not files:
        raise ReleaseError(f"{spec} holds no scores, which say why a sample was dropped")
    facts = manifest.facts
    metrics = {
        **_without(read_json(folder / CURATION), *NO_METRICS),
        **{name: facts.get(name) for name in MEASURED},
        "report": read_json(folder / REPORT) if (folder / REPORT).is_file() else None,
    }
    tables = [read_table(file, DECISIONS) for file in files]
    if isinstance(check := facts.get("check"), dict):
        check = {"overall": check.get("shares"), **_without(check, "shares")}  # as in format 1
        metrics["check"] = {**check, "metrics": _by(check.get("metrics"), "metric", "split")}
    lineage = _without(facts, "policy", "recipe", "weights", *MEASURED)
    lineage["stages"] = _by(facts.get("stages"), "step")
    # Thousands of salted hashes: the set's fingerprint and the split's seed stand for them.
    lineage["real"] = _without(facts.get("real", {}), "hashes", "salt")
    return Side(
        name=release.version if release.repo_id is None else f"{release.repo_id}@{release.version}",
        decisions=pa.concat_tables(tables).replace_schema_metadata(None),
        pool_id=manifest.pool_id,
        space=manifest.space,
        sections={
            "space": _plain(manifest.space),
            "columns": {field.name: str(field.type) for field in pq.read_schema(files[0])},
            "policy": facts.get("policy", {}),
            # The selection's own policy, above, is the one that was followed.
            "recipe": _without(facts.get("recipe", {}), "policy"),
            "weights": facts.get("weights", {}),
            "metrics": metrics,
            "lineage": lineage,
        },
    )


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
