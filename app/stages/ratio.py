"""The density ratio of real to generated images, with the diagnostics that say whether to use it.

Reads the labelled images of the budget, the seed, `ratio` and the pool's first round.
"""

import numpy as np

from cgankd.app.context import Context, Facts
from cgankd.app.stages.pool import first_round
from cgankd.curation.density_ratio.fit import fit_ratio
from cgankd.shardset.errors import RatioRefused
from cgankd.shardset.files import derive_seed
from cgankd.shardset.pool.plan import read_plan
from cgankd.shardset.records import RatioFacts


def fields_of(ctx: Context) -> Facts:
    """What the stage reads."""
    plan = read_plan(ctx.run.pool / "plan.json")
    return {
        **ctx.real_fields,
        **ctx.compute_fields,
        "seed": ctx.recipe.seed,
        "ratio": ctx.recipe.ratio.model_dump(mode="json"),
        "pool_id": plan.pool_id,
        "first_round": [segment.model_dump() for segment in plan.rounds[0]],
    }


def fit_density_ratio(ctx: Context) -> RatioFacts:
    """Facts of the density ratio, its diagnostics and, where they fail, what is wrong with it.

    Fitted on the whole budget (the generator saw its training part alone) and on the pool's first
    round, so that a top-up changes nothing.
    """
    fields = fields_of(ctx)
    if ctx.is_done("ratio", fields):
        return ctx.run.read_facts("ratio", RatioFacts)
    pixels, labels = first_round(ctx, read_plan(ctx.run.pool / "plan.json"))
    data = ctx.data
    origins = data.reals.origins
    both = [*data.split.train, *data.split.validation]
    with ctx.console.task("ratio") as progress:
        facts = fit_ratio(
            np.concatenate([data.train_pixels, data.validation_pixels]),
            np.concatenate([data.train_labels, data.validation_labels]),
            pixels,
            labels,
            ctx.recipe.ratio,
            space=ctx.space,
            folder=ctx.run.ratio,
            seed=derive_seed(ctx.recipe.seed, "ratio"),
            device=ctx.device,
            precision=ctx.precision,
            origins=None if origins is None else [origins[i] for i in both],
            progress=progress,
        )
    return ctx.finish("ratio", fields, facts)


def require_ratio(facts: RatioFacts) -> None:
    """Raises `RatioRefused` with the first of the problems that the diagnostics found."""
    if problems := facts.problems:
        more = f" (and {len(problems) - 1} more in ratio/)" if len(problems) > 1 else ""
        raise RatioRefused(f"the density ratio was refused: {problems[0]}{more}")
