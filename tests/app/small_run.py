"""A run folder with a pool that a real, untrained generator made, and a release of it: no training,
made in less than a second.
"""

from pathlib import Path
from typing import Any, Literal

import torch

from cgankd.generator import BigGAN, build_generator
from cgankd.generator.produce import ProduceJob, produce_shard
from cgankd.shardset.files import write_bytes
from cgankd.shardset.identity import pool_id
from cgankd.shardset.pool.plan import make_plan, read_plan, write_plan
from cgankd.shardset.pool.run_folder import RunFolder
from cgankd.shardset.records import PoolFacts
from cgankd.shardset.release.build import Sources, build_release
from cgankd.shardset.release.manifest import write_pool_manifest
from cgankd.shardset.testing import (
    described,
    tiny_continuous_space,
    tiny_facts,
    tiny_space,
    write_tiny_scores,
    write_tiny_selection,
)
from cgankd.shardset.weights import save_weights, weights_sha256

LATENT = 4
SEED = 11
Task = Literal["classes", "numbers"]


def write_small_run(folder: Path, task: Task = "classes") -> RunFolder:
    """A run up to its selection `cgan-kd`: two rounds of 30 and 5 samples, in shards of 12, made
    in batches of 8.
    """
    run = RunFolder.open(folder, create=True)
    write_bytes(run.path / "recipe.yaml", b"name: small\n")
    space = tiny_space(3) if task == "classes" else tiny_continuous_space()
    run.record(source={"space": space.model_dump()})
    sha256 = write_generator(run.generator, task)
    labels: Any = (0, 1, 2) if task == "classes" else (-60.0, -3.3, 59.99)
    plan = make_plan(
        seed=SEED,
        pool_id=pool_id(sha256, SEED, 1),
        shard_size=12,
        batch=8,
        threads=1,
        precision="float32",
        per_label=dict.fromkeys(labels, 10),
    ).topped_up({labels[2]: 5})
    write_plan(run.pool / "plan.json", plan)
    for spec in plan.shards:
        produce_shard(ProduceJob(run.generator, run.pool, spec.index, "settings"))
    facts = PoolFacts(
        pool_id=plan.pool_id,
        samples=plan.count,
        rounds=len(plan.rounds),
        shards=len(plan.shards),
        manifest_sha256=write_pool_manifest(run.pool, plan),
        libraries={"torch": torch.__version__},
    )
    fields = {"device": "cpu", "generator_sha256": sha256}
    run.finish_stage("pool", fields, facts.model_dump(mode="json"))
    write_tiny_scores(run.scores, plan)
    write_tiny_selection(run.selections / "cgan-kd.parquet", run.scores)
    return run


def write_generator(folder: Path, task: Task = "classes", seed: int = 0) -> str:
    """The sha256 of an untrained generator's weights, with statistics that are not the initial
    ones.
    """
    space = tiny_space(3) if task == "classes" else tiny_continuous_space()
    shape = {
        **BigGAN(width=8, latent_dim=LATENT).model_dump(),
        "image_size": 8,
        "channels": 1,
        "space": space.model_dump(mode="json"),
    }
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        generator = build_generator(shape).train()
        targets = torch.randint(3, (32,)) if task == "classes" else torch.rand(32)
        for _ in range(5):
            generator.sample(torch.randn(32, LATENT), targets)
    return save_weights(folder, generator, shape)


def small_release(run: RunFolder, version: str = "v1.0.0", **facts: Any) -> Path:
    """The folder of a release of the run, with how it was produced among its facts."""
    plan = read_plan(run.pool / "plan.json")
    space = tiny_continuous_space()
    if isinstance(next(iter(plan.planned)), int):
        space = tiny_space(3)
    production = {
        "plan_version": 1,
        "seed": SEED,
        "shard_size": plan.shard_size,
        "batch": plan.batch,
        "threads": plan.threads,
        "precision": plan.precision,
        "rounds": [30, 5],
        "device": "cpu",
    }
    weights = {"generator": weights_sha256(run.generator), "teacher": "1" * 64, "ratio": None}
    told = {
        **tiny_facts(space=space),
        "weights": weights,
        "production": production,
        **facts,
    }
    selection = run.selections / "cgan-kd.parquet"
    sources = Sources(run.pool, run.scores, selection, *described(told), False)
    return build_release(run.release, version, sources).folder
