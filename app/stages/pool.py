"""The pool: seeds and labels into shards of generated images.

Reads the generator's weights, the seed and `pool`. Its marker is beside its plan, and every shard
has one of its own, so that a killed run goes on at the next shard.
"""

from collections.abc import Mapping
from importlib.metadata import version

import numpy as np

from cgankd.app.context import Context, Facts
from cgankd.generator.produce import PIXEL_LIBRARIES, ProduceJob, produce_shard
from cgankd.shardset.files import derive_seed, fingerprint
from cgankd.shardset.identity import pool_id
from cgankd.shardset.labels import ContinuousLabels
from cgankd.shardset.pool.plan import PLAN_VERSION, Plan, make_plan, read_plan, write_plan
from cgankd.shardset.pool.shards import marker_of, read_shard
from cgankd.shardset.records import GeneratorFacts, PoolFacts
from cgankd.shardset.release.manifest import write_pool_manifest


def fields_of(ctx: Context) -> Facts:
    """What the stage reads."""
    recipe = ctx.recipe.pool
    return {
        "device": ctx.device.type,
        "precision": ctx.precision,
        "generator_sha256": ctx.run.read_facts("generator", GeneratorFacts).sha256,
        "seed": derive_seed(ctx.recipe.seed, "pool"),
        "per_label": recipe.per_label,
        **({} if recipe.labels is None else {"labels": pool_labels(ctx)}),
        "shard_size": recipe.shard_size,
        "batch": recipe.batch,
    }


def produce(ctx: Context, more: Mapping[int, int] | Mapping[float, int] | None = None) -> PoolFacts:
    """Facts of the pool with every planned shard in it; `more` appends a round first."""
    recipe, fields = ctx.recipe.pool, fields_of(ctx)
    path = ctx.run.pool / "plan.json"
    if ctx.is_done("pool", fields) and not more:
        facts = ctx.run.read_facts("pool", PoolFacts)
        if facts.samples == read_plan(path).count:  # else a top-up was killed
            return facts
    # A plan without a shard may be another recipe's; with one, the shard's fingerprint decides.
    if not path.is_file() or not any(ctx.run.pool.glob("[0-9]*.json")):
        plan = make_plan(
            seed=fields["seed"],
            pool_id=pool_id(fields["generator_sha256"], fields["seed"], PLAN_VERSION),
            shard_size=recipe.shard_size,
            batch=recipe.batch,
            threads=1,  # workers give the cores something to do
            precision=ctx.precision,
            per_label=dict.fromkeys(pool_labels(ctx), recipe.per_label),
        )
        write_plan(path, plan)
    if more:
        write_plan(path, read_plan(path).topped_up(more))
    plan = read_plan(path)
    jobs = [
        ProduceJob(
            generator_folder=ctx.run.generator,
            pool_folder=ctx.run.pool,
            index=spec.index,
            fingerprint=fingerprint(fields),
            device=ctx.device.type,
        )
        for spec in plan.shards
    ]
    sizes = [spec.count for spec in plan.shards]
    new = {job.index for job in jobs if marker_of(ctx.run.pool, job.index) is None}
    ctx.map(produce_shard, jobs, "pool", sizes=sizes, small=ctx.few_pixels(plan.count))
    facts = PoolFacts(
        pool_id=plan.pool_id,
        samples=plan.count,
        rounds=len(plan.rounds),
        shards=len(plan.shards),
        manifest_sha256=write_pool_manifest(ctx.run.pool, plan, made=new),
        libraries={name: version(name) for name in PIXEL_LIBRARIES},
    )
    return ctx.finish("pool", fields, facts)


def pool_labels(ctx: Context) -> list[int] | list[float]:
    """The labels that samples are made of: every class, or numbers evenly spaced over the range."""
    space = ctx.space
    if isinstance(space, ContinuousLabels):
        assert ctx.recipe.pool.labels is not None
        return np.linspace(space.low, space.high, ctx.recipe.pool.labels).tolist()
    return list(range(len(space.names)))


def first_round(ctx: Context, plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and labels of the pool's first round."""
    count = sum(segment.count for segment in plan.rounds[0])
    shards = [spec for spec in plan.shards if spec.first_key < count]
    pixels = np.concatenate([read_shard(ctx.run.pool, spec.index)[0] for spec in shards])
    return pixels, np.concatenate([plan.labels(spec) for spec in shards])
