"""Opens a run, a release or a Hub id for review: its tables become columns."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from cgankd.app.review.data import SCORES, PoolPlaces, ReleasePlaces, Subject
from cgankd.curation.neighbours.table import Neighbours, Thresholds
from cgankd.curation.policies.neighbour_rules import aligned_rows
from cgankd.curation.policies.policy import Policy
from cgankd.curation.policies.selection import KEPT, REASONS
from cgankd.shardset.errors import BadInput, CorruptShard, ReleaseError
from cgankd.shardset.files import read_json
from cgankd.shardset.hub.ids import REPO_PATTERN
from cgankd.shardset.labels import LabelSpace
from cgankd.shardset.pool.plan import read_plan
from cgankd.shardset.pool.run_folder import RunFolder
from cgankd.shardset.release.manifest import CURATION, MANIFEST, Manifest, read_manifest
from cgankd.shardset.tables import read_metadata, read_numbered, read_table

PLACES = ("key", "label", "shard", "png_offset", "png_length", "status")
DECISIONS = ("key", "kept", "reason", "label", "original_label")
DEFAULT_SELECTION = "cgan-kd"


def open_subject(
    spec: str | Path, selection: str | None = None, reviews: Path | None = None
) -> Subject:
    """The samples of a run folder, a release folder or a Hub id, with the decisions of a selection:
    that of the name given, else `cgan-kd`, else the first.

    `reviews` is the folder of verdicts, if not the run's own, the one beside a release, or that of
    the version in `HF_HOME`.
    `BadInput` where there is no pool; what else is missing is in `notes`.
    """
    path = Path(spec).expanduser()
    if (path / MANIFEST).is_file():
        if selection is not None:
            raise BadInput(f"{path} is a release, which holds one selection; give no name")
        return _open_release(path, reviews or path.with_name(f"reviews-{path.name}"))
    if (path / "run.json").is_file():
        return with_selection(_open_run(path, reviews or path / "reviews"), selection)
    if path.exists() or not re.fullmatch(f"{REPO_PATTERN}(@.*)?", str(spec)):
        raise BadInput(f"{spec} is neither a run nor a release folder, nor an id of the Hub")
    if selection is not None:
        raise BadInput(f"{spec} is a release, which holds one selection; give no name")
    return _open_hub(str(spec), reviews)


def with_selection(subject: Subject, name: str | None) -> Subject:
    """The same samples of a run with the decisions of another selection."""
    if not subject.selections and name is None:
        return replace(subject, notes=(*subject.notes, "no selection yet: run `cgankd select`"))
    if name is None:
        default = DEFAULT_SELECTION in subject.selections
        name = DEFAULT_SELECTION if default else subject.selections[0]
    if name not in subject.selections:
        names = ", ".join(subject.selections) or "none"
        raise BadInput(f"{subject.path} has no selection {name!r}; it has {names}")
    path = RunFolder(subject.path).selections / f"{name}.parquet"
    table = read_table(path, DECISIONS)
    if not np.array_equal(table["key"].to_numpy(), subject.key):
        note = f"selection {name} decides on {len(table):,} samples of {len(subject):,}: not shown"
        return replace(subject, notes=(*subject.notes, f"{note}; select again"))
    return replace(
        subject,
        selection=name,
        policy=_policy(read_metadata(path).get("policy")),
        label=table["label"].to_numpy(),
        reason=_reasons(table, path),
    )


def _open_run(path: Path, reviews: Path) -> Subject:
    run = RunFolder.open(path)
    facts = run.facts()
    if "space" not in facts.get("source", {}):
        raise BadInput(f"{run.path / 'run.json'} has no label space; continue the run first")
    space = TypeAdapter[LabelSpace](LabelSpace).validate_python(facts["source"]["space"])
    plan = read_plan(run.pool / "plan.json")
    if not any(run.pool.glob("*.parquet")):
        raise BadInput(f"{run.pool} holds no samples yet; run produce first")
    rows = read_numbered(run.pool, PLACES)
    key, label = rows["key"].to_numpy(), rows["label"].to_numpy()
    notes = []
    if len(key) < plan.count:
        notes.append(f"{len(key):,} of {plan.count:,} samples are produced")
    table = None
    if any(run.scores.glob("*.parquet")):
        table = read_numbered(run.scores, _score_columns(run.scores / "000000.parquet"))
        if not table["key"].equals(rows["key"]):
            notes.append(f"{len(table):,} of {len(key):,} samples are scored: run score again")
            table = None
    else:
        notes.append("no scores yet: run `cgankd score`")
    group = space.group_of(label)
    neighbours = _read_neighbours(run, notes)
    columns, told = _scores(table, space, len(key))
    ok = (rows if table is None else table)["status"]
    scored = pc.equal(ok, "ok").to_numpy()
    if neighbours is not None:
        try:
            at = aligned_rows(neighbours, key, scored)
        except BadInput as problem:
            notes.append(str(problem))
            neighbours = None
        else:
            for name in ("nearest_real_similarity", "outlier"):
                columns[name][at] = getattr(neighbours, name)
    ratio = read_json(run.ratio / "stage.json") if (run.ratio / "stage.json").is_file() else None
    return Subject(
        path=path,
        kind="run",
        space=space,
        pool_id=plan.pool_id,
        seed=plan.seed,
        facts=facts,
        ratio_problems=tuple(ratio["facts"]["problems"]) if ratio else (),
        reviews=reviews,
        selections=tuple(sorted(p.stem for p in run.selections.glob("*.parquet"))),
        selection=None,
        policy=None,
        notes=tuple(notes),
        places=PoolPlaces(
            run.pool, *(rows[n].to_numpy() for n in ("shard", "png_offset", "png_length"))
        ),
        key=key,
        original_label=label,
        group=group,
        label=label,
        reason=np.where(scored, KEPT, REASONS.index("outlier")).astype(np.int8),
        scored=scored,
        teacher_prediction=told,
        scores=columns,
        in_first_round=plan.in_first_round(key),
        neighbours=neighbours,
    )


def _open_release(path: Path, reviews: Path, manifest: Manifest | None = None) -> Subject:
    manifest = manifest or read_manifest(path)
    files = sorted((path / "scores").glob("*.parquet"))
    if not files:
        raise ReleaseError(f"{path} holds no scores, without which there is nothing to review")
    wanted = (*DECISIONS, *_score_columns(files[0])[2:])
    table = pa.concat_tables([read_table(file, wanted) for file in files])
    key, original = table["key"].to_numpy(), table["original_label"].to_numpy()
    columns, told = _scores(table, manifest.space, len(key))
    notes = ["neighbours are not part of a release"]
    if not (path / "data" / "rejected").is_dir():
        notes.append("the images of dropped samples are not part of this release")
    made_by = read_json(path / CURATION) if (path / CURATION).is_file() else {}
    return Subject(
        path=path,
        kind="release",
        space=manifest.space,
        pool_id=manifest.pool_id,
        seed=manifest.production_seed,
        facts={"version": manifest.version, **manifest.facts},
        ratio_problems=tuple(manifest.facts.get("ratio_problems") or ()),
        reviews=reviews,
        selections=(manifest.version,),
        selection=manifest.version,
        policy=_policy(made_by.get("policy")),
        notes=tuple(notes),
        places=_release_places(path, key),
        key=key,
        original_label=original,
        group=manifest.space.group_of(original),
        label=table["label"].to_numpy(),
        reason=_reasons(table, path),
        scored=pc.equal(table["status"], "ok").to_numpy(),
        teacher_prediction=told,
        scores=columns,
        in_first_round=np.ones(len(key), bool),  # a release does not say; it fits on all
        neighbours=None,
    )


def _open_hub(spec: str, reviews: Path | None) -> Subject:
    """A version of the Hub, verified; its verdicts lie in `HF_HOME`, beside the read-only copy."""
    from huggingface_hub import constants

    from cgankd.shardset.hub.read import opened

    found = opened(spec)
    if reviews is None:
        own = Path(constants.HF_HOME) / "cgankd" / "reviews"
        reviews = own / f"{found.repo_id}" / found.version
    subject = _open_release(found.folder, reviews, found.manifest)
    where = f"{found.repo_id}@{found.version} on the Hub is read only: verdicts go to {reviews}"
    return replace(subject, notes=(where, *subject.notes))


def _release_places(path: Path, key: np.ndarray) -> ReleasePlaces:
    files = tuple(
        file
        for part in ("accepted", "rejected")
        for file in sorted((path / "data" / part).glob("*.parquet"))
    )
    found = ReleasePlaces(files, *(np.full(len(key), -1, np.int32) for _ in range(3)))
    for number, file in enumerate(files):
        try:
            with pq.ParquetFile(file) as parquet:
                own = parquet.read(["key"])["key"].to_numpy()
                meta = parquet.metadata
                sizes = [meta.row_group(g).num_rows for g in range(meta.num_row_groups)]
        except (pa.ArrowException, OSError) as error:
            raise CorruptShard(f"{file} is cut or not Parquet; get the release again") from error
        rows = np.searchsorted(key, own)
        found.file[rows] = number
        found.group[rows] = np.repeat(np.arange(len(sizes)), sizes)
        found.row[rows] = np.concatenate([np.arange(size) for size in sizes])
    return found


def _score_columns(path: Path) -> tuple[str, ...]:
    """Key and status, and what the table has of the scores that a page shows."""
    there = set(pq.read_schema(path).names)
    wanted = (*SCORES, "teacher_label", "teacher_value")
    return ("key", "label", "status", *(name for name in wanted if name in there))


def _scores(
    table: pa.Table | None, space: LabelSpace, count: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Every score float32 `[n]`, and what the teacher told `[n]`."""
    names = () if table is None else table.column_names
    columns = {
        name: table[name].to_numpy().astype(np.float32)
        if table is not None and name in names
        else np.full(count, np.nan, np.float32)
        for name in SCORES
    }
    if space.task == "regression":
        told = table["teacher_value"].to_numpy() if table is not None else np.full(count, np.nan)
        return columns, told.astype(np.float64)
    if table is None:
        return columns, np.full(count, -1, np.int64)
    return columns, table["teacher_label"].fill_null(-1).to_numpy()


