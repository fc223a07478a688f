"""Each step of the selection against the real images: told apart, and what bounds the error."""

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np

from cgankd.app.context import Context, Facts
from cgankd.app.pages.check_judging import Judged
from cgankd.app.pages.check_sets import Kept
from cgankd.curation.metrics.error_bound import bound_terms, label_loss, which_to_work_on
from cgankd.curation.metrics.two_sample import TwoSampleByLabel, two_sample_by_label
from cgankd.curation.policies.selection import Scores
from cgankd.shardset.errors import BadInput
from cgankd.shardset.files import derive_seed
from cgankd.shardset.labels import ContinuousLabels


def told_apart(
    ctx: Context, judged: Judged, sets: Mapping[str, Kept]
) -> dict[str, TwoSampleByLabel]:
    """The two-sample check of each set against all real images but the test ones; empty where
    every label has too few of either.
    """
    data, group_of = ctx.data, ctx.space.group_of
    try:
        return two_sample_by_label(
            np.concatenate([judged.train, judged.validation]),
            group_of(np.concatenate([data.train_labels, data.validation_labels])),
            {name: (judged.pool[k.rows], group_of(k.labels)) for name, k in sets.items()},
            seed=derive_seed(ctx.recipe.seed, "two samples") % 2**32,
        )
    except BadInput as problem:
        ctx.console.note(str(problem))
        return {}


def two_sample_facts(ctx: Context, told: Mapping[str, TwoSampleByLabel]) -> Facts:
    """The check of each set, overall and by the label's name."""
    return {
        name: {
            "overall": asdict(found.overall),
            "labels": {
                ctx.space.group_names[group]: asdict(row) for group, row in found.per_label.items()
            },
        }
        for name, found in told.items()
    }


def bound_facts(
    ctx: Context,
    scores: Scores,
    sets: Mapping[str, Kept],
    told: Mapping[str, TwoSampleByLabel],
) -> Facts | None:
    """The error bound's terms of each set, and which to work on; None where none was told apart."""
    if not told:
        return None
    space, teacher = ctx.space, ctx.run.stage_facts("teacher")["validation"]
    if isinstance(space, ContinuousLabels):
        error = min(teacher["mae"] / space.span, 1.0)
    else:
        error = 1 - teacher["accuracy"] / 100
    terms = [
        bound_terms(
            name,
            disagreement=label_loss(scores.teacher_label[kept.rows], kept.labels, space),
            teacher_error=error,
            accuracy=told[name].overall.accuracy,
            generated=len(kept.rows),
            reals=len(ctx.data.train_labels),
        )
        for name, kept in sets.items()
    ]
    return {"terms": [asdict(row) for row in terms], "line": which_to_work_on(terms)}
