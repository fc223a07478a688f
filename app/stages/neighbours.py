"""The stage between scores and selections: what every sample of the pool is nearest to."""

import numpy as np

from cgankd.app.context import Context, Facts
from cgankd.curation.neighbours import Neighbours, Thresholds
from cgankd.curation.neighbours.find import RealFeatures, find_neighbours
from cgankd.curation.neighbours.pool_features import (
    FeatureJob,
    StoredFeatures,
    describe_shard,
    selecting_net,
    short_features,
)
from cgankd.curation.policies import Policy
from cgankd.nets.device import threads
from cgankd.shardset.errors import BadInput
from cgankd.shardset.files import fingerprint, sha256_file
from cgankd.shardset.labels import ContinuousLabels
from cgankd.shardset.pool.plan import read_plan
from cgankd.shardset.records import NeighbourFacts, PoolFacts, RatioFacts
from cgankd.shardset.tables import read_metadata, read_numbered, read_table, write_table

NET = "ratio"  # the net that selects: that of the density ratio
PAIRS, COLUMNS = "neighbours.parquet", "columns.parquet"


def needs(policy: Policy) -> bool:
    """Whether a policy decides by neighbours or by features."""
    return policy.reads("neighbours", "features")


def neighbours_stage(ctx: Context) -> NeighbourFacts:
    """What `search` says; the recipe that it followed is now the run's."""
    facts = search(ctx)
    ctx.write_recipe()
    return facts


def search(ctx: Context) -> NeighbourFacts:
    """Facts of `neighbours.parquet` and `neighbours/columns.parquet`, with the features that they
    come from in `features/ratio`.

    A pool that was topped up since is searched again, since any sample may have new neighbours.
    """
    plan = read_plan(ctx.run.pool / "plan.json")
    ratio = ctx.run.read_facts("ratio", RatioFacts)
    pool = ctx.run.read_facts("pool", PoolFacts)
    folder = ctx.run.features / NET
    fields: Facts = {
        **ctx.real_fields,
        **ctx.compute_fields,
        "neighbours": ctx.recipe.neighbours.model_dump(mode="json"),
        "pool_id": plan.pool_id,
        "ratio_sha256": ratio.sha256,
    }
    if isinstance(ctx.space, ContinuousLabels):
        fields["groups"] = list(ctx.space.group_names)
    if ctx.drop_where_redone("features"):  # neighbours are found by features
        ctx.redo.add("neighbours")
    if ctx.is_done("neighbours", fields):
        facts = ctx.run.read_facts("neighbours", NeighbourFacts)
        if facts.pool_sha256 == pool.manifest_sha256 and (ctx.run.path / PAIRS).is_file():
            return facts
    jobs = [
        FeatureJob(
            pool_folder=ctx.run.pool,
            features_folder=folder,
            ratio_folder=ctx.run.ratio,
            ratio_sha256=ratio.sha256,
            index=spec.index,
            device=ctx.device.type,
            batch=plan.batch,
        )
        for spec in plan.shards
    ]
    counts = [spec.count for spec in plan.shards]
    shards = ctx.map(describe_shard, jobs, "features", sizes=counts)
    rows = read_numbered(ctx.run.pool, ("key", "label", "status"))
    there = np.flatnonzero(np.array(rows["status"].to_pylist()) == "ok")
    labels = rows["label"].to_numpy()[there]
    with ctx.console.task("neighbours"):
        neighbours = find_neighbours(
            rows["key"].to_numpy()[there],
            labels,
            StoredFeatures(folder, counts, there),
            _real_features(ctx, plan.batch),
            ctx.recipe.neighbours,
            space=ctx.space,
        )
    table = neighbours.table(ctx.space.group_of(labels))
    tables = ctx.run.path / PAIRS, ctx.run.neighbours / COLUMNS
    write_table(tables[0], table, {"thresholds": neighbours.thresholds.model_dump(mode="json")})
    write_table(tables[1], neighbours.columns())
    facts = NeighbourFacts(
        rows=len(there),
        pairs=len(neighbours.key_a),
        pool_sha256=pool.manifest_sha256,
        sha256=fingerprint({"tables": [sha256_file(p) for p in tables], "features": shards}),
    )
    ctx.run.finish_stage("neighbours", fields, facts.model_dump(mode="json"))
    return facts


def read_neighbours(ctx: Context) -> Neighbours:
    """The neighbours of this very pool, from their tables; `BadInput` where they are not found."""
    _require(ctx)
    path = ctx.run.path / PAIRS
    thresholds = Thresholds.model_validate(read_metadata(path)["thresholds"])
    columns = read_table(ctx.run.neighbours / COLUMNS)
    return Neighbours.from_tables(columns, read_table(path), thresholds)


def read_features(ctx: Context) -> StoredFeatures:
    """The features of every sample of this very pool; `BadInput` where they are not made."""
    _require(ctx)
    counts = [spec.count for spec in read_plan(ctx.run.pool / "plan.json").shards]
    return StoredFeatures(ctx.run.features / NET, counts, np.arange(sum(counts)))


def _require(ctx: Context) -> None:
    known = ctx.run.neighbours / "stage.json"
    pool = ctx.run.read_facts("pool", PoolFacts).manifest_sha256
    if not known.is_file() or ctx.run.read_facts("neighbours", NeighbourFacts).pool_sha256 != pool:
        raise BadInput(
            f"neighbours of the pool in {ctx.run.path} are not found yet, and the policy asks for "
            f"them; run `cgankd find-neighbours {ctx.run.path}`"
        )


def _real_features(ctx: Context, batch: int) -> RealFeatures:
    data = ctx.data
    net, precision = selecting_net(
        ctx.run.ratio, ctx.run.read_facts("ratio", RatioFacts).sha256, ctx.device
    )
    with threads(1):  # as in workers
        features = short_features(
            net,
            np.concatenate([data.train_pixels, data.validation_pixels]),
            device=ctx.device,
            precision=precision,
            batch=batch,
        )
    labels = np.concatenate([data.train_labels, data.validation_labels])
    return RealFeatures(features, labels, len(data.train_labels))
