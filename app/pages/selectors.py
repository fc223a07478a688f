"""Numbers of a selection that rest on what took part in it: teacher, density ratio, neighbours.

Whether the teacher agrees is by nature the teacher's to say, and copies and weights are found in
the features and by the ratios that selected. Each number says what its net had a part in.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from cgankd.app.context import Context
from cgankd.app.pages.judge import check_numbers, label_metric
from cgankd.app.pages.records import ImageGrid, Kept, MemorisedPair
from cgankd.curation.metrics import Judge, Measured, Metric
from cgankd.curation.metrics.metrics import (
    confidence_gap,
    confidences,
    duplicate_rate,
    effective_sample_share,
)
from cgankd.curation.neighbours import Neighbours
from cgankd.curation.policies import Policy
from cgankd.curation.policies.neighbour_rules import duplicate_groups, memorised
from cgankd.curation.policies.rule import Scores, aligned_rows
from cgankd.shardset.records import RatioFacts, TeacherFacts
from cgankd.shardset.tables import read_logits
from cgankd.student.evaluate import outputs_of, predictions

SHOWN = 20  # pairs of images of a kind


@dataclass(frozen=True)
class Copies:
    """What is copied among the kept samples."""

    memorised: np.ndarray  # rows of the pool, the most similar first
    real_id: np.ndarray  # of each the training image
    similarity: np.ndarray
    component: np.ndarray  # int64 [k]: kept samples that are near-duplicates share it
    groups: list[np.ndarray]  # rows of each group of near-duplicates, the largest first

    @property
    def shown(self) -> np.ndarray:
        """The rows of the pool whose images the page shows."""
        pairs = [rows[:2] for rows in self.groups[:SHOWN]]
        return np.concatenate([*pairs, self.memorised[:SHOWN]])

    def memorised_pairs(self, keys: np.ndarray) -> tuple[MemorisedPair, ...]:
        """Every memorised sample with its training image; `keys` int64 `[n]` are the pool's."""
        columns = keys[self.memorised], self.real_id, self.similarity.astype(float)
        return tuple(
            MemorisedPair(key=key, real_id=real, similarity=similarity)
            for key, real, similarity in zip(*(c.tolist() for c in columns), strict=True)
        )


def find_copies(ctx: Context, neighbours: Neighbours, scores: Scores, kept: Kept) -> Copies:
    """The copies among the kept samples, by the recipe's thresholds or, where it has none, by
    calibrated ones.
    """
    policy = ctx.recipe.policy
    alike_a_real = policy.copies.threshold if policy.copies else "calibrated"
    alike_another = policy.duplicates.threshold if policy.duplicates else "calibrated"
    rows = aligned_rows(neighbours, scores.key, scores.scored)
    groups, is_kept = scores.group[rows], np.isin(rows, kept.rows)
    copied = np.flatnonzero(memorised(neighbours, groups, alike_a_real) & is_kept)
    similarity = neighbours.nearest_real_similarity[copied]
    order = np.lexsort((copied, -similarity))
    component = duplicate_groups(neighbours, groups, alike_another)[is_kept]
    by_component = np.argsort(component, kind="stable")
    starts = np.unique(component[by_component], return_index=True)[1]
    alike = [part for part in np.split(rows[is_kept][by_component], starts[1:]) if len(part) > 1]
    return Copies(
        memorised=rows[copied[order]],
        real_id=neighbours.nearest_real_id[copied[order]],
        similarity=similarity[order],
        component=component,
        groups=sorted(alike, key=lambda part: (-len(part), part[0])),
    )


