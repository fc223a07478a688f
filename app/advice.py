"""Which side of the line a run is on, from validation alone, and what would help."""

import math
from collections.abc import Mapping

import numpy as np

from cgankd.app.recipe import Recipe
from cgankd.shardset.labels import ContinuousLabels, LabelSpace


def advise(validation: Mapping[str, np.ndarray], recipe: Recipe, space: LabelSpace) -> list[str]:
    """Lines on whether generated images help, by the search seeds' students.

    `validation` has each arm's merit on each validation image, float `[seeds, n]`: 100 or 0 for
    right or wrong, or minus the error in the label's unit.
    """
    if not {"no-kd", "cgan-kd"} <= validation.keys():
        return []
    unit = space.unit if isinstance(space, ContinuousLabels) else "points"
    images = validation["no-kd"].shape[1]
    gain, error = paired(validation["cgan-kd"], validation["no-kd"])
    said = (
        f"validation ({images} images): cgan-kd gains {gain:+.2g} ± {error:.2g} {unit} over no-kd"
    )
    if gain > 2 * error:
        return [f"{said}: generated images help here."]
    lines = [
        f"{said}: generated images hurt here; look before the long run."
        if gain < -2 * error
        else f"{said}: too close to call."
    ]
    for arm, what in (
        ("raw", "the raw pool: raise policy.subsample.accept or policy.filter.rho"),
        (
            "relabelled",
            "nothing filtered: set policy.filter=null"
            if recipe.policy.relabel
            else "the teacher's labels: set policy.relabel.kind=teacher",
        ),
        ("hinton", "soft labels on real images"),
        ("cgan-kd+hinton", "soft labels on curated images"),
    ):
        if arm in validation:
            better, within = paired(validation[arm], validation["cgan-kd"])
            if better > within:
                lines.append(f"{arm} gains {better:+.2g} {unit} over cgan-kd: {what}.")
    if recipe.teacher.data == "budget" and recipe.teacher.weights is None:
        lines.append(
            "The teacher knows no more than these images: a stronger one (teacher.data=all or "
            "teacher.weights) helps most."
        )
    lines.append(
        "Also worth a try: longer training (student.steps), a smaller generated share "
        "(student.training.generated_fraction), more pool (pool.per_label), fine-tuning "
        "(student.init=no-kd)."
    )
    return lines


def paired(arm: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """The mean difference of two arms' merits `[seeds, n]`, and its standard error.

    Both arms answer for the same images, so the error is that of the images' own differences;
    what the seeds differ by comes on top.
    """
    differences = arm - other
    seeds, images = differences.shape
    by_image, by_seed = differences.mean(0), differences.mean(1)
    variance = by_image.var(ddof=1) / images if images > 1 else math.inf
    if seeds > 1:
        variance += by_seed.var(ddof=1) / seeds
    return float(differences.mean()), math.sqrt(variance)
