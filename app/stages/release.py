"""From a selection to a release folder, with everything that led to it."""

from dataclasses import asdict
from pathlib import Path

import numpy as np

from cgankd.app.context import Context, Facts
from cgankd.app.pages.records import CheckFacts, ReportRecord, read_record
from cgankd.app.recipe import without_place
from cgankd.app.stages.selections import review_facts, reviews_for
from cgankd.curation.policies import current_names
from cgankd.generator import in_words
from cgankd.shardset.errors import BadInput, StaleStage
from cgankd.shardset.files import canonical_json, sha256_file
from cgankd.shardset.pool.plan import read_plan
from cgankd.shardset.records import (
    CheckSummary,
    GeneratorFacts,
    PoolFacts,
    RatioFacts,
    ScoreFacts,
    SelectionFacts,
    TeacherFacts,
)
from cgankd.shardset.release.build import (
    ReleaseFacts,
    Sources,
    build_release,
    propose_version,
    release_facts,
)
from cgankd.shardset.release.exports import SUFFIX, build_wds
from cgankd.shardset.release.manifest import (
    Lineage,
    ProductionFacts,
    RealFacts,
    Weights,
    read_manifest,
    salted_hashes,
)
from cgankd.shardset.release.verify import verify_release
from cgankd.shardset.release.versions import Proposal, released_versions, understated
from cgankd.shardset.tables import read_metadata, read_table

# What the publisher states, in facts of their own beside the recipe.
STATED = ("license", "citation", "homepage", "generator_repo")
SALT_LABEL = "cgan-kd real images"


def build(ctx: Context, version: str | None, selection: str, include_rejected: bool) -> Facts:
    """Facts of the release of a selection; one that this run built before is not built again.

    Without a version, the next one is what the changes since the highest ask for; where nothing
    changed, nothing is built.
    """
    run = ctx.run
    lineage = lineage_of(ctx, selection)
    sources = _sources(ctx, selection, lineage, include_rejected)
    fields = _fields(ctx, selection, lineage, include_rejected)
    if version is None:
        proposal = propose_version(run.release, sources)
        version = proposal.version
        if not proposal.reason:
            ctx.console.note(f"nothing changed since {version}, so nothing was built")
            plain = _plain(release_facts(run.release / version))
            if not run.is_finished(f"release/{version}"):  # killed before its marker was written
                ctx.finish(
                    f"release/{version}", fields, {k: v for k, v in plain.items() if k != "folder"}
                )
            return plain
        ctx.console.note(f"{version} is proposed: {proposal.reason}")
    stage = f"release/{version}"
    if _is_done(ctx, stage, fields) or _was_finished(
        run.release / version, lineage, include_rejected
    ):
        built = release_facts(run.release / version)
        ctx.console.note(f"{version} was built before and is left as it is")
    else:
        if lineage.license is None:
            ctx.console.note(
                "the card says that the real set's licence is not stated; state it with --set "
                "card.license=…, its citation with card.citation"
            )
        built = build_release(run.release, version, sources, workers=ctx.workers)
        manifest = read_manifest(built.folder)
        if manifest.parent_version and manifest.changes:
            hidden = understated(manifest.parent_version, version, manifest.changes)
            if hidden is not None:
                ctx.console.note(hidden)
    plain = _plain(built)
    ctx.finish(stage, fields, {k: v for k, v in plain.items() if k != "folder"})
    return plain


def build_where_changed(ctx: Context, selection: str = "cgan-kd") -> Facts:
    """Facts of the newest release of this run where it is of this very selection, else of the next
    version, built now. What was measured or stated since does not ask for one.
    """
    versions = released_versions(ctx.run.release)
    if versions:
        newest = versions[-1]
        fields = _fields(ctx, selection, lineage_of(ctx, selection), False)
        either = ({**fields, "include_rejected": rejected} for rejected in (False, True))
        if any(ctx.run.stage_matches(f"release/{newest}", given) for given in either):
            return _plain(release_facts(ctx.run.release / newest))
    return build(ctx, None, selection, False)


def _fields(ctx: Context, selection: str, lineage: Lineage, include_rejected: bool) -> Facts:
    """What makes a release another one: what is only stated of it does not."""
    fields: Facts = {
        "selection_sha256": ctx.run.read_facts(f"selections/{selection}", SelectionFacts).sha256,
        "include_rejected": include_rejected,
        "lineage": {**_made(lineage), "space": ctx.data.reals.space.model_dump(mode="json")},
    }
    fields["lineage"]["recipe"] = {
        name: value
        for name, value in (lineage.recipe or {}).items()
        if name not in ("card", "release")
    }
    return fields