def image_pairs(
    ctx: Context, pictures: Mapping[int, np.ndarray], scores: Scores, copies: Copies
) -> dict[str, list[ImageGrid]]:
    """The pairs that the page shows, by kind; `pictures` has the shown images by key."""

    def pair(row: int, other: np.ndarray, words: str) -> ImageGrid:
        caption = f"{ctx.space.display(scores.label[row])}: {words}"
        return ImageGrid("pair", np.stack([picture(row), other]), caption, columns=2)

    def picture(row: int) -> np.ndarray:
        return pictures[int(scores.key[row])]

    memorised = zip(copies.memorised, copies.real_id, copies.similarity, strict=True)
    return {
        "duplicates": [
            pair(rows[0], picture(rows[1]), f"{len(rows)} alike") for rows in copies.groups[:SHOWN]
        ],
        "memorised": [
            pair(row, ctx.data.train_pixels[real], f"similarity {similarity:.4f}")
            for row, real, similarity in itertools.islice(memorised, SHOWN)
        ],
    }


def teacher_on_kept(
    ctx: Context, scores: Scores, kept: Kept, policy: Policy
) -> tuple[Measured, ...]:
    """Whether the teacher gives the kept samples their labels, and of classes whether its
    confidence in what it gives them can be believed.
    """
    predicted = scores.teacher_label[kept.rows]
    judge = _teacher(ctx, None, _fields(policy.slots_by("teacher")))
    metrics = [
        label_metric(ctx.space, predicted, kept.labels, "teacher_agreement", "teacher_label_score")
    ]
    if ctx.space.task == "classification":
        logits = read_logits(ctx.run.scores)[kept.rows]
        metrics.append(_calibration("teacher_calibration_error", logits, kept.labels))
    return check_numbers(ctx, judge, kept.labels, *metrics)


def teacher_on_real(ctx: Context) -> tuple[Measured, ...]:
    """The same of real validation images and their true labels, to compare with; none where the
    run no longer has the teacher's weights.
    """
    weights = ctx.recipe.teacher.weights
    path = ctx.run.teacher / "model.safetensors" if weights is None else Path(weights)
    if not path.exists() and (weights is None or ":" not in weights):
        ctx.console.note(f"the teacher is not asked about real images: {path} is gone")
        return ()
    space, labels = ctx.space, ctx.data.validation_labels
    outputs = outputs_of(
        ctx.teacher_loader(), ctx.data.validation_pixels, device=ctx.device, precision=ctx.precision
    )
    predicted = predictions(outputs, space)
    metrics = [label_metric(space, predicted, labels, "teacher_accuracy", "teacher_error")]
    if space.task == "classification":
        metrics.append(_calibration("teacher_calibration_error_on_real", outputs, labels))
    return check_numbers(ctx, _teacher(ctx, "validation"), labels, *metrics)


def ratio_numbers(
    ctx: Context, scores: Scores, kept: Kept, policy: Policy, copies: Copies
) -> tuple[Measured, ...]:
    """The duplicate rate in the ratio's features and, where the ratio was accepted, the effective
    sample size.
    """
    facts = ctx.run.read_facts("ratio", RatioFacts)
    # Neighbours and outliers are found in the features of the ratio's net.
    selected = _fields(policy.slots_by("ratio", "neighbours", "features"))
    judge = Judge("density ratio", facts.sha256, None, selected)
    # The rate grows with the samples, so that halves say nothing of it.
    metrics = [Metric.alone("duplicate_rate", duplicate_rate, copies.component, halves=False)]
    if not facts.problems:
        ratio = scores.ratio[kept.rows]
        metrics.append(Metric.alone("effective_sample", effective_sample_share, ratio))
    return check_numbers(ctx, judge, kept.labels, *metrics)


def _calibration(name: str, logits: np.ndarray, labels: np.ndarray) -> Metric:
    return Metric.alone(name, confidence_gap, *confidences(logits, labels))


def _teacher(ctx: Context, split: Literal["validation"] | None, selected: str = "") -> Judge:
    facts = ctx.run.read_facts("teacher", TeacherFacts)
    return Judge(f"teacher, {facts.network}", facts.sha256, split, selected)


def _fields(slots: Sequence[str]) -> str:
    """The slots of a policy as a reader addresses them."""
    return ", ".join(f"policy.{slot}" for slot in slots)
