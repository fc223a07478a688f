"""What a run would take: every network is timed for a few steps, nothing is kept."""

import os
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from cgankd.app.console import Console, duration
from cgankd.app.context import Context, Facts, open_device
from cgankd.app.machine import has_matrix_instructions
from cgankd.app.pipeline import describe
from cgankd.app.recipe import Recipe, recipe_yaml
from cgankd.app.stages.neighbours import needs
from cgankd.app.stages.pool import pool_labels
from cgankd.curation.neighbours.pool_features import MOST
from cgankd.generator.label_embedding import train_label_embedding
from cgankd.generator.train import train_generator
from cgankd.nets.batches import TrainingData
from cgankd.nets.device import threads
from cgankd.nets.pack import MEMBERS
from cgankd.nets.pack_training import Member, train_pack, trains_in_packs
from cgankd.nets.training import StudentTraining, train_network
from cgankd.shardset.labels import ContinuousLabels
from cgankd.shardset.pool.run_folder import RunFolder

FEW, MORE = 2, 6  # steps, FEW twice: ten in all; the difference leaves out what happens once
PNG_SHARE = 0.8  # of the raw pixels' bytes, an upper bound for small photographs
TAR_BYTES = 4 * 512 + 512  # headers and padding of one sample's three members
ROW_BYTES = 64
# How long a processor without AMX takes against one with it, by the generator's steps of images
# of 8 and 28 px (benchmarks/generator_step, the same processor with its AVX2 alone).
WITHOUT_AMX = (1.1, 1.8)
BLOCK = 2048  # samples whose comparison with one another is timed


def dry_run(
    recipe: Recipe, folder: Path, *, device: str, workers: int | None, console: Console
) -> Facts:
    """The resolved recipe with estimated seconds and bytes of a run that is not started."""
    ctx = Context(
        run=RunFolder(folder),
        recipe=recipe,
        device=open_device(device),
        console=console,
        workers=workers or os.cpu_count() or 1,
    )
    describe(ctx)
    seconds = _seconds(ctx)
    beside = ctx.workers > 1 and ctx.device.type == "cpu"
    total = side_by_side(seconds, ctx.workers) if beside else sum(seconds.values())
    channels, size = ctx.image_shape[:2]
    samples = recipe.pool.per_label * len(pool_labels(ctx))
    sample_bytes = channels * size * size
    # Pool, decoded copy for the students, release; scores beside them, and features for neighbours.
    scores = 2 * ctx.space.outputs
    if needs(recipe.policy):
        scores += 2 * min(recipe.ratio.features.dim, MOST)
    disk = samples * (TAR_BYTES + sample_bytes * (1 + 2 * PNG_SHARE) + ROW_BYTES + scores)
    console.text(recipe_yaml(recipe))
    console.table(
        "estimate", ["stage", "time"], [[name, duration(value)] for name, value in seconds.items()]
    )
    amx = has_matrix_instructions()
    other = other_processor(total, amx)
    console.note(
        f"about {duration(total)} here; on a processor {'without' if amx else 'with'} matrix "
        f"instructions (AMX) {duration(other[0])} to {duration(other[1])}"
    )
    console.note(f"about {disk / 1e6:,.0f} MB in {folder}; nothing was written")
    return {
        "recipe": recipe.model_dump(mode="json"),
        "seconds": seconds,
        "total_seconds": total,
        "other_processor_seconds": other,
        "bytes": round(disk),
    }


def _seconds(ctx: Context) -> dict[str, float]:
    recipe, data = ctx.recipe, ctx.data
    reals = TrainingData(real_pixels=data.train_pixels, real_labels=data.train_labels)
    with threads(ctx.threads):
        teacher = _step_seconds(ctx, reals, recipe.teacher.training)
        generator = _generator_step_seconds(ctx)
        embedding = _embedding_seconds(ctx)
    with threads(1):
        student = _student_step_seconds(ctx, reals, recipe.student.training)
    steps = max(recipe.student.steps)
    searched = len(recipe.student.learning_rates) * recipe.student.search_seeds
    rest = len(recipe.seeds) - recipe.student.search_seeds
    runs = {True: 0.0, False: 0.0}  # on real images alone, and with generated ones
    for arm in recipe.arms.values():
        runs[arm.selection is None] += arm.compute * (searched + max(rest, 0))
    runs[True] += searched * (sum(recipe.student.steps) / steps - 1)  # no-kd's other candidates
    samples = recipe.pool.per_label * len(pool_labels(ctx))
    # A pool sample costs about a third of a training image for each network's forward.
    sample = teacher / recipe.teacher.training.batch / 3
    neighbours = {"neighbours": samples * sample + _search_seconds(ctx, samples)}
    return {
        "teacher": 0.0 if recipe.teacher.weights else teacher * recipe.teacher.training.steps,
        "generator": 0.0
        if recipe.generator.weights
        else embedding + generator * recipe.generator.training.iterations,
        "pool, ratio and scores": samples
        * (generator / recipe.generator.training.batch + 3 * sample),
        **(neighbours if needs(recipe.policy) else {}),
        "students on real images": student * steps * runs[True] / ctx.workers,
        "students": student * steps * runs[False] / ctx.workers,
    }