def _made(lineage: Lineage) -> Facts:
    """The lineage without what is stated or measured later, which makes no release stale."""
    later = (*STATED, "check", "recipe")
    fields = lineage.model_dump(mode="json", exclude=set(later))
    return {name: value for name, value in fields.items() if value is not None}


def proposed(ctx: Context, selection: str, include_rejected: bool) -> Proposal:
    """The version that a release of the selection would get, and why; nothing is built."""
    lineage = lineage_of(ctx, selection)
    sources = _sources(ctx, selection, lineage, include_rejected)
    return propose_version(ctx.run.release, sources)


def _sources(ctx: Context, selection: str, lineage: Lineage, include_rejected: bool) -> Sources:
    """What a release is built of, the check and the report of this selection with it."""
    run = ctx.run
    table = run.selections / f"{selection}.parquet"
    chosen_by = read_metadata(table).get("groups")
    if chosen_by not in (None, list(ctx.space.group_names)):
        raise BadInput(
            f"{table} was selected by {len(chosen_by)} parts of the label range, the recipe has "
            f"{len(ctx.space.group_names)}; select again with the recipe's label.groups"
        )
    _require_newest_reviews(ctx, selection, table)
    return Sources(
        pool=run.pool,
        scores=run.scores,
        selection=table,
        space=ctx.data.reals.space,
        lineage=lineage.model_copy(update={"check": check_of(ctx, selection)}),
        include_rejected=include_rejected,
        report=report_of(ctx, selection),
        current_policy=lambda policy: current_names(policy)[0],
    )


def _require_newest_reviews(ctx: Context, selection: str, table: Path) -> None:
    """Raises `StaleStage` where verdicts were given or taken back since the selection was made."""
    now = review_facts(reviews_for(ctx, selection, read_table(table, ["key"])["key"].to_numpy()))
    if read_metadata(table).get("reviews") != now.get("reviews"):
        raise StaleStage(
            f"{table} was selected before the newest verdicts in {ctx.run.reviews}; select again: "
            f"cgankd select {ctx.run.path} --name {selection}"
        )


def tar_copy(ctx: Context, version: str) -> str:
    """The folder of a release's tar copy, built if it is not there and verified if it is."""
    release = ctx.run.release / version
    folder = release.with_name(release.name + SUFFIX)
    if not folder.exists():
        build_wds(release)
    elif problems := verify_release(folder):
        raise BadInput(f"{folder} is damaged ({problems[0]}); remove it and run again")
    ctx.console.note(f"{folder}: the accepted images as tars")
    return str(folder)


def _is_done(ctx: Context, stage: str, fields: Facts) -> bool:
    folder = ctx.run.path / stage
    if not folder.is_dir():  # removed by hand
        return False
    try:
        return ctx.run.stage_is_done(stage, fields)
    except StaleStage as stale:
        raise BadInput(
            f"{str(stale).partition(';')[0]}; a release never changes: `cgankd release "
            f"{ctx.run.path}` builds the next version. If this one was never published, remove "
            f"{folder} by hand"
        ) from stale


def _was_finished(folder: Path, lineage: Lineage, include_rejected: bool) -> bool:
    """Whether a folder without its marker is this very release: its run was killed between the two.

    A folder is whole where it is there at all. `BadInput` where it is another one.
    """
    if not folder.is_dir():
        return False
    manifest = read_manifest(folder)
    made = canonical_json(_made(lineage))
    if (
        any(manifest.rejected) != include_rejected
        or canonical_json(_made(manifest.lineage)) != made
    ):
        raise BadInput(
            f"{folder} exists and a release never changes; choose a higher version, or remove that "
            "folder by hand if it was never published"
        )
    return True


def _plain(facts: ReleaseFacts) -> Facts:
    return {**asdict(facts), "folder": str(facts.folder)}


def check_of(ctx: Context, selection: str) -> CheckSummary | None:
    """What `cgankd check` measured, where it was of this very selection."""
    path = ctx.run.check / "check.json"
    if not path.is_file():
        return None
    checked = read_record(path, CheckFacts, "check")
    if checked.selection_sha256 != sha256_file(ctx.run.selections / f"{selection}.parquet"):
        ctx.console.note(f"{path} is of another selection and is left out of the release")
        return None
    return checked.of_release()


