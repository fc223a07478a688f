"""Numbers of a selection that rest on the nets that took part in it: teacher and density ratio.

Agreement with the teacher is by nature the teacher's, and so are copies and weights the ratio's.
Each of these numbers says what its net had a part in.
"""

from pathlib import Path
from typing import Literal

import numpy as np

from cgankd.app.context import Context
from cgankd.app.pages.check_copies import Copies
from cgankd.app.pages.check_sets import Kept
from cgankd.app.stages.selections import read_logits
from cgankd.curation.metrics.measured import Judge, MeasureConfig, Measured, Metric, measure
from cgankd.curation.metrics.metrics import (
    agreement_metric,
    calibration_metric,
    duplicate_metric,
    effective_sample_metric,
    label_score_metric,
)
from cgankd.curation.policies.policy import Policy
from cgankd.curation.policies.selection import Scores
from cgankd.shardset.files import derive_seed
from cgankd.shardset.labels import ContinuousLabels
from cgankd.student.evaluate import outputs_of, predictions


def teacher_on_kept(
    ctx: Context, scores: Scores, kept: Kept, policy: Policy
) -> tuple[Measured, ...]:
    """Whether the teacher gives the kept samples their labels, and of classes whether its
    confidence in what it gives them can be believed.
    """
    told = scores.teacher_label[kept.rows]
    judge = _teacher(ctx, None, _part_of_teacher(policy))
    if isinstance(ctx.space, ContinuousLabels):
        metric = label_score_metric(told, kept.labels, "teacher_label_score")
        return _measured(ctx, judge, kept.labels, metric)
    logits = read_logits(ctx)[kept.rows]
    return _measured(
        ctx,
        judge,
        kept.labels,
        agreement_metric(told, kept.labels, name="teacher_agreement"),
        calibration_metric(logits, kept.labels, "teacher_calibration_error"),
    )


def teacher_on_real(ctx: Context) -> tuple[Measured, ...]:
    """The same of real validation images and their true labels, to compare with; none where the
    run no longer has the teacher's weights.
    """
    own = ctx.recipe.teacher.weights
    there = ctx.run.teacher / "model.safetensors" if own is None else Path(own)
    if not there.exists() and (own is None or ":" not in own):
        ctx.console.note(f"the teacher is not asked about real images: {there} is gone")
        return ()
    space, labels = ctx.space, ctx.data.validation_labels
    outputs = outputs_of(
        ctx.teacher_loader(), ctx.data.validation_pixels, device=ctx.device, precision=ctx.precision
    )
    told, judge = predictions(outputs, space), _teacher(ctx, "validation")
    if isinstance(space, ContinuousLabels):
        return _measured(ctx, judge, labels, label_score_metric(told, labels, "teacher_error"))
    return _measured(
        ctx,
        judge,
        labels,
        agreement_metric(told, labels, name="teacher_accuracy"),
        calibration_metric(outputs, labels, "teacher_calibration_error_on_real"),
    )


def by_the_ratio(
    ctx: Context, scores: Scores, kept: Kept, policy: Policy, copies: Copies
) -> tuple[Measured, ...]:
    """The duplicate rate in the ratio's features and, where the ratio was accepted, the effective
    sample size.
    """
    facts = ctx.run.stage_facts("ratio")
    judge = Judge("density ratio", facts["sha256"], None, _part_of_ratio(policy))
    metrics = [duplicate_metric(copies.component)]
    if not facts["problems"]:
        metrics.append(effective_sample_metric(scores.ratio[kept.rows]))
    return _measured(ctx, judge, kept.labels, *metrics)


def _teacher(ctx: Context, split: Literal["validation"] | None, selected: str = "") -> Judge:
    facts = ctx.run.stage_facts("teacher")
    return Judge(f"teacher, {facts['network']}", facts["sha256"], split, selected)


def _part_of_teacher(policy: Policy) -> str:
    """The fields of a policy that went by the teacher; duplicates are ranked by its error."""
    return _fields(
        filter=policy.filter != "none",
        relabel=policy.relabel,
        duplicates=policy.duplicates is not None,
    )


def _part_of_ratio(policy: Policy) -> str:
    """The fields of a policy that went by the density ratio or by its net's features."""
    return _fields(
        subsample=policy.subsample != "none",
        memorised=policy.memorised is not None,
        outliers=policy.outliers is not None,
        duplicates=policy.duplicates is not None,
        diversity=policy.diversity != "none",
    )


def _fields(**used: bool) -> str:
    return ", ".join(f"policy.{name}" for name, is_used in used.items() if is_used)


def _measured(
    ctx: Context, judge: Judge, labels: np.ndarray, *metrics: Metric
) -> tuple[Measured, ...]:
    seed = derive_seed(ctx.recipe.seed, "check metrics") % 2**32
    config = MeasureConfig()
    return tuple(
        row
        for metric in metrics
        for row in measure(metric, labels, None, ctx.space, judge, config, seed)
    )
