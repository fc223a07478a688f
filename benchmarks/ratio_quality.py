"""Does the density ratio help? `python -m benchmarks.ratio_quality OUT [--set …]`

For each of three pools of the fashion-mnist preset (labelled images, generator and pool drawn
anew), half of the pool is kept by the shipped ratio. FID per class of the kept half, against real
images outside the budget and in the features of a net that took no part, is compared with that of
random halves.
"""

import argparse
import json
import math
from pathlib import Path
from statistics import fmean, stdev

import numpy as np

from cgankd.app import pipeline
from cgankd.app.console import Console
from cgankd.app.context import Context
from cgankd.app.pipeline import opened, recipe_of_run
from cgankd.app.stages.pool import first_round
from cgankd.app.stages.selections import decide, read_scores
from cgankd.curation.metrics.fidelity import frechet_distance
from cgankd.curation.policies import Policy
from cgankd.curation.policies.subsampling import BudgetedRejection
from cgankd.nets.feature_nets import FeatureNet, Small, features_of, train_feature_net
from cgankd.shardset.pool.plan import read_plan

POOLS = (0, 1, 2)  # recipe seeds

RANDOM_HALVES = 5
# The teacher plays no part here: a small one saves the time.
OVERRIDES = ("teacher.training.network=convnet-80k", "teacher.training.steps=200")
STAGES = ("teacher", "generator", "pool", "ratio", "scores")


def main() -> None:
    """Runs what is not done and prints FID per class of both halves for each pool."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--recipe", default="fashion-mnist")
    parser.add_argument("--set", action="append", default=[], dest="overrides")
    options = parser.parse_args()
    console = Console()
    rows = []
    for pool in POOLS:
        run = options.out / f"pool-{pool}"
        if not (run / "scores" / "stage.json").is_file():
            for stage in STAGES:
                pipeline.stage(
                    stage,
                    run,
                    console=console,
                    recipe=options.recipe,
                    overrides=[*OVERRIDES, *options.overrides, f"seed={pool}"],
                )
        rows.append(compare(run, console))
        print(json.dumps(rows[-1]))
    gains = [row["gain"] for row in rows]
    error = stdev(gains) / math.sqrt(len(gains))
    print("\n| pool | random half | kept half | lower by |\n|---|---|---|---|")
    for pool, row in zip(POOLS, rows, strict=True):
        print(f"| {pool} | {row['random']:.4f} | {row['kept']:.4f} | {100 * row['gain']:.1f} % |")
    print(f"\nmean {100 * fmean(gains):.1f} %, standard error {100 * error:.1f} %")
    print(f"{fmean(gains) / error:.1f} standard errors (demanded: more than 2)")


def compare(run: Path, console: Console) -> dict[str, float]:
    """FID per class (mean over classes) of the kept half and of random halves of one pool."""
    with opened(run, recipe_of_run(run, None, ()), console=console) as ctx:
        plan = read_plan(ctx.run.pool / "plan.json")
        pixels, labels = first_round(ctx, plan)
        scores = read_scores(ctx)
        policy = Policy(subsample=BudgetedRejection(accept=0.5), filter=None)
        kept = decide(ctx, scores, plan, policy).kept[: len(labels)]
        judge, reference = _judge(ctx)
        features = _features(ctx, judge, pixels)
        real, real_labels = reference
    random = np.random.default_rng(0)

    def distance(chosen: np.ndarray) -> float:
        return fmean(
            frechet_distance(features[chosen & (labels == c)], real[real_labels == c])
            for c in np.unique(labels)
        )

    halves = []
    for _ in range(RANDOM_HALVES):
        half = np.zeros(len(labels), bool)
        for c in np.unique(labels):
            rows = np.flatnonzero(labels == c)
            half[random.permutation(rows)[: int((kept & (labels == c)).sum())]] = True
        halves.append(distance(half))
    kept_distance = distance(kept)
    return {
        "random": fmean(halves),
        "kept": kept_distance,
        "gain": 1 - kept_distance / fmean(halves),
    }


def _features(ctx: Context, judge: FeatureNet, pixels: np.ndarray) -> np.ndarray:
    return features_of(judge, pixels, device=ctx.device, precision=ctx.precision, batch=500)


def _judge(ctx: Context) -> tuple[FeatureNet, tuple[np.ndarray, np.ndarray]]:
    """A net trained on one half of the reals outside the budget, and the other half's features."""
    data = ctx.data
    order = np.random.default_rng(1).permutation(len(data.outside_labels))
    a, b = np.array_split(order, 2)
    pixels, labels = data.outside_pixels, data.outside_labels
    judge = train_feature_net(
        pixels[a],
        labels[a],
        Small(steps=1500, dim=64),
        space=ctx.space,
        seed=1,
        device=ctx.device,
        precision=ctx.precision,
    )
    return judge, (_features(ctx, judge, pixels[b]), labels[b])


if __name__ == "__main__":
    main()