def _reasons(table: pa.Table, path: Path) -> np.ndarray:
    """The codes int8 of a selection's reasons."""
    code = pc.index_in(table["reason"], value_set=pa.array(REASONS)).fill_null(KEPT).to_numpy()
    kept = table["kept"].to_numpy()
    if (wrong := np.flatnonzero((code == KEPT) != kept)).size:
        key, reason = table["key"][wrong[0]], table["reason"][wrong[0]]
        raise CorruptShard(
            f"{path}: key {key} is {'kept' if kept[wrong[0]] else 'dropped'} for {reason}, "
            f"expected one of {', '.join(REASONS)} for what is dropped; select again"
        )
    return code.astype(np.int8)


def _policy(entries: Any) -> Policy | None:
    """A stored policy; `None` where it is another version's."""
    try:
        return Policy.model_validate_json(json.dumps(entries))
    except ValidationError:
        return None


def _read_neighbours(run: RunFolder, notes: list[str]) -> Neighbours | None:
    path, columns = run.path / "neighbours.parquet", run.neighbours / "columns.parquet"
    if not (path.is_file() and columns.is_file()):
        notes.append("no neighbours yet: run `cgankd find-neighbours`")
        return None
    thresholds = Thresholds.from_json(read_metadata(path)["thresholds"])
    pairs = read_table(path, ("key_a", "key_b", "similarity"))
    return Neighbours.from_tables(read_table(columns), pairs, thresholds)
