"""What a reviewer looks at: the samples of a run or release as columns, without their images.

A million samples are a hundred megabytes of NumPy columns; images and logits stay on disk until
somebody looks.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from cgankd.curation.neighbours import Neighbours, Thresholds
from cgankd.curation.policies import Policy
from cgankd.curation.policies.neighbour_rules import duplicate_groups, memorised
from cgankd.curation.policies.rule import Scores, aligned_rows
from cgankd.curation.policies.selection import KEPT, REASONS
from cgankd.shardset.errors import BadInput, CorruptShard
from cgankd.shardset.identity import uniforms
from cgankd.shardset.labels import LabelSpace
from cgankd.shardset.pool.plan import read_plan
from cgankd.shardset.pool.run_folder import RunFolder
from cgankd.shardset.records import RatioFacts
from cgankd.shardset.samples import PoolPlaces, ReleasePlaces, Samples, open_samples
from cgankd.shardset.tables import read_metadata, read_table

SCORES = (
    "density_ratio", "teacher_error", "teacher_entropy", "nearest_real_similarity", "outlier",
)  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """Every sample of a pool in key order, with its scores and what one selection decided."""

    path: Path
    kind: Literal["run", "release"]
    space: LabelSpace
    pool_id: str
    seed: int  # of the production
    facts: Mapping[str, Any]  # run.json, or the facts of a release's manifest
    ratio_problems: tuple[str, ...]
    reviews: Path  # the folder of verdicts
    selections: tuple[str, ...]
    selection: str | None  # of which the decisions are; None: nothing was decided
    policy: Policy | None  # of that selection
    notes: tuple[str, ...]  # what is not there, and what to do about it
    places: PoolPlaces | ReleasePlaces

    key: np.ndarray  # int64 [n], ascending
    original_label: np.ndarray  # [n], as assigned: int64 classes, or float64 in their unit
    group: np.ndarray  # int64 [n], of the assigned label
    label: np.ndarray  # [n], after the selection
    reason: np.ndarray  # int8 [n]: KEPT, or an index into REASONS
    scored: np.ndarray  # bool [n]
    teacher_prediction: np.ndarray  # [n]: a class, −1 for none; or a value, NaN for none
    scores: Mapping[str, np.ndarray]  # float32 [n] for each of SCORES, NaN where there is none
    nearest_real: np.ndarray  # int64 [n], into training ++ validation images; −1: not known
    in_first_round: np.ndarray  # bool [n]
    neighbours: Neighbours | None

    def __len__(self) -> int:
        return len(self.key)

    @property
    def kept(self) -> np.ndarray:
        """Bool `[n]`."""
        return self.reason == KEPT

    @cached_property
    def uniforms(self) -> np.ndarray:
        """The number in (0, 1) that belongs to each key when samples are accepted, `[n]`."""
        return uniforms(self.seed, 0, int(self.key[-1]) + 1, "accept")[self.key]

    @cached_property
    def policy_scores(self) -> Scores:
        """The columns as a policy reads them."""
        return Scores(
            key=self.key,
            label=self.original_label,
            group=self.group,
            ratio=self.scores["density_ratio"].astype(np.float64),
            teacher_label=self.teacher_prediction,
            teacher_error=self.scores["teacher_error"].astype(np.float64),
            scored=self.scored,
        )

    @cached_property
    def teacher_disagrees(self) -> np.ndarray:
        """Bool `[n]`: the teacher says another class, or a value in another part of the range."""
        prediction = self.teacher_prediction
        if self.space.task == "classification":
            return (prediction != self.original_label) & (prediction >= 0)
        known = np.isfinite(prediction)
        return known & (self.space.group_of(np.nan_to_num(prediction)) != self.group)

    @cached_property
    def duplicate_group(self) -> np.ndarray:
        """A number int64 `[n]` that near-duplicates share; −1 for samples unlike all others."""
        number = np.full(len(self), -1, np.int64)
        if self.neighbours is not None:
            rows = self.rows_of(self.neighbours.key)
            component = duplicate_groups(self.neighbours, self.group[rows], "calibrated")
            number[rows] = np.where(np.bincount(component)[component] > 1, component, -1)
        return number

    @cached_property
    def memorised(self) -> np.ndarray:
        """Bool `[n]`: as near to a training image as no two different real images are."""
        mask = np.zeros(len(self), bool)
        if self.neighbours is not None:
            rows = self.rows_of(self.neighbours.key)
            mask[rows] = memorised(self.neighbours, self.group[rows], "calibrated")
        return mask

    def rows_of(self, keys: np.ndarray) -> np.ndarray:
        """The rows int64 of keys; `BadInput` names one that is not there."""
        rows = np.minimum(np.searchsorted(self.key, keys), len(self) - 1)
        if (strange := np.flatnonzero(self.key[rows] != keys)).size:
            raise BadInput(f"{self.path} has no key {np.asarray(keys)[strange[0]]}")
        return rows


def open_subject(
    spec: str | Path, selection: str | None = None, reviews: Path | None = None
) -> Subject:
    """The samples of a run folder, a release folder or a Hub id, with the decisions of a selection:
    that of the name given, else `cgan-kd`, else the first.

    `reviews` is the folder of verdicts, if not the run's own, the one beside a release, or that of
    the version in `HF_HOME`. `BadInput` where there is no pool; what else is missing is in `notes`.
    """
    samples = open_samples(spec)
    if samples.kind == "run":
        return _decided(_open_run(samples, reviews), samples, selection)
    return _decided(_open_release(samples, reviews), samples, selection)


def with_selection(subject: Subject, name: str | None) -> Subject:
    """The same samples of a run with the decisions of another selection."""
    return _decided(subject, open_samples(subject.path), name)


def _decided(subject: Subject, samples: Samples, name: str | None) -> Subject:
    name = samples.selected(name)
    if name is None:
        return replace(subject, notes=(*subject.notes, "no selection yet: run `cgankd select`"))
    table = samples.decisions(name)
    if not np.array_equal(table["key"].to_numpy(), subject.key):
        note = f"selection {name} decides on {len(table):,} samples of {len(subject):,}: not shown"
        return replace(subject, notes=(*subject.notes, f"{note}; select again"))
    return replace(
        subject,
        selection=name,
        policy=_policy(samples.curation(name).get("policy")),
        label=table["label"].to_numpy(),
        reason=_reasons(table, f"{samples.path}, selection {name}"),
    )


def _open_run(samples: Samples, reviews: Path | None) -> Subject:
    """A run without the decisions of a selection: what is scored counts as kept."""
    run, plan = samples.run, read_plan(samples.run.pool / "plan.json")
    if not any(run.pool.glob("*.parquet")):
        raise BadInput(f"{run.pool} holds no samples yet; run produce first")
    rows, scores, notes = samples.produced(("key", "label", "status")), None, []
    if len(rows) < plan.count:
        notes.append(f"{len(rows):,} of {plan.count:,} samples are produced")
    if not samples.score_files():
        notes.append("no scores yet: run `cgankd score`")
    else:
        scores = samples.scores(("key", "status", *_score_columns(samples)))
        if not scores["key"].equals(rows["key"]):
            notes.append(f"{len(scores):,} of {len(rows):,} samples are scored: run score again")
            scores = None
    fitted = run.is_finished("ratio")
    subject = _undecided(
        samples,
        rows.rename_columns(["key", "original_label", "status"]),
        scores,
        facts=run.facts(),
        ratio_problems=run.read_facts("ratio", RatioFacts).problems if fitted else (),
        reviews=reviews or samples.path / "reviews",
    )
    neighbours = None
    try:
        stored = _read_neighbours(run)
        at = aligned_rows(stored, subject.key, subject.scored)
    except BadInput as problem:
        notes.append(str(problem))
    else:
        neighbours = stored
        for name in ("nearest_real_similarity", "outlier"):
            subject.scores[name][at] = getattr(stored, name)
        subject.nearest_real[at] = stored.nearest_real_id
    return replace(
        subject,
        notes=tuple(notes),
        in_first_round=plan.in_first_round(subject.key),
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
    table = samples.scores(("key", "original_label", "status", *_score_columns(samples)))
    subject = _undecided(
        samples,
        table,
        table,
        facts={"version": manifest.version, **manifest.lineage.plain()},
        ratio_problems=manifest.lineage.ratio_problems,
        reviews=reviews or path.with_name(f"reviews-{path.name}"),
    )
    return replace(subject, notes=tuple(notes))


def _undecided(
    samples: Samples,
    rows: pa.Table,
    scores: pa.Table | None,
    *,
    facts: Mapping[str, Any],
    ratio_problems: Sequence[str],
    reviews: Path,
) -> Subject:
    """What runs and releases have alike, nothing decided, everything of one round, no neighbours.

    rows: key, original_label, status; scores: status and what there is of scores and predictions,
    None where nothing is scored.
    """
    key, original_label = rows["key"].to_numpy(), rows["original_label"].to_numpy()
    scored = pc.equal((rows if scores is None else scores)["status"], "ok").to_numpy()
    columns = {} if scores is None else {n: scores[n] for n in scores.column_names}
    prediction = np.full(len(key), -1)
    if samples.space.task == "regression":
        prediction = np.full(len(key), np.nan)
        if "teacher_value" in columns:
            prediction = columns["teacher_value"].to_numpy().astype(np.float64)
    elif "teacher_label" in columns:
        prediction = columns["teacher_label"].fill_null(-1).to_numpy()
    return Subject(
        path=samples.path,
        kind=samples.kind,
        space=samples.space,
        pool_id=samples.pool_id,
        seed=samples.seed,
        facts=facts,
        ratio_problems=tuple(ratio_problems),
        reviews=reviews,
        selections=samples.selections,
        selection=None,
        policy=None,
        notes=(),
        places=samples.places(key),
        key=key,
        original_label=original_label,
        group=samples.space.group_of(original_label),
        label=original_label,
        reason=np.where(scored, KEPT, REASONS.index("outlier")).astype(np.int8),
        scored=scored,
        teacher_prediction=prediction,
        scores={
            name: columns[name].to_numpy().astype(np.float32)
            if name in columns
            else np.full(len(key), np.nan, np.float32)
            for name in SCORES
        },
        nearest_real=np.full(len(key), -1),
        in_first_round=np.ones(len(key), bool),  # a release does not say; it fits on all
        neighbours=None,
    )


def _score_columns(samples: Samples) -> list[str]:
    """What the score tables have of the scores and predictions that a page shows."""
    there = set(samples.score_names())
    return [name for name in (*SCORES, "teacher_label", "teacher_value") if name in there]


def _reasons(table: pa.Table, where: str) -> np.ndarray:
    """The codes int8 of a selection's reasons; `CorruptShard` for a drop without a known one."""
    code = pc.index_in(table["reason"], value_set=pa.array(REASONS)).fill_null(KEPT).to_numpy()
    kept = table["kept"].to_numpy()
    if (wrong := np.flatnonzero((code == KEPT) != kept)).size:
        key, reason = table["key"][wrong[0]], table["reason"][wrong[0]]
        raise CorruptShard(
            f"{where}: key {key} is {'kept' if kept[wrong[0]] else 'dropped'} for {reason}, "
            f"expected one of {', '.join(REASONS)} for what is dropped; select again"
        )
    return code.astype(np.int8)


def _policy(entries: Any) -> Policy | None:
    """A stored policy; `None` where it is another version's."""
    try:
        return Policy.model_validate_json(json.dumps(entries))
    except ValidationError:
        return None


def _read_neighbours(run: RunFolder) -> Neighbours:
    path, columns = run.path / "neighbours.parquet", run.neighbours / "columns.parquet"
    if not (path.is_file() and columns.is_file()):
        raise BadInput("no neighbours yet: run `cgankd find-neighbours`")
    thresholds = Thresholds.model_validate(read_metadata(path)["thresholds"])
    pairs = read_table(path, ("key_a", "key_b", "similarity"))
    return Neighbours.from_tables(read_table(columns), pairs, thresholds)
