"""The labels of a selection, worst first."""

import numpy as np

from cgankd.app.context import Context, Facts
from cgankd.app.pages.check_copies import Copies
from cgankd.app.pages.check_sets import Kept
from cgankd.curation.metrics.measured import Measured
from cgankd.curation.metrics.two_sample import TwoSampleByLabel
from cgankd.shardset.labels import ContinuousLabels


def label_rows(
    ctx: Context,
    kept: Kept,
    copies: Copies,
    told_apart: TwoSampleByLabel | None,
    numbers: tuple[Measured, ...],
) -> list[Facts]:
    """A row for each label, or part of the range, worst first: the judge tells the fewest right."""
    space = ctx.space
    final = np.full(ctx.run.stage_facts("pool")["samples"], -1)
    final[kept.rows] = space.group_of(kept.labels)

    def counted(rows: np.ndarray) -> np.ndarray:
        return np.bincount(final[rows], minlength=len(space.group_names))

    beyond = np.concatenate([np.empty(0, np.int64), *(rows[1:] for rows in copies.groups)])
    sizes, repeated, copied = counted(kept.rows), counted(beyond), counted(copies.memorised)
    by: dict[tuple[str, float | None], float | None] = {}
    for row in numbers:
        if row.kind == "group":  # against training images, where it is against validation ones too
            by.setdefault((row.metric, row.label), finite(row.value))
    if isinstance(space, ContinuousLabels):
        told, others = "label_score", ("teacher_label_score", "learned_error")
    else:
        told, others = "agreement", ("teacher_agreement", "classification_accuracy_score")
    rows: list[Facts] = [
        {
            "label": name,
            "kept": int(sizes[group]),
            told: by[told, group],
            **{other: by[other, group] for other in others},
            "auc": told_apart.per_label[group].auc
            if told_apart and group in told_apart.per_label
            else None,
            "fid": by["fid", group],
            "coverage": by["coverage", group],
            "memorised": int(copied[group]),
            "duplicates": int(repeated[group]),
        }
        for group, name in enumerate(space.group_names)
    ]
    sign = 1 if told == "agreement" else -1
    # A label of which nothing was kept is the worst of all.
    return sorted(rows, key=lambda row: -np.inf if row[told] is None else sign * row[told])


def finite(value: float) -> float | None:
    """The value, None where it is NaN or infinite."""
    return float(value) if np.isfinite(value) else None
