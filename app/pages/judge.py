"""The nets that measure a selection and took no part in it.

The judge is a small net trained on real images; check and report each train one, on the real
images that their numbers allow. The fresh student learns from kept images alone.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from cgankd.app.context import Context
from cgankd.app.pages.records import AlongRecord, Kept, LearnedFacts
from cgankd.curation.metrics import Judge, MeasureConfig, Measured, Metric, measure
from cgankd.curation.metrics.fidelity import frechet_distance, label_score
from cgankd.curation.metrics.metrics import (
    agreement,
    feature_metrics,
    learned_predictions,
    vendi_score,
)
from cgankd.nets.batches import TrainingData
from cgankd.nets.feature_nets import (
    FeatureConfig,
    FeatureNet,
    Small,
    features_of,
    train_feature_net,
)
from cgankd.nets.networks import save_network
from cgankd.nets.training import train_network
from cgankd.shardset.files import derive_seed
from cgankd.shardset.labels import ContinuousLabels, LabelSpace
from cgankd.shardset.pool.plan import read_plan
from cgankd.shardset.pool.shards import read_shard
from cgankd.shardset.records import JudgeFacts, RatioFacts, finite
from cgankd.shardset.weights import save_weights, weights_sha256
from cgankd.student.evaluate import outputs_of, predictions

# Wide enough to regress by; small enough to train in seconds where images are small.
NETWORK = Small(width=16, dim=32, steps=400, shift=0.0)
NET = f"{NETWORK.kind}, {NETWORK.dim} features"
BATCH = 500  # images that features are computed of at once
LEARNED_IMAGES = 4_000  # at most, so that the fresh student costs about what one of a run does


@dataclass(frozen=True)
class TrainedJudge:
    """The judging net of a run, ready to be asked."""

    ctx: Context
    net: FeatureNet
    config: FeatureConfig

    def features(self, pixels: np.ndarray) -> np.ndarray:
        """The features float32 `[n, d]` of pixels uint8 `[n, c, h, w]`."""
        ctx = self.ctx
        return features_of(
            self.net, pixels, device=ctx.device, precision=ctx.precision, batch=BATCH
        )

    def predictions(self, features: np.ndarray) -> np.ndarray:
        """The labels `[n]`, raw, that the judge's head predicts from its features `[n, d]`."""
        with torch.inference_mode():
            outputs = self.net.head(torch.from_numpy(features).to(self.ctx.device))
        return predictions(outputs.float().cpu().numpy(), self.ctx.space)


def train_judge(ctx: Context, pixels: np.ndarray, labels: np.ndarray, purpose: str) -> TrainedJudge:
    """A judge trained for `check.judge_steps` on real pixels uint8 `[n, c, h, w]` and their labels
    `[n]`; each purpose has a seed of its own.
    """
    config = NETWORK.model_copy(update={"steps": ctx.recipe.check.judge_steps})
    with ctx.console.task("judge") as progress:
        net = train_feature_net(
            pixels,
            labels,
            config,
            space=ctx.space,
            seed=derive_seed(ctx.recipe.seed, purpose),
            device=ctx.device,
            precision=ctx.precision,
            progress=progress,
        )
    return TrainedJudge(ctx, net, config)


@dataclass(frozen=True)
class JudgedPool:
    """What the judge sees in the pool and in the real images that are no test images."""

    facts: JudgeFacts
    pool: np.ndarray  # float32 [n, d], in key order
    predictions: np.ndarray  # [n], the labels it predicts, raw
    train: np.ndarray  # float32 [m, d], of the label budget
    validation: np.ndarray
    pictures: Mapping[int, np.ndarray]  # uint8 [c, h, w] of the keys asked for


