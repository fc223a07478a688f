"""Which side of the line a run is on, from validation alone, and what would help."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

from app.recipe import Recipe


def advise(validation: Mapping[str, Sequence[float]], recipe: Recipe, images: int) -> list[str]:
    """Lines on whether generated images help, by the search seeds' validation accuracy in percent.

    `images` is the number of validation images: what a difference is uncertain by, beside seeds.
    """
    if not {"no-kd", "cgan-kd"} <= validation.keys():
        return []
    gain, error = paired(validation["cgan-kd"], validation["no-kd"], images)
    said = f"validation ({images} images): cgan-kd {gain:+.1f} ± {error:.1f} points against no-kd"
    if gain > 2 * error:
        return [f"{said}: generated images help here."]
    lines = [
        f"{said}: generated images hurt here; look before the long run."
        if gain < -2 * error
        else f"{said}: too close to call."
    ]
    for arm, what in (
        ("raw", "the raw pool: raise policy.accept or policy.rho"),
        ("relabelled", "the teacher's labels: set policy.relabel=true"),
        ("hinton", "soft labels on real images"),
        ("cgan-kd+hinton", "soft labels on curated images"),
    ):
        if arm in validation:
            better, within = paired(validation[arm], validation["cgan-kd"], images)
            if better > within:
                lines.append(f"{arm} gains {better:+.1f} points against cgan-kd: {what}.")
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


def paired(arm: Sequence[float], other: Sequence[float], images: int) -> tuple[float, float]:
    """Mean paired difference of accuracies in points, and its standard error.

    The larger of the seeds' own spread and the binomial error of so few images (two seeds on the
    same 40 images agree by accident).
    """
    differences = [a - b for a, b in zip(arm, other, strict=True)]
    spread = stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else 0.0
    p = min(max(fmean(other) / 100, 0.01), 0.99)
    # Students of one data set err on many of the same images: about half their errors differ.
    binomial = 100 * math.sqrt(p * (1 - p) / images)
    return fmean(differences), max(spread, binomial)
