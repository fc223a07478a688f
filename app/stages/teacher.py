"""The teacher: trained on the budget or on all real images, or loaded from the user's weights.

Reads the labelled images of the budget, the seed and `teacher`. In its folder lie the weights, the
metrics of its training and its outputs on the real training images, for distillation.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from cgankd.app.context import REAL_OUTPUTS, Context, Facts, save_array, write_metrics
from cgankd.nets.batches import TrainingData
from cgankd.nets.networks import save_network
from cgankd.nets.training import train_network
from cgankd.shardset.files import derive_seed, sha256_file
from cgankd.shardset.labels import ContinuousLabels, LabelSpace
from cgankd.shardset.records import TeacherFacts
from cgankd.student.evaluate import measures, outputs_of


def fields_of(ctx: Context) -> Facts:
    """What the stage reads."""
    recipe = ctx.recipe.teacher
    fields = {
        **ctx.real_fields,
        **ctx.compute_fields,
        "seed": ctx.recipe.seed,
        "teacher": recipe.model_dump(mode="json"),
    }
    if recipe.weights is not None and Path(recipe.weights).is_file():
        fields["weights_sha256"] = sha256_file(Path(recipe.weights))
    return fields


def train_teacher(ctx: Context) -> TeacherFacts:
    """Facts of the teacher, trained or loaded; its outputs on the real training images lie by."""
    recipe, data, folder = ctx.recipe.teacher, ctx.data, ctx.run.teacher
    fields = fields_of(ctx)
    if ctx.is_done("teacher", fields):
        return ctx.run.read_facts("teacher", TeacherFacts)
    images = 0
    if recipe.weights is None:
        everything = recipe.data == "all"
        pixels = data.all_train_pixels if everything else data.train_pixels
        labels = data.all_train_labels if everything else data.train_labels
        images = len(labels)
        with ctx.console.task("teacher") as progress:
            module, history = train_network(
                TrainingData(real_pixels=pixels, real_labels=labels),
                recipe.training,
                space=ctx.space,
                seed=derive_seed(ctx.recipe.seed, "teacher"),
                device=ctx.device,
                precision=ctx.precision,
                progress=progress,
            )
        _, channels, size, _ = pixels.shape
        save_network(
            folder,
            module,
            name=recipe.training.network,
            outputs=ctx.space.outputs,
            channels=channels,
            size=size,
            facts=ctx.network_facts,
        )
        write_metrics(folder, history)
    teacher = ctx.teacher_loader()
    outputs = partial(outputs_of, teacher, device=ctx.device, precision=ctx.precision)
    save_array(folder / REAL_OUTPUTS, outputs(data.train_pixels))
    figures = measures(outputs(data.validation_pixels), data.validation_labels, ctx.space)
    facts = TeacherFacts(
        # A function's weights cannot be hashed; what it says of the real images names it.
        sha256=fields.get("weights_sha256")
        or sha256_file(folder / (REAL_OUTPUTS if recipe.weights else "model.safetensors")),
        network=recipe.weights or recipe.training.network,
        data="own" if recipe.weights else recipe.data,
        images=images,
        validation=figures,
    )
    ctx.finish("teacher", fields, facts)
    ctx.console.note(f"teacher: {in_words(ctx.space, figures)} on the validation images")
    return facts


def in_words(space: LabelSpace, measured: Mapping[str, float]) -> str:
    """A network's figures as a person says them."""
    if isinstance(space, ContinuousLabels):
        return f"mean error {measured['mae']:.3g} {space.unit}"
    return f"{measured['accuracy']:.1f} % right"