def judge_pool(ctx: Context, wanted: Sequence[int]) -> JudgedPool:
    """The features and predictions of a judge trained on all real training images, whose weights
    lie in `check/judge`. Every shard is read once, and the images of the keys `wanted` are kept.
    """
    data = ctx.data
    judge = train_judge(ctx, data.all_train_pixels, data.all_train_labels, "check")
    sha256 = save_weights(ctx.run.check / "judge", judge.net, judge.config.model_dump(mode="json"))
    plan = read_plan(ctx.run.pool / "plan.json")
    parts, pictures = [], {}
    with ctx.console.task("judged") as progress:
        for spec in plan.shards:
            pixels, rows = read_shard(ctx.run.pool, spec.index)
            parts.append(judge.features(pixels))
            keys = rows["key"].to_numpy()
            for row in np.flatnonzero(np.isin(keys, wanted)).tolist():
                pictures[int(keys[row])] = pixels[row]
            progress(spec.first_key + spec.count, plan.count, {})
    pool = np.concatenate(parts)
    return JudgedPool(
        facts=JudgeFacts(net=NET, sha256=sha256, images=len(data.all_train_labels)),
        pool=pool,
        predictions=judge.predictions(pool),
        train=judge.features(data.train_pixels),
        validation=judge.features(data.validation_pixels),
        pictures=pictures,
    )


def judged_numbers(ctx: Context, judged: JudgedPool, kept: Kept) -> tuple[Measured, ...]:
    """Fidelity and diversity of the kept samples against the training and the validation images,
    and whether the judge predicts their labels; overall and by label.
    """
    data, labels = ctx.data, kept.labels
    features, predicted = judged.pool[kept.rows], judged.predictions[kept.rows]
    alone = Judge(f"judge, {NET}", judged.facts.sha256, None)
    train, validation = replace(alone, split="train"), replace(alone, split="validation")
    alone.check(ctx.run.read_facts("ratio", RatioFacts).sha256)
    against_train = feature_metrics(features, judged.train)
    against_validation = [
        metric
        for metric in feature_metrics(features, judged.validation)
        if metric.names != ("authenticity",)  # that is about copies of training images
    ]
    alone_metrics = (
        label_metric(ctx.space, predicted, labels),
        # It falls with the sample, so an interval of halves would lie below it.
        Metric.alone("vendi", vendi_score, features, halves=False),
    )
    return (
        *check_numbers(ctx, alone, labels, *alone_metrics),
        *check_numbers(ctx, train, labels, *against_train, reals=data.train_labels),
        *check_numbers(ctx, validation, labels, *against_validation, reals=data.validation_labels),
    )


def check_numbers(
    ctx: Context,
    judge: Judge,
    labels: np.ndarray,
    *metrics: Metric,
    reals: np.ndarray | None = None,
) -> tuple[Measured, ...]:
    """The numbers of a check, overall and by label, of samples with labels `[n]`; of metrics that
    compare them with real images, `reals` are the labels `[m]` of those.
    """
    config, seed = MeasureConfig(), derive_seed(ctx.recipe.seed, "check metrics") % 2**32
    return tuple(
        number
        for metric in metrics
        for number in measure(metric, labels, reals, ctx.space, judge, config, seed)
    )


def label_metric(
    space: LabelSpace,
    predicted: np.ndarray,
    labels: np.ndarray,
    of_classes: str = "agreement",
    of_numbers: str = "label_score",
) -> Metric:
    """How well predictions `[n]` match labels `[n]`: the share of classes that are right, or the
    mean error of numbers; by the name that it has of either.
    """
    if isinstance(space, ContinuousLabels):
        return Metric.alone(of_numbers, label_score, predicted, labels)
    return Metric.alone(of_classes, agreement, predicted, labels)


