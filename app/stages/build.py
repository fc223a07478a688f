"""The stages before the students, in order: each returns its facts and does nothing twice.

A stage's fields are the recipe's fields that it reads and the hashes of its inputs, nothing more;
its marker carries them, so that a change touches that stage and what follows it.
"""

from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np

from cgankd.app.context import Context, Facts, save_array, write_metrics
from cgankd.curation.density_ratio.fit import fit_ratio
from cgankd.curation.scoring import ScoreJob, score_shard
from cgankd.generator import adopt_generator
from cgankd.generator.interface import ImageSpace
from cgankd.generator.produce import PIXEL_LIBRARIES, ProduceJob, produce_shard
from cgankd.generator.train import train_generator
from cgankd.nets.batches import TrainingData
from cgankd.nets.networks import save_network
from cgankd.nets.training import train_network
from cgankd.shardset.errors import RatioRefused
from cgankd.shardset.files import derive_seed, fingerprint, sha256_file
from cgankd.shardset.identity import pool_id
from cgankd.shardset.labels import ContinuousLabels, LabelSpace
from cgankd.shardset.pool.plan import PLAN_VERSION, Plan, make_plan, read_plan, write_plan
from cgankd.shardset.pool.shards import read_shard
from cgankd.shardset.records import RatioFacts, TeacherFacts
from cgankd.shardset.release.manifest import write_pool_manifest
from cgankd.student.evaluate import measures, outputs_of

REAL_OUTPUTS = "real_outputs.npy"


def train_teacher(ctx: Context) -> Facts:
    """Facts of the teacher, trained or loaded; its outputs on the real training images lie by."""
    recipe, data, folder = ctx.recipe.teacher, ctx.data, ctx.run.teacher
    fields = {
        **ctx.real_fields,
        **ctx.compute_fields,
        "seed": ctx.recipe.seed,
        "teacher": recipe.model_dump(mode="json"),
    }
    own = Path(recipe.weights) if recipe.weights else None
    if own is not None and own.is_file():
        fields["weights_sha256"] = sha256_file(own)
    if ctx.is_done("teacher", fields):
        return ctx.run.stage_facts("teacher")
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
    found = measures(outputs(data.validation_pixels), data.validation_labels, ctx.space)
    facts = TeacherFacts(
        # A function's weights cannot be hashed; what it says of the real images names it.
        sha256=fields.get("weights_sha256")
        or sha256_file(folder / (REAL_OUTPUTS if recipe.weights else "model.safetensors")),
        network=recipe.weights or recipe.training.network,
        data="own" if recipe.weights else recipe.data,
        images=images,
        validation=found,
    )
    ctx.finish("teacher", fields, facts)
    ctx.console.note(f"teacher: {in_words(ctx.space, found)} on the validation images")
    return facts.model_dump(mode="json")


def train_gan(ctx: Context) -> Facts:
    """Facts of the conditional GAN trained on the real training images."""
    recipe, data = ctx.recipe.generator, ctx.data
    fields = {
        **ctx.real_fields,
        **ctx.compute_fields,
        "seed": ctx.recipe.seed,
        "generator": recipe.model_dump(mode="json"),
    }
    own = Path(recipe.weights) if recipe.weights else None
    if own is not None and own.is_file():
        fields["weights_sha256"] = sha256_file(own)
    if ctx.is_done("generator", fields):
        return ctx.run.stage_facts("generator")
    if own is not None:
        channels, size = data.reals.image_shape[:2]
        images = ImageSpace(size, channels, ctx.space)
        sha256 = adopt_generator(own, ctx.run.generator, images, recipe.network)
        facts = {"sha256": sha256, "steps": 0}
        ctx.finish("generator", fields, facts)
        return facts
    with ctx.console.task("generator") as progress:
        facts = train_generator(
            data.train_pixels,
            data.train_labels,
            ctx.space,
            recipe.network,
            recipe.training,
            folder=ctx.run.generator,
            seed=derive_seed(ctx.recipe.seed, "generator"),
            device=ctx.device,
            precision=ctx.precision,
            threads=ctx.threads,
            progress=progress,
        )
    ctx.finish("generator", fields, facts)
    return facts


