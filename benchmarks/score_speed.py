"""Scoring a pool against its networks' bare forward passes: `python -m benchmarks.score_speed RUN`.

RUN is a run folder whose pool, teacher and density ratio are done. Both sides use its networks and
shards in one process and alternate; the least processor time of each counts, without start-up and
the loading of the networks, which `pool_making` counts. Scored is all from tar to score tables.
"""

import argparse
import tempfile
from itertools import count
from pathlib import Path

import torch

from benchmarks.processor_time import least
from cgankd.app.console import Console
from cgankd.app.context import Context
from cgankd.app.recipe import load_recipe
from cgankd.curation.density_ratio.model import load_ratio
from cgankd.curation.scoring import ScoreJob, score_shard
from cgankd.nets.device import as_images
from cgankd.shardset.pool.plan import read_plan
from cgankd.shardset.pool.run_folder import RunFolder
from cgankd.shardset.pool.shards import read_shard

ROUNDS = 5
DEMANDED = 1.3  # at 8 px
CPU = torch.device("cpu")


def main() -> None:
    """Prints the processor seconds of both sides and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--shards", type=int, default=20, help="so many, from the first on")
    options = parser.parse_args()
    torch.set_num_threads(1)
    run = RunFolder.open(options.run)
    ctx = Context(run, load_recipe(str(run.path / "recipe.yaml")), CPU, Console(json=True))
    plan = read_plan(run.pool / "plan.json")
    shards = plan.shards[: options.shards]
    teacher, ratio = ctx.teacher_loader(), load_ratio(run.ratio, CPU)
    batches: list[tuple[torch.Tensor, torch.Tensor]] = []
    for spec in shards:
        pixels, rows = read_shard(run.pool, spec.index)
        images = as_images(pixels).contiguous(memory_format=torch.channels_last)
        labels = torch.from_numpy(rows["label"].to_numpy().copy())
        batches += zip(images.split(plan.batch), labels.split(plan.batch), strict=True)
    turns = count()
    with tempfile.TemporaryDirectory() as name:

        def bare() -> None:
            with torch.inference_mode():
                for images, labels in batches:
                    teacher(images)
                    ratio.ratios(images, labels)

        def scored() -> None:
            folder = Path(name) / f"scores-{next(turns)}"
            for spec in shards:
                score_shard(
                    ScoreJob(
                        pool_folder=run.pool,
                        scores_folder=folder,
                        index=spec.index,
                        fingerprint="benchmark",
                        load_teacher=ctx.teacher_loader,
                        ratio_folder=run.ratio,
                        device="cpu",
                        batch=plan.batch,
                        space=ctx.space,
                    )
                )

        (_, passes), (_, whole) = least(ROUNDS, bare, scored)
    samples, size = sum(spec.count for spec in shards), ctx.image_shape[-1]
    print(f"{samples:,} images of {size} px, processor seconds:")
    print(f"bare forward passes  {passes:8.2f} s")
    print(f"scored               {whole:8.2f} s")
    print(f"ratio                {whole / passes:8.2f}  (demanded at 8 px: at most {DEMANDED:.2f})")


if __name__ == "__main__":
    main()
