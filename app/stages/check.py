"""`cgankd check`: is a selection fit to be published, and if not, what to change."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from cgankd.app.context import Context, Facts
from cgankd.app.pages.check import REMEDIES, failures, render_check
from cgankd.app.pages.judge import (
    JudgedPool,
    judge_pool,
    judged_numbers,
    learned_numbers,
    learning_rows,
)
from cgankd.app.pages.records import (
    BoundFacts,
    CheckFacts,
    Kept,
    RatioSummary,
    TwoSampleFacts,
)
from cgankd.app.pages.selectors import (
    Copies,
    find_copies,
    image_pairs,
    ratio_numbers,
    teacher_on_kept,
    teacher_on_real,
)
from cgankd.app.stages.neighbours import read_neighbours, search
from cgankd.app.stages.selections import (
    ARMS_WITHOUT_REVIEWS,
    decide,
    read_scores,
    selection_policies,
)
from cgankd.curation.metrics import Measured
from cgankd.curation.metrics.error_bound import bound_terms, label_loss, which_to_work_on
from cgankd.curation.metrics.two_sample import two_sample_by_label
from cgankd.curation.policies import Policy
from cgankd.curation.policies.rule import Scores
from cgankd.shardset.errors import BadInput, CheckFailed
from cgankd.shardset.files import derive_seed, sha256_file, write_bytes, write_json
from cgankd.shardset.labels import ContinuousLabels
from cgankd.shardset.pool.plan import read_plan
from cgankd.shardset.records import RatioFacts, TeacherFacts, finite
from cgankd.shardset.samples import open_samples


def check(ctx: Context, name: str = "cgan-kd") -> Facts:
    """What `check/check.json` says of a selection; `check/check.html` shows it.

    `CheckFailed`, after both were written, where a limit of the recipe's check is not met. No test
    image is looked at.
    """
    search(ctx)
    scores, neighbours = read_scores(ctx), read_neighbours(ctx)
    kept, policy, table = kept_of(ctx, name, len(scores.key))
    copies = find_copies(ctx, neighbours, scores, kept)
    learned_from = learning_rows(ctx, kept)
    keys = scores.key[kept.rows[learned_from]].tolist()
    judged = judge_pool(ctx, [*keys, *scores.key[copies.shown].tolist()])
    sets = {**sets_of_arms(ctx, scores), name: kept}
    two_sample = two_sample_checks(ctx, judged, sets)
    pixels = np.stack([judged.pictures[key] for key in keys])
    learned, learning = learned_numbers(ctx, pixels, kept.labels[learned_from])
    numbers = (
        *judged_numbers(ctx, judged, kept),
        *learned,
        *teacher_on_kept(ctx, scores, kept, policy),
        *teacher_on_real(ctx),
        *ratio_numbers(ctx, scores, kept, policy, copies),
    )
    of_all = {row.metric: finite(row.value) for row in numbers if row.kind == "all"}
    overall = {
        "memorised": len(copies.memorised) / len(kept.rows),
        "duplicates": of_all["duplicate_rate"],
        "auc": two_sample[name].overall.auc if two_sample else None,
        **{limit: of_all[limit] for limit in REMEDIES if limit in of_all},
    }
    ratio = ctx.run.read_facts("ratio", RatioFacts)
    bound = bound_facts(ctx, scores, sets, two_sample)
    limits = ctx.recipe.check.limits
    broken = failures(limits, overall)
    advice = [f"{line} {REMEDIES[limit]}" for limit, line in broken.items()]
    advice += [f"Density ratio refused: {problem}" for problem in ratio.problems]
    advice += [f"Error bound: {bound.line}"] if bound else []
    facts = CheckFacts(
        selection=name,
        selection_sha256=sha256_file(ctx.run.selections / f"{name}.parquet"),
        failures=tuple(broken.values()),
        advice=tuple(advice),
        limits=limits,
        overall=overall,
        pool=len(table),
        kept=len(kept.rows),
        dropped=Counter(table["reason"].drop_null().to_pylist()),
        labels=label_rows(ctx, kept, copies, two_sample.get(name), numbers),
        two_sample=two_sample,
        bound=bound,
        ratio=RatioSummary(problems=ratio.problems, overall=ratio.overall),
        duplicates=tuple(tuple(scores.key[rows].tolist()) for rows in copies.groups),
        memorised=copies.memorised_pairs(scores.key),
        judge=judged.facts,
        learned=learning,
        metrics=numbers,
    )
    plain = facts.model_dump(mode="json")
    write_json(ctx.run.check / "check.json", plain)
    pairs = image_pairs(ctx, judged.pictures, scores, copies)
    page = render_check(ctx.recipe.name, ctx.space, facts, pairs)
    write_bytes(ctx.run.check / "check.html", page.encode())
    ctx.console.note(f"check {ctx.run.check / 'check.html'}")
    for line in facts.advice:
        ctx.console.note(line)
    if broken:
        raise CheckFailed(
            f"{name} is beyond {len(broken)} of the recipe's check thresholds: "
            f"{next(iter(broken.values()))} See {ctx.run.check / 'check.html'}"
        )
    return plain


def kept_of(ctx: Context, name: str, samples: int) -> tuple[Kept, Policy, pa.Table]:
    """What a selection keeps of a pool of so many samples, by what policy, and its table.

    `BadInput` for a selection of another pool, or one that keeps nothing.
    """
    opened = open_samples(ctx.run.path)
    table = opened.decisions(name)
    if len(table) != samples:
        raise BadInput(
            f"selection {name} decides on {len(table):,} samples, the pool has {samples:,}; "
            "select again"
        )
    is_kept = table["kept"].to_numpy()
    if not is_kept.any():
        raise BadInput(f"selection {name} keeps nothing, so there is nothing to check")
    policy = Policy.model_validate(opened.curation(name)["policy"])
    return Kept(np.flatnonzero(is_kept), table["label"].to_numpy()[is_kept]), policy, table


def sets_of_arms(ctx: Context, scores: Scores) -> dict[str, Kept]:
    """What each step of the selection keeps, by the recipe's policy."""
    plan, policies = read_plan(ctx.run.pool / "plan.json"), selection_policies(ctx)
    decided = {name: decide(ctx, scores, plan, policies[name]) for name in ARMS_WITHOUT_REVIEWS}
    return {
        name: Kept(np.flatnonzero(selection.kept), selection.label[selection.kept])
        for name, selection in decided.items()
    }


