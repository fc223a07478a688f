"""Opens a run, a release or a Hub id for review: its tables become columns."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from cgankd.app.review.data import SCORES, Subject
from cgankd.curation.neighbours.table import Neighbours, Thresholds
from cgankd.curation.policies import Policy
from cgankd.curation.policies.rule import aligned_rows
from cgankd.curation.policies.selection import KEPT, REASONS
from cgankd.shardset.errors import BadInput, CorruptShard
from cgankd.shardset.files import read_json
from cgankd.shardset.labels import LabelSpace
from cgankd.shardset.pool.plan import read_plan
from cgankd.shardset.pool.run_folder import RunFolder
from cgankd.shardset.samples import DECISIONS, Samples, open_samples
from cgankd.shardset.tables import read_metadata, read_table


def open_subject(
    spec: str | Path, selection: str | None = None, reviews: Path | None = None
) -> Subject:
    """The samples of a run folder, a release folder or a Hub id, with the decisions of a selection:
    that of the name given, else `cgan-kd`, else the first.

    `reviews` is the folder of verdicts, if not the run's own, the one beside a release, or that of
    the version in `HF_HOME`.
    `BadInput` where there is no pool; what else is missing is in `notes`.
    """
    samples = open_samples(spec)
    if samples.kind == "run":
        return with_selection(_open_run(samples, reviews or samples.path / "reviews"), selection)
    samples.selected(selection)
    return _open_release(samples, reviews)


def with_selection(subject: Subject, name: str | None) -> Subject:
    """The same samples of a run with the decisions of another selection."""
    samples = open_samples(subject.path)
    name = samples.selected(name)
    if name is None:
        return replace(subject, notes=(*subject.notes, "no selection yet: run `cgankd select`"))
    path = samples.selection_file(name)
    table = samples.decisions(name)
    if not np.array_equal(table["key"].to_numpy(), subject.key):
        note = f"selection {name} decides on {len(table):,} samples of {len(subject):,}: not shown"
        return replace(subject, notes=(*subject.notes, f"{note}; select again"))
    return replace(
        subject,
        selection=name,
        policy=_policy(samples.curation(name).get("policy")),
        label=table["label"].to_numpy(),
        reason=_reasons(table, path),
    )


def _open_run(samples: Samples, reviews: Path) -> Subject:
    run, space = samples.run, samples.space
    plan = read_plan(run.pool / "plan.json")
    if not any(run.pool.glob("*.parquet")):
        raise BadInput(f"{run.pool} holds no samples yet; run produce first")
    rows = samples.produced(("key", "label", "status"))
    key, label = rows["key"].to_numpy(), rows["label"].to_numpy()
    notes = []
    if len(key) < plan.count:
        notes.append(f"{len(key):,} of {plan.count:,} samples are produced")
    table = None
    if samples.score_files():
        table = samples.scores(_score_columns(samples))
        if not table["key"].equals(rows["key"]):
            notes.append(f"{len(table):,} of {len(key):,} samples are scored: run score again")
            table = None
    else:
        notes.append("no scores yet: run `cgankd score`")
    neighbours = _read_neighbours(run, notes)
    columns, prediction = _scores(table, space, len(key))
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
        path=samples.path,
        kind="run",
        space=space,
        pool_id=samples.pool_id,
        seed=samples.seed,
        facts=run.facts(),
        ratio_problems=tuple(ratio["facts"]["problems"]) if ratio else (),
        reviews=reviews,
        selections=samples.selections,
        selection=None,
        policy=None,
        notes=tuple(notes),
        places=samples.places(key),
        key=key,
        original_label=label,
        group=space.group_of(label),
        label=label,
        reason=np.where(scored, KEPT, REASONS.index("outlier")).astype(np.int8),
        scored=scored,
        teacher_prediction=prediction,
        scores=columns,
        in_first_round=plan.in_first_round(key),
        neighbours=neighbours,
    )


def _open_release(samples: Samples, reviews: Path | None) -> Subject:
    """A release; verdicts on a version of the Hub lie in `HF_HOME`, its copy being read only."""
    from huggingface_hub import constants

    path, release = samples.path, samples.release
    manifest, notes = release.manifest, ["neighbours are not part of a release"]
    if not (path / "data" / "rejected").is_dir():
        notes.append("the images of dropped samples are not part of this release")
    if release.repo_id is not None:
        of_user = Path(constants.HF_HOME) / "cgankd" / "reviews"
        reviews = reviews or of_user / release.repo_id / release.version
        where = f"{release.repo_id}@{release.version} on the Hub is read only"
        notes = [f"{where}: verdicts go to {reviews}", *notes]
    table = samples.scores((*DECISIONS, *_score_columns(samples)[2:]))
    key, original = table["key"].to_numpy(), table["original_label"].to_numpy()
    columns, prediction = _scores(table, samples.space, len(key))
    return Subject(
        path=path,
        kind="release",
        space=samples.space,
        pool_id=samples.pool_id,
        seed=samples.seed,
        facts={"version": manifest.version, **manifest.facts},
        ratio_problems=tuple(manifest.facts.get("ratio_problems") or ()),
        reviews=reviews or path.with_name(f"reviews-{path.name}"),
        selections=samples.selections,
        selection=manifest.version,
        policy=_policy(samples.curation(manifest.version).get("policy")),
        notes=tuple(notes),
        places=samples.places(key),
        key=key,
        original_label=original,
        group=samples.space.group_of(original),
        label=table["label"].to_numpy(),
        reason=_reasons(table, path),
        scored=pc.equal(table["status"], "ok").to_numpy(),
        teacher_prediction=prediction,
        scores=columns,
        in_first_round=np.ones(len(key), bool),  # a release does not say; it fits on all
        neighbours=None,
    )


def _score_columns(samples: Samples) -> tuple[str, ...]:
    """Key and status, and what the tables have of the scores that a page shows."""
    there = set(samples.score_names())
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