def along_the_label(
    ctx: Context, pool: np.ndarray, conditions: np.ndarray, kept: Kept
) -> tuple[AlongRecord, AlongRecord]:
    """Fréchet distance and Label Score along a continuous label, before and after selection: of
    pool pixels uint8 `[n, c, h, w]` made for the conditions `[n]`.

    The judge is a net of its own, trained on every real image that is no test image; fidelity is
    against the same images, in its features.
    """
    space, data, config = ctx.space, ctx.data, MeasureConfig(resamples=0)
    assert isinstance(space, ContinuousLabels)  # classes have no axis
    real_pixels = np.concatenate([data.all_train_pixels, data.validation_pixels])
    real_labels = np.concatenate([data.all_train_labels, data.validation_labels])
    judge = train_judge(ctx, real_pixels, real_labels, "judge")
    real, generated = judge.features(real_pixels), judge.features(pool)
    predicted = judge.predictions(generated)
    measured_by = Judge(f"judge, {NET}", "", "train+validation")

    def distance(rows: np.ndarray, labels: np.ndarray) -> Metric:
        features = generated[rows]
        # Real images first, as rounding depends on the order.
        return Metric(("fid",), lambda a, b: [frechet_distance(real[b], features[a])], least=2)

    def score(rows: np.ndarray, labels: np.ndarray) -> Metric:
        return Metric.alone("label_score", label_score, predicted[rows], labels)

    sets = ((np.arange(len(conditions)), conditions), (kept.rows, kept.labels))

    def along(
        metric: Callable[[np.ndarray, np.ndarray], Metric], reals: np.ndarray | None, caption: str
    ) -> AlongRecord:
        (all_raw, *raw), (all_kept, *selected) = (
            [number for number in numbers if number.kind != "group"]
            for numbers in (
                measure(metric(rows, labels), labels, reals, space, measured_by, config)
                for rows, labels in sets
            )
        )
        return AlongRecord(
            centre=tuple(number.label for number in raw if number.label is not None),
            raw=tuple(finite(number.value) for number in raw),
            kept=tuple(finite(number.value) for number in selected),
            overall=(all_raw.value, all_kept.value),
            caption=caption,
        )

    width = config.window_width * space.span / space.groups
    windows = f"in windows of {width:.3g} {space.unit}"
    sizes = f"{len(real):,} real, {len(conditions):,} raw, {len(kept.rows):,} kept"
    return (
        along(
            distance,
            real_labels,
            f"Fréchet distance to the real images that are no test images, {windows} "
            f"({sizes}), in the features of a net trained on them",
        ),
        along(score, None, f"mean |prediction of the same net − label| in {space.unit}, {windows}"),
    )


def learning_rows(ctx: Context, kept: Kept) -> np.ndarray:
    """Which of the kept samples are learned from: int64 `[m]` into them, ascending, at random."""
    random = np.random.default_rng(derive_seed(ctx.recipe.seed, "check learning"))
    count = len(kept.rows)
    return np.sort(random.choice(count, min(count, LEARNED_IMAGES), replace=False))


def learned_numbers(
    ctx: Context, pixels: np.ndarray, labels: np.ndarray
) -> tuple[tuple[Measured, ...], LearnedFacts]:
    """What can be learned from the kept images alone: how a fresh student does on real validation
    images that saw only kept ones, uint8 `[m, c, h, w]`, with their labels `[m]`; and how it
    learned. The number is the classification accuracy score, or for continuous labels the mean
    error. Its weights lie in `check/learned`.

    It is the recipe's student from scratch, for at most `check.learner_steps`, at the lowest of
    the learning rates that a run would search among, since nothing is searched for here.
    """
    space, data, folder, recipe = ctx.space, ctx.data, ctx.run.check / "learned", ctx.recipe
    training = recipe.student.training.model_copy(
        update={
            "steps": min(max(recipe.student.steps), recipe.check.learner_steps),
            "lr": min(recipe.student.learning_rates),
        }
    )

    def learn(pixels: np.ndarray, labels: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
        with ctx.console.task("learned") as progress:
            net, _ = train_network(
                TrainingData(real_pixels=pixels, real_labels=labels),
                training,
                space=space,
                seed=derive_seed(recipe.seed, "check learner"),
                device=ctx.device,
                precision=ctx.precision,
                progress=progress,
            )
        channels, size = pixels.shape[1:3]
        shape = {"outputs": space.outputs, "channels": channels, "size": size}
        save_network(folder, net, name=training.network, facts=ctx.network_facts, **shape)
        return lambda real: predictions(
            outputs_of(net, real, device=ctx.device, precision=ctx.precision), space
        )

    predicted = learned_predictions(learn, pixels, labels, data.validation_pixels)
    names = "classification_accuracy_score", "learned_error"
    metric = label_metric(space, predicted, data.validation_labels, *names)
    net = f"student, {training.network}, of kept images"
    judge = Judge(net, weights_sha256(folder), "validation")
    config = training.model_dump(include={"network", "steps", "batch", "lr"})
    facts = LearnedFacts(**config, images=len(labels))
    return check_numbers(ctx, judge, data.validation_labels, metric), facts