def two_sample_checks(
    ctx: Context, judged: JudgedPool, sets: Mapping[str, Kept]
) -> dict[str, TwoSampleFacts]:
    """The two-sample check of each set against all real images but the test ones; empty where
    every label has too few of either.
    """
    data, space = ctx.data, ctx.space
    try:
        rows_of = two_sample_by_label(
            np.concatenate([judged.train, judged.validation]),
            space.group_of(np.concatenate([data.train_labels, data.validation_labels])),
            {name: (judged.pool[k.rows], space.group_of(k.labels)) for name, k in sets.items()},
            seed=derive_seed(ctx.recipe.seed, "two samples") % 2**32,
        )
    except BadInput as problem:
        ctx.console.note(str(problem))
        return {}
    return {
        name: TwoSampleFacts(
            overall=rows.overall,
            labels={space.group_names[group]: row for group, row in rows.per_label.items()},
        )
        for name, rows in rows_of.items()
    }


def bound_facts(
    ctx: Context,
    scores: Scores,
    sets: Mapping[str, Kept],
    two_sample: Mapping[str, TwoSampleFacts],
) -> BoundFacts | None:
    """The error bound's terms of each set, and which to work on; None without two-sample checks."""
    if not two_sample:
        return None
    space, teacher = ctx.space, ctx.run.read_facts("teacher", TeacherFacts).validation
    if isinstance(space, ContinuousLabels):
        error = min(teacher["mae"] / space.span, 1.0)
    else:
        error = 1 - teacher["accuracy"] / 100
    terms = [
        bound_terms(
            name,
            disagreement=label_loss(scores.teacher_label[kept.rows], kept.labels, space),
            teacher_error=error,
            accuracy=two_sample[name].overall.accuracy,
            generated=len(kept.rows),
            reals=len(ctx.data.train_labels),
        )
        for name, kept in sets.items()
    ]
    return BoundFacts(terms=tuple(terms), line=which_to_work_on(terms))


def label_rows(
    ctx: Context,
    kept: Kept,
    copies: Copies,
    two_sample: TwoSampleFacts | None,
    numbers: tuple[Measured, ...],
) -> tuple[dict[str, str | int | float | None], ...]:
    """A row for each label, or part of the range, worst first: the one of which the judge predicts
    the fewest right.
    """
    space = ctx.space
    groups = space.group_of(kept.labels)

    def counted(rows: Sequence[int] | np.ndarray) -> list[int]:
        """How many of some kept rows of the pool each group has."""
        of = groups[np.searchsorted(kept.rows, rows)]
        return np.bincount(of, minlength=len(space.group_names)).tolist()

    sizes, copied = counted(kept.rows), counted(copies.memorised)
    repeated = counted([row for rows in copies.groups for row in rows[1:]])
    auc = {name: row.auc for name, row in two_sample.labels.items()} if two_sample else {}
    by: dict[tuple[str, float | None], float | None] = {}
    for number in numbers:
        if number.kind == "group":  # against training images, where also against validation ones
            by.setdefault((number.metric, number.label), finite(number.value))
    if isinstance(space, ContinuousLabels):
        headline, others = "label_score", ("teacher_label_score", "learned_error")
    else:
        headline, others = "agreement", ("teacher_agreement", "classification_accuracy_score")
    rows: list[Facts] = [
        {
            "label": name,
            "kept": sizes[group],
            **{metric: by[metric, group] for metric in (headline, *others)},
            "auc": auc.get(name),
            **{metric: by[metric, group] for metric in ("fid", "coverage")},
            "memorised": copied[group],
            "duplicates": repeated[group],
        }
        for group, name in enumerate(space.group_names)
    ]
    sign = 1 if headline == "agreement" else -1
    # Of a label of which nothing was kept the headline is the least.
    worst = [-np.inf if row[headline] is None else sign * row[headline] for row in rows]
    return tuple(rows[group] for group in np.argsort(worst, kind="stable"))