def report_of(ctx: Context, selection: str) -> Facts | None:
    """What the run's report says of its students, where they were trained on this selection."""
    path = ctx.run.report / "report.json"
    if selection != "cgan-kd" or not path.is_file():
        return None
    report = read_record(path, ReportRecord, "report")
    if report.selection_sha256 != sha256_file(ctx.run.selections / f"{selection}.parquet"):
        ctx.console.note(f"{path} is of another selection and is left out of the release")
        return None
    plain = report.of_release().model_dump(mode="json")
    plain["teacher"]["name"] = without_place(report.teacher.name)
    return plain


def lineage_of(ctx: Context, selection: str) -> Lineage:
    """What the manifest tells of a release's making: hashes, seeds, recipe, policy, real set.

    Nothing of clock, machine or place: a local path would say where somebody's images lie.
    """
    run, recipe, data = ctx.run, ctx.recipe, ctx.data
    ratio = run.read_facts("ratio", RatioFacts)
    plain = recipe.model_dump(mode="json")
    plain["source"] = without_place(recipe.source)
    for part in ("teacher", "generator"):
        if plain[part]["weights"] is not None:
            plain[part]["weights"] = without_place(plain[part]["weights"])
    values = data.train_pixels.astype(np.float64) / 255
    salt = f"{SALT_LABEL} {recipe.seed} {data.reals.fingerprint[:16]}"
    chosen_by = read_metadata(run.selections / f"{selection}.parquet")
    parts = {
        "train": data.split.train,
        "validation": data.split.validation,
        "test": data.split.test,
    }
    plan = read_plan(run.pool / "plan.json")
    weights = Weights(
        generator=run.read_facts("generator", GeneratorFacts).sha256,
        teacher=run.read_facts("teacher", TeacherFacts).sha256,
        ratio=None if ratio.problems else ratio.sha256,
        features=ratio.sha256,  # the net that selects lies in the ratio's weights
    )
    production = ProductionFacts(
        seed=plan.seed,
        batch=plan.batch,
        threads=plan.threads,
        precision=plan.precision,
        device=run.stage_fields("pool")["device"],
        libraries=run.read_facts("pool", PoolFacts).libraries,
        plan_version=plan.version,
        shard_size=plan.shard_size,
        rounds=tuple(sum(segment.count for segment in segments) for segments in plan.rounds),
    )
    real = RealFacts(
        spec=plain["source"],
        revision=data.reals.revision,
        fingerprint=data.reals.fingerprint,
        split_seed=recipe.seed,
        salt=salt,
        hashes={
            name: tuple(salted_hashes([data.reals.pixel_hashes[i] for i in indices], salt))
            for name, indices in parts.items()
        },
    )
    return Lineage(
        name=recipe.name,
        **recipe.card.model_dump(),
        generator_repo=recipe.release.generator_repo,
        recipe=plain,
        policy=chosen_by["policy"],
        reviews=chosen_by.get("reviews"),  # how many of each verdict: not whose
        seeds={"recipe": recipe.seed},
        normalisation={
            "mean": tuple(round(float(v), 6) for v in values.mean(axis=(0, 2, 3))),
            "std": tuple(round(float(v), 6) for v in values.std(axis=(0, 2, 3))),
        },
        weights=weights,
        production=production,
        stages=tuple(_stages(ctx, selection)),
        ratio_problems=ratio.problems,
        real=real,
    )


def _stages(ctx: Context, selection: str) -> list[Facts]:
    """Each step in order with its numbers and hashes; nothing of time or machine."""
    run = ctx.run
    teacher = run.read_facts("teacher", TeacherFacts)
    generator = run.read_facts("generator", GeneratorFacts)
    pool = run.read_facts("pool", PoolFacts)
    ratio = run.read_facts("ratio", RatioFacts)
    scores = run.read_facts("scores", ScoreFacts)
    chosen = run.read_facts(f"selections/{selection}", SelectionFacts)
    return [
        {
            "step": "teacher",
            "network": without_place(teacher.network),
            "trained on": teacher.data,
            "images": teacher.images,
            **{f"validation {name}": value for name, value in teacher.validation.items()},
        },
        {
            "step": "generator",
            "network": in_words(ctx.recipe.generator.network),
            "images": len(ctx.data.split.train) if generator.steps else 0,
            "steps": generator.steps,
        },
        {
            "step": "pool",
            "samples": pool.samples,
            "rounds": pool.rounds,
            "shards": pool.shards,
            "sha256": pool.manifest_sha256,
        },
        {"step": "density ratio", "used": "no" if ratio.problems else "yes"},
        {"step": "scores", "rows": scores.rows, "sha256": scores.sha256},
        {
            "step": "selection",
            "name": selection,
            "kept": chosen.kept,
            **{f"dropped by {reason}": count for reason, count in chosen.dropped.items()},
            "sha256": chosen.sha256,
        },
    ]
