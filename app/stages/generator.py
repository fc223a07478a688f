"""The conditional generator, trained on the real training images or adopted from given weights.

Reads the labelled images of the budget, the seed and `generator`. In its folder lie the averaged
weights, the losses, grids of samples and, while it trains, checkpoints.
"""

from pathlib import Path

from cgankd.app.context import Context, Facts
from cgankd.app.stages.candidates import validation_score
from cgankd.generator import adopt_generator
from cgankd.generator.interface import ImageSpace
from cgankd.generator.train import train_generator
from cgankd.shardset.files import derive_seed, sha256_file
from cgankd.shardset.records import GeneratorFacts


def fields_of(ctx: Context) -> Facts:
    """What the stage reads."""
    recipe = ctx.recipe.generator
    fields = {
        **ctx.real_fields,
        **ctx.compute_fields,
        "seed": ctx.recipe.seed,
        "generator": recipe.model_dump(mode="json"),
    }
    if recipe.training.keep_best is None:  # as in the markers of runs from before it was there
        del fields["generator"]["training"]["keep_best"]
    if recipe.weights is not None and Path(recipe.weights).is_file():
        fields["weights_sha256"] = sha256_file(Path(recipe.weights))
    return fields


def train_gan(ctx: Context) -> GeneratorFacts:
    """Facts of the conditional GAN trained on the real training images."""
    recipe, data = ctx.recipe.generator, ctx.data
    fields = fields_of(ctx)
    if ctx.is_done("generator", fields):
        return ctx.run.read_facts("generator", GeneratorFacts)
    if recipe.weights is not None:
        channels, size = data.reals.image_shape[:2]
        images = ImageSpace(size, channels, ctx.space)
        sha256 = adopt_generator(Path(recipe.weights), ctx.run.generator, images, recipe.network)
        return ctx.finish("generator", fields, GeneratorFacts(sha256=sha256, steps=0))
    with ctx.console.task("generator") as progress:
        trained = train_generator(
            data.train_pixels,
            data.train_labels,
            ctx.space,
            recipe.network,
            recipe.training,
            folder=ctx.run.generator,
            seed=derive_seed(ctx.recipe.seed, "generator"),
            device=ctx.device,
            precision=ctx.precision,
            threads=ctx.threads,
            score=validation_score(ctx) if recipe.training.keep_best else None,
            progress=progress,
        )
    return ctx.finish("generator", fields, GeneratorFacts(**trained))
