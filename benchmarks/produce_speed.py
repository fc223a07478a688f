"""Producing a pool against bare forward passes: `python -m benchmarks.produce_speed [--recipe R]`.

Both sides run on as many worker processes as there are cores, one thread each, on the same plan
and weights (untrained: pixels cost what they cost). They alternate; the best of each counts.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from cgankd.app.context import resolve_precision
from cgankd.app.engine import map_jobs
from cgankd.app.recipe import load_recipe
from cgankd.generator import build_generator, load_generator
from cgankd.generator.produce import ProduceJob, generate, produce_shard
from cgankd.shardset.identity import pool_id
from cgankd.shardset.labels import ClassLabels, ContinuousLabels, LabelSpace
from cgankd.shardset.pool.plan import PLAN_VERSION, make_plan, read_plan, write_plan
from cgankd.shardset.weights import save_weights

LABELS, CHANNELS = 10, 1
ROUNDS = 3


def bare_passes(job: ProduceJob) -> float:
    """Seconds of one shard's forward passes and nothing else."""
    torch.set_num_threads(1)
    plan = read_plan(job.pool_folder / "plan.json")
    network = load_generator(job.generator_folder, torch.device("cpu"))
    labels = plan.labels(plan.shards[job.index])
    draws = network.draws(plan.seed, range(plan.batch))
    start = time.perf_counter()
    for first in range(0, len(labels), plan.batch):
        part = labels[first : first + plan.batch]
        generate(network, draws[: len(part)], part, plan, torch.device("cpu"))
    return time.perf_counter() - start


def whole_shard(job: ProduceJob) -> float:
    """Seconds of producing one shard, from seeds to marker, beside the loading of the network."""
    torch.set_num_threads(1)
    load_generator(job.generator_folder, torch.device("cpu"))
    start = time.perf_counter()
    produce_shard(job)
    return time.perf_counter() - start


def main() -> None:
    """Prints images per second of both sides and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--recipe", default="fashion-mnist")
    parser.add_argument("--size", type=int, default=28, help="pixels a side")
    options = parser.parse_args()
    recipe = load_recipe(options.recipe)
    space: LabelSpace = ClassLabels(names=tuple(map(str, range(LABELS))))
    labels: list[int] | list[float] = list(range(LABELS))
    if recipe.task == "regression":
        space = ContinuousLabels(unit="degrees", low=-60, high=60)
        labels = np.linspace(space.low, space.high, LABELS).tolist()
    workers = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        shape = {
            **recipe.generator.network.model_dump(),
            "image_size": options.size,
            "channels": CHANNELS,
            "space": space.model_dump(mode="json"),
        }
        sha256 = save_weights(root / "generator", build_generator(shape), shape)
        best = {"bare": 0.0, "produce": 0.0}
        for turn in range(ROUNDS):
            pool = root / f"pool-{turn}"
            plan = make_plan(
                seed=turn,
                pool_id=pool_id(sha256, turn, PLAN_VERSION),
                shard_size=recipe.pool.shard_size,
                batch=recipe.pool.batch,
                threads=1,
                precision=resolve_precision(recipe.precision, torch.device("cpu"), options.size),
                per_label=dict.fromkeys(labels, options.samples // LABELS),
            )
            write_plan(pool / "plan.json", plan)
            jobs = [ProduceJob(root / "generator", pool, s.index, "benchmark") for s in plan.shards]
            for side, function in (("bare", bare_passes), ("produce", whole_shard)):
                seconds = map_jobs(function, jobs, workers=workers)
                # The first shard of each worker warms its network up.
                settled = seconds[workers:]
                samples = sum(spec.count for spec in plan.shards[workers:])
                best[side] = max(best[side], workers * samples / sum(settled))
    print(f"bare forward passes  {best['bare']:8,.0f} images/s")
    print(f"produced             {best['produce']:8,.0f} images/s")
    print(f"ratio                {best['produce'] / best['bare']:8.2f}  (demanded: 0.80)")


if __name__ == "__main__":
    main()