def other_processor(seconds: float, amx: bool) -> tuple[float, float]:
    """Between how many and how many seconds the same takes on a processor of the other kind.

    >>> [round(bound) for bound in other_processor(100.0, amx=True)]
    [110, 180]
    """
    least, most = WITHOUT_AMX
    return (seconds * least, seconds * most) if amx else (seconds / most, seconds / least)


def side_by_side(seconds: dict[str, float], workers: int) -> float:
    """What a run takes on `workers` cores where the teacher and then the students on real images
    are trained beside the generator and what follows it. Students are given as all cores take.
    """
    teacher, reals, last = (
        seconds[name] for name in ("teacher", "students on real images", "students")
    )
    first = sum(seconds.values()) - teacher - reals - last
    return max(first, teacher + reals, (first + teacher) / workers + reals) + last


def _step_seconds(ctx: Context, data: TrainingData, training: StudentTraining) -> float:
    def timed(steps: int) -> float:
        start = time.perf_counter()
        train_network(
            data,
            training.model_copy(update={"steps": steps}),
            space=ctx.space,
            seed=0,
            device=ctx.device,
            precision=ctx.precision,
        )
        return time.perf_counter() - start

    timed(FEW)
    return max(timed(MORE) - timed(FEW), 0.0) / (MORE - FEW)


def _student_step_seconds(ctx: Context, data: TrainingData, training: StudentTraining) -> float:
    """A student's share of a step, of a pack where it trains in one."""
    if not trains_in_packs(training, None, ctx.image_shape[-1]):
        return _step_seconds(ctx, data, training)

    def timed(steps: int) -> float:
        start = time.perf_counter()
        member = Member(data, training.model_copy(update={"steps": steps}), seed=0)
        train_pack([member], space=ctx.space, device=ctx.device, precision=ctx.precision)
        return (time.perf_counter() - start) / MEMBERS

    timed(FEW)
    return max(timed(MORE) - timed(FEW), 0.0) / (MORE - FEW)


def _generator_step_seconds(ctx: Context) -> float:
    def timed(steps: int) -> float:
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            train_generator(
                ctx.data.train_pixels,
                ctx.data.train_labels,
                ctx.space,
                ctx.recipe.generator.network,
                ctx.recipe.generator.training,
                folder=Path(folder),
                seed=0,
                device=ctx.device,
                precision=ctx.precision,
                threads=ctx.threads,
                stop_after=steps,
                embedding_steps=1,
            )
        return time.perf_counter() - start

    timed(FEW)
    return max(timed(MORE) - timed(FEW), 0.0) / (MORE - FEW)


def _embedding_seconds(ctx: Context) -> float:
    """What the label embedding takes before the generator, by a few steps of its two networks."""
    if not isinstance(ctx.space, ContinuousLabels):
        return 0.0
    training, ends = ctx.recipe.generator.training.embedding, list[float]()
    train_label_embedding(
        torch.from_numpy(ctx.data.train_pixels).to(ctx.device),
        torch.from_numpy(ctx.space.targets(ctx.data.train_labels)).to(ctx.device),
        training,
        seed=0,
        stop_after=MORE,
        progress=lambda done, total, values: ends.append(time.perf_counter()),
    )
    # The first step of either network sets it up.
    of_images, of_labels = ends[: len(ends) // 2], ends[len(ends) // 2 :]
    return sum(
        steps * (times[-1] - times[0]) / max(len(times) - 1, 1)
        for steps, times in ((training.image_steps, of_images), (training.label_steps, of_labels))
    )


def _search_seconds(ctx: Context, samples: int) -> float:
    """Every sample is compared with all of its label, of continuous labels with those of the parts
    of the range beside its own; one block of them is timed.
    """
    group = samples / len(ctx.space.group_names)
    compared = 3 * group if isinstance(ctx.space, ContinuousLabels) else group
    random = np.random.default_rng(0)
    shape = BLOCK, min(ctx.recipe.ratio.features.dim, MOST)
    features = random.normal(size=shape).astype(np.float32)
    features[:1] @ features.T  # starts the library's threads
    start = time.perf_counter()
    features @ features.T
    return (time.perf_counter() - start) * samples * compared / BLOCK**2
