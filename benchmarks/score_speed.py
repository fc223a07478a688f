"""Scoring a pool against its networks' bare forward passes: `python -m benchmarks.score_speed RUN`.

RUN is a run folder whose pool and density ratio are done. The teacher is resnet32x4 (untrained:
logits cost what they cost). Both sides run on as many worker processes as there are cores, one
thread each, on the same shards; they alternate and the best of each counts.
"""

import argparse
import os
import tempfile
import time
from functools import partial
from pathlib import Path

import torch

from cgankd.app.context import resolve_precision
from cgankd.app.engine import map_jobs
from cgankd.curation.density_ratio.model import load_ratio
from cgankd.curation.scoring import ScoreJob, score_shard
from cgankd.nets.device import as_images
from cgankd.nets.networks import build_network, save_network
from cgankd.shardset.pool.plan import read_plan
from cgankd.shardset.pool.shards import read_shard
from cgankd.student.teacher import load_teacher

ROUNDS = 2


def bare_passes(job: ScoreJob) -> float:
    """Seconds of one shard's forward passes through both networks and nothing else."""
    torch.set_num_threads(1)
    pixels, rows = read_shard(job.pool_folder, job.index)
    images, labels = as_images(pixels), torch.from_numpy(rows["label"].to_numpy().copy())
    images = images.contiguous(memory_format=torch.channels_last)
    teacher = job.load_teacher()
    ratio = load_ratio(job.ratio_folder, torch.device("cpu")) if job.ratio_folder else None
    teacher(images[: job.batch])
    start = time.perf_counter()
    for first in range(0, len(images), job.batch):
        teacher(images[first : first + job.batch])
        if ratio is not None:
            with torch.inference_mode():
                ratio.ratios(images[first : first + job.batch], labels[first : first + job.batch])
    return time.perf_counter() - start


def whole_shard(job: ScoreJob) -> float:
    """Seconds of scoring one shard, from tar to marker, after a shard that loaded the networks."""
    torch.set_num_threads(1)
    score_shard(job)
    for path in job.scores_folder.glob(f"{job.index:06d}.*"):
        path.unlink()
    start = time.perf_counter()
    score_shard(job)
    return time.perf_counter() - start


def main() -> None:
    """Prints images per second of both sides and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--shards", type=int, default=2)
    options = parser.parse_args()
    plan = read_plan(options.run / "pool" / "plan.json")
    pixels, _ = read_shard(options.run / "pool", 0)
    _, channels, size, _ = pixels.shape
    space = load_ratio(options.run / "ratio", torch.device("cpu")).space
    workers = os.cpu_count() or 1
    shape = {"outputs": space.outputs, "channels": channels, "size": size}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        save_network(
            root / "teacher", build_network("resnet32x4", **shape), name="resnet32x4", **shape
        )
        best = {"bare": 0.0, "scored": 0.0}
        for turn in range(ROUNDS):
            jobs = [
                ScoreJob(
                    pool_folder=options.run / "pool",
                    scores_folder=root / f"scores-{turn}",
                    index=spec.index,
                    fingerprint="benchmark",
                    load_teacher=partial(
                        load_teacher,
                        str(root / "teacher"),
                        **shape,
                        device=torch.device("cpu"),
                        precision=resolve_precision("auto", torch.device("cpu"), size),
                    ),
                    ratio_folder=options.run / "ratio",
                    device="cpu",
                    batch=plan.batch,
                    space=space,
                )
                for spec in plan.shards[: options.shards]
            ]
            samples = sum(spec.count for spec in plan.shards[: options.shards])
            for side, function in (("bare", bare_passes), ("scored", whole_shard)):
                seconds = map_jobs(function, jobs, workers=workers)
                best[side] = max(best[side], workers * samples / sum(seconds))
    print(f"bare forward passes  {best['bare']:8,.0f} images/s")
    print(f"scored               {best['scored']:8,.0f} images/s")
    print(f"ratio                {best['scored'] / best['bare']:8.2f}  (demanded: 0.80)")


if __name__ == "__main__":
    main()
