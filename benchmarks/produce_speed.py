"""Producing a pool against bare forward passes: `python -m benchmarks.produce_speed [--recipe R]`.

Both sides use the same plan and weights (untrained: pixels cost what they cost) in one process and
alternate; the least processor time of each counts, without start-up and the loading of the network,
which `pool_making` counts. Produced is all from seeds to the pool's manifest.
"""

import argparse
import tempfile
from itertools import count
from pathlib import Path

import numpy as np
import torch

from benchmarks.processor_time import least
from cgankd.app.context import resolve_precision
from cgankd.app.recipe import load_recipe
from cgankd.generator import build_generator, load_generator
from cgankd.generator.produce import ProduceJob, generate, produce_shard
from cgankd.shardset.identity import pool_id
from cgankd.shardset.labels import ClassLabels, ContinuousLabels, LabelSpace
from cgankd.shardset.pool.plan import PLAN_VERSION, Plan, make_plan, write_plan
from cgankd.shardset.release.manifest import write_pool_manifest
from cgankd.shardset.weights import save_weights

LABELS, CHANNELS = 10, 1
ROUNDS = 5
DEMANDED = 1.2  # at 8 px
CPU = torch.device("cpu")


def main() -> None:
    """Prints the processor seconds of both sides and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--recipe", default="digits")
    parser.add_argument("--size", type=int, default=8, help="pixels a side")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        plan = prepared(root / "generator", options.recipe, options.size, options.samples)
        network = load_generator(root / "generator", CPU)
        draws = network.draws(plan.seed, range(plan.batch))
        turns = count()

        def bare() -> None:
            for spec in plan.shards:
                labels = plan.labels(spec)
                for first in range(0, len(labels), plan.batch):
                    part = labels[first : first + plan.batch]
                    generate(network, draws[: len(part)], part, plan, CPU)

        def produced() -> None:
            pool = root / f"pool-{next(turns)}"
            write_plan(pool / "plan.json", plan)
            for spec in plan.shards:
                produce_shard(ProduceJob(root / "generator", pool, spec.index, "benchmark"))
            write_pool_manifest(pool, plan, made=range(len(plan.shards)))

        (_, passes), (_, whole) = least(ROUNDS, bare, produced)
    print(f"{plan.count:,} images of {options.size} px, processor seconds:")
    print(f"bare forward passes  {passes:8.2f} s")
    print(f"produced             {whole:8.2f} s")
    print(f"ratio                {whole / passes:8.2f}  (demanded at 8 px: at most {DEMANDED:.2f})")


def prepared(folder: Path, name: str, size: int, samples: int) -> Plan:
    """The plan of a pool by a recipe, after its untrained generator was saved."""
    recipe = load_recipe(name)
    space: LabelSpace = ClassLabels(names=tuple(map(str, range(LABELS))))
    labels: list[int] | list[float] = list(range(LABELS))
    if recipe.task == "regression":
        space = ContinuousLabels(unit="degrees", low=-60, high=60)
        labels = np.linspace(space.low, space.high, LABELS).tolist()
    shape = {
        **recipe.generator.network.model_dump(),
        "image_size": size,
        "channels": CHANNELS,
        "space": space.model_dump(mode="json"),
    }
    sha256 = save_weights(folder, build_generator(shape), shape)
    return make_plan(
        seed=0,
        pool_id=pool_id(sha256, 0, PLAN_VERSION),
        shard_size=recipe.pool.shard_size,
        batch=recipe.pool.batch,
        threads=1,
        precision=resolve_precision(recipe.precision, CPU, size),
        per_label=dict.fromkeys(labels, samples // LABELS),
    )


if __name__ == "__main__":
    main()