def produce(ctx: Context, more: Mapping[int, int] | Mapping[float, int] | None = None) -> Facts:
    """Facts of the pool with every planned shard in it; `more` appends a round first."""
    recipe = ctx.recipe.pool
    generator_sha256 = ctx.run.stage_facts("generator")["sha256"]
    seed = derive_seed(ctx.recipe.seed, "pool")
    fields = {
        "device": ctx.device.type,
        "precision": ctx.precision,
        "generator_sha256": generator_sha256,
        "seed": seed,
        "per_label": recipe.per_label,
        **({} if recipe.labels is None else {"labels": pool_labels(ctx)}),
        "shard_size": recipe.shard_size,
        "batch": recipe.batch,
    }
    path = ctx.run.pool / "plan.json"
    if ctx.is_done("pool", fields) and not more:
        facts = ctx.run.stage_facts("pool")
        if facts["samples"] == read_plan(path).count:  # else a top-up was killed
            return facts
    # A plan without a shard may be another recipe's; with one, the shard's fingerprint decides.
    if not path.is_file() or not any(ctx.run.pool.glob("[0-9]*.json")):
        plan = make_plan(
            seed=seed,
            pool_id=pool_id(generator_sha256, seed, PLAN_VERSION),
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
    ctx.map(produce_shard, jobs, "pool", sizes=[spec.count for spec in plan.shards])
    facts = {
        "pool_id": plan.pool_id,
        "samples": plan.count,
        "rounds": len(plan.rounds),
        "shards": len(plan.shards),
        "manifest_sha256": write_pool_manifest(ctx.run.pool, plan),
        "libraries": {name: version(name) for name in PIXEL_LIBRARIES},
    }
    ctx.finish("pool", fields, facts)
    return facts


def pool_labels(ctx: Context) -> list[int] | list[float]:
    """The labels that samples are made of: every class, or numbers evenly spaced over the range."""
    space = ctx.space
    if isinstance(space, ContinuousLabels):
        assert ctx.recipe.pool.labels is not None
        return np.linspace(space.low, space.high, ctx.recipe.pool.labels).tolist()
    return list(range(len(space.names)))


def in_words(space: LabelSpace, measured: Mapping[str, float]) -> str:
    """A network's figures as a person says them."""
    if isinstance(space, ContinuousLabels):
        return f"mean error {measured['mae']:.3g} {space.unit}"
    return f"{measured['accuracy']:.1f} % right"


def fit_density_ratio(ctx: Context) -> Facts:
    """Facts of the density ratio, its diagnostics and, where they fail, what is wrong with it.

    Fitted on the whole budget (the generator saw its training part alone) and on the pool's first
    round, so that a top-up changes nothing.
    """
    recipe = ctx.recipe.ratio
    plan = read_plan(ctx.run.pool / "plan.json")
    fields = {
        **ctx.real_fields,
        **ctx.compute_fields,
        "seed": ctx.recipe.seed,
        "ratio": recipe.model_dump(mode="json"),
        "pool_id": plan.pool_id,
        "first_round": [segment.model_dump() for segment in plan.rounds[0]],
    }
    if ctx.is_done("ratio", fields):
        return ctx.run.stage_facts("ratio")
    pixels, labels = first_round(ctx, plan)
    data = ctx.data
    origins = data.reals.origins
    both = [*data.split.train, *data.split.validation]
    with ctx.console.task("ratio") as progress:
        facts = fit_ratio(
            np.concatenate([data.train_pixels, data.validation_pixels]),
            np.concatenate([data.train_labels, data.validation_labels]),
            pixels,
            labels,
            recipe,
            space=ctx.space,
            folder=ctx.run.ratio,
            seed=derive_seed(ctx.recipe.seed, "ratio"),
            device=ctx.device,
            precision=ctx.precision,
            origins=None if origins is None else [origins[i] for i in both],
            progress=progress,
        )
    ctx.finish("ratio", fields, facts.model_dump(mode="json"))
    return facts.model_dump(mode="json")


def require_ratio(ctx: Context) -> None:
    """Raises `RatioRefused` with the first of the problems that the diagnostics found."""
    if problems := ctx.run.read_facts("ratio", RatioFacts).problems:
        more = f" (and {len(problems) - 1} more in ratio/)" if len(problems) > 1 else ""
        raise RatioRefused(f"the density ratio was refused: {problems[0]}{more}")


def first_round(ctx: Context, plan: Plan) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and labels of the pool's first round."""
    count = sum(segment.count for segment in plan.rounds[0])
    shards = [spec for spec in plan.shards if spec.first_key < count]
    pixels = np.concatenate([read_shard(ctx.run.pool, spec.index)[0] for spec in shards])
    return pixels, np.concatenate([plan.labels(spec) for spec in shards])


def score(ctx: Context) -> Facts:
    """Facts of the score tables, one for every pool shard."""
    ratio = ctx.run.read_facts("ratio", RatioFacts)
    plan = read_plan(ctx.run.pool / "plan.json")
    fields = {
        "device": ctx.device.type,
        "precision": ctx.precision,
        "plan": plan.model_dump(mode="json", exclude={"rounds"}),
        "teacher_sha256": ctx.run.read_facts("teacher", TeacherFacts).sha256,
        "ratio_sha256": None if ratio.problems else ratio.sha256,
    }
    ctx.is_done("scores", fields)  # stale scores are refused; new shards are scored below
    jobs = [
        ScoreJob(
            pool_folder=ctx.run.pool,
            scores_folder=ctx.run.scores,
            index=spec.index,
            fingerprint=fingerprint(fields),
            load_teacher=ctx.teacher_loader,
            space=ctx.space,
            ratio_folder=None if ratio.problems else ctx.run.ratio,
            device=ctx.device.type,
            batch=plan.batch,
        )
        for spec in plan.shards
    ]
    shards = ctx.map(score_shard, jobs, "scores", sizes=[spec.count for spec in plan.shards])
    facts = {"rows": plan.count, "sha256": fingerprint({"shards": shards})}
    ctx.finish("scores", fields, facts)
    return facts
