"""The net that judges a selection: trained on real images for that alone, it selected nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from cgankd.app.context import Context
from cgankd.app.pages.check_sets import Kept
from cgankd.app.pages.report_judging import JUDGE
from cgankd.curation.metrics.measured import Judge, MeasureConfig, Measured, measure
from cgankd.curation.metrics.metrics import (
    agreement_metric,
    feature_metrics,
    label_score_metric,
    vendi_metric,
)
from cgankd.nets.feature_nets import features_of, train_feature_net
from cgankd.shardset.files import derive_seed
from cgankd.shardset.labels import ContinuousLabels
from cgankd.shardset.pool.plan import read_plan
from cgankd.shardset.pool.shards import read_shard
from cgankd.shardset.weights import save_weights
from cgankd.student.evaluate import predictions

NET = f"{JUDGE.network}, {JUDGE.dim} features"


@dataclass(frozen=True)
class Judged:
    """What the judge sees in the pool and in the real images that are no test images."""

    sha256: str
    images: int  # real training images it was trained on
    pool: np.ndarray  # float32 [n, d], in key order
    guesses: np.ndarray  # [n], the labels it tells, raw
    train: np.ndarray  # float32 [m, d], of the label budget
    validation: np.ndarray
    pictures: Mapping[int, np.ndarray]  # uint8 [c, h, w] of the keys asked for


def judge_pool(ctx: Context, wanted: Sequence[int]) -> Judged:
    """The judge's features and guesses; its weights lie in `check/judge`. Every shard is read once,
    and the images of the keys `wanted` are kept.
    """
    data, space = ctx.data, ctx.space
    with ctx.console.task("judge") as progress:
        net = train_feature_net(
            data.all_train_pixels,
            data.all_train_labels,
            JUDGE,
            space=space,
            seed=derive_seed(ctx.recipe.seed, "check"),
            device=ctx.device,
            precision=ctx.precision,
            progress=progress,
        )
    sha256 = save_weights(ctx.run.check / "judge", net, JUDGE.model_dump(mode="json"))

    def features(pixels: np.ndarray) -> np.ndarray:
        return features_of(net, pixels, device=ctx.device, precision=ctx.precision, batch=500)

    plan = read_plan(ctx.run.pool / "plan.json")
    parts, pictures = [], {}
    with ctx.console.task("judged") as progress:
        for spec in plan.shards:
            pixels, rows = read_shard(ctx.run.pool, spec.index)
            parts.append(features(pixels))
            keys = rows["key"].to_numpy()
            for row in np.flatnonzero(np.isin(keys, wanted)).tolist():
                pictures[int(keys[row])] = pixels[row]
            progress(spec.first_key + spec.count, plan.count, {})
    pool = np.concatenate(parts)
    with torch.inference_mode():
        answers = net.head(torch.from_numpy(pool).to(ctx.device)).float().cpu().numpy()
    return Judged(
        sha256=sha256,
        images=len(data.all_train_labels),
        pool=pool,
        guesses=predictions(answers, space),
        train=features(data.train_pixels),
        validation=features(data.validation_pixels),
        pictures=pictures,
    )


def by_the_judge(ctx: Context, judged: Judged, kept: Kept) -> tuple[Measured, ...]:
    """Fidelity and diversity of the kept samples, and whether the judge tells their labels; overall
    and by label, against the training and the validation images.
    """
    data, space, config, labels = ctx.data, ctx.space, MeasureConfig(), kept.labels
    own, guesses = judged.pool[kept.rows], judged.guesses[kept.rows]
    net, sha256 = f"judge, {NET}", judged.sha256
    alone = Judge(net, sha256, None)
    train, validation = Judge(net, sha256, "train"), Judge(net, sha256, "validation")
    alone.check(ctx.run.stage_facts("ratio")["sha256"])
    seed = derive_seed(ctx.recipe.seed, "check metrics") % 2**32
    told = agreement_metric(guesses, labels)
    if isinstance(space, ContinuousLabels):
        told = label_score_metric(guesses, labels)
    found: list[Measured] = []
    for metric in (told, vendi_metric(own)):
        found += measure(metric, labels, None, space, alone, config, seed)
    for metric in feature_metrics(own, judged.train):
        found += measure(metric, labels, data.train_labels, space, train, config, seed)
    for metric in feature_metrics(own, judged.validation):
        if metric.names != ("authenticity",):  # that is about copies of training images
            reals = data.validation_labels
            found += measure(metric, labels, reals, space, validation, config, seed)
    return tuple(found)
