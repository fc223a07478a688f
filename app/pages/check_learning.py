"""What can be learned from the kept images alone: a fresh student, judged by real images."""

from collections.abc import Callable

import numpy as np

from cgankd.app.context import Context, Facts
from cgankd.app.pages.check_sets import Kept
from cgankd.curation.metrics.measured import Judge, MeasureConfig, Measured, measure
from cgankd.curation.metrics.metrics import agreement_metric, label_score_metric
from cgankd.curation.metrics.teacher_truth import learned_predictions
from cgankd.nets.batches import TrainingData
from cgankd.nets.networks import save_network
from cgankd.nets.training import StudentTraining, train_network
from cgankd.shardset.files import derive_seed
from cgankd.shardset.labels import ContinuousLabels
from cgankd.shardset.weights import weights_sha256
from cgankd.student.evaluate import outputs_of, predictions

IMAGES, STEPS = 4_000, 1_000  # at most, so that it costs about what one student does


def learning_rows(ctx: Context, kept: Kept) -> np.ndarray:
    """Which of the kept samples are learned from: int64 `[m]` into them, ascending, at random."""
    random = np.random.default_rng(derive_seed(ctx.recipe.seed, "check learning"))
    count = len(kept.rows)
    return np.sort(random.choice(count, min(count, IMAGES), replace=False))


def learning_settings(ctx: Context) -> StudentTraining:
    """The recipe's student from scratch, at most so many steps; of the learning rates that its
    search would try the lowest, since nothing is searched for here.
    """
    recipe = ctx.recipe.student
    return recipe.training.model_copy(
        update={
            "steps": min(max(recipe.steps), STEPS),
            "lr": min(recipe.learning_rates),
            "distillation": None,
        }
    )


def learned(
    ctx: Context, pixels: np.ndarray, labels: np.ndarray
) -> tuple[tuple[Measured, ...], Facts]:
    """The classification accuracy score, or for continuous labels the mean error, on real
    validation images of a student that learned from kept images uint8 `[m, c, h, w]` with their
    labels `[m]` alone; and what it learned. Its weights lie in `check/learned`.
    """
    space, data, folder = ctx.space, ctx.data, ctx.run.check / "learned"
    training = learning_settings(ctx)

    def learn(pixels: np.ndarray, labels: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        with ctx.console.task("learned") as progress:
            net, _ = train_network(
                TrainingData(real_pixels=pixels, real_labels=labels),
                training,
                space=space,
                seed=derive_seed(ctx.recipe.seed, "check learner"),
                device=ctx.device,
                precision=ctx.precision,
                progress=progress,
            )
        channels, size = pixels.shape[1:3]
        save_network(
            folder,
            net,
            name=training.network,
            outputs=space.outputs,
            channels=channels,
            size=size,
            facts=ctx.network_facts,
        )
        return lambda real: predictions(
            outputs_of(net, real, device=ctx.device, precision=ctx.precision), space
        )

    told = learned_predictions(learn, pixels, labels, data.validation_pixels)
    if isinstance(space, ContinuousLabels):
        metric = label_score_metric(told, data.validation_labels, "learned_error")
    else:
        name = "classification_accuracy_score"
        metric = agreement_metric(told, data.validation_labels, name=name)
    judge = Judge(
        f"student, {training.network}, of kept images", weights_sha256(folder), "validation"
    )
    seed = derive_seed(ctx.recipe.seed, "check metrics") % 2**32
    numbers = measure(metric, data.validation_labels, None, space, judge, MeasureConfig(), seed)
    facts = training.model_dump(mode="json", include={"network", "steps", "batch", "lr"})
    return numbers, {**facts, "images": len(labels)}
