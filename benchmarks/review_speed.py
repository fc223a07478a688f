"""The review app on a million samples in 200 shards: `python -m benchmarks.review_speed`."""

import argparse
import multiprocessing
import os
import resource
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.select_speed import near_duplicates
from cgankd.app.review.policy import counted, preview, spread
from cgankd.app.review.sample import sample, thumbnails
from cgankd.app.review.state import Filter, ReviewState, matching, ordered, page
from cgankd.app.review.subject import SCORES
from cgankd.curation.policies import Policy
from cgankd.curation.policies.neighbour_rules import Duplicates
from cgankd.curation.policies.quotas import LowestKeys
from cgankd.curation.policies.rule import Scores
from cgankd.curation.policies.selection import select
from cgankd.curation.policies.subsampling import BudgetedRejection
from cgankd.curation.policies.teacher_rules import Band, Quantile
from cgankd.shardset.identity import uniforms
from cgankd.shardset.images import encode_png
from cgankd.shardset.labels import ClassLabels
from cgankd.shardset.pool.plan import make_plan, write_plan
from cgankd.shardset.pool.run_folder import RunFolder
from cgankd.shardset.pool.shards import PoolShardWriter, tar_name
from cgankd.shardset.records import NeighbourFacts, PoolFacts, RatioFacts, ScoreFacts
from cgankd.shardset.tables import read_metadata, read_table, table_name, write_table

SHARDS = 200
CLASSES = 100
PAGE = 200


def write_run(folder: Path, rows: int, shards: int = SHARDS) -> None:
    """A run as the app reads it: plan, pool, scores with logits, neighbours and a selection.

    Every tar is the same file of a few repeated 8 × 8 images, linked, so that a million samples
    take megabytes; rows, scores and neighbours are written in full.
    """
    run, size = RunFolder.open(folder, create=True), rows // shards
    space = ClassLabels(names=tuple(f"class {label}" for label in range(CLASSES)))
    plan = make_plan(
        seed=1,
        pool_id="0" * 16,
        shard_size=size,
        batch=250,
        threads=1,
        precision="float32",
        per_label=dict.fromkeys(range(CLASSES), rows // CLASSES),
    )
    write_plan(run.pool / "plan.json", plan)
    run.record(source={"spec": "none", "space": space.model_dump(mode="json")})
    pool = PoolFacts(
        pool_id=plan.pool_id, samples=rows, rounds=1, shards=len(plan.shards), manifest_sha256="0"
    )
    ratio_facts = RatioFacts(
        sha256="0",
        problems=(),
        per_label=(),
        overall={},
        raw_mean=None,
        steps=0,
        strength=1.0,
    )
    run.finish_stage("pool", {}, pool.model_dump(mode="json"))
    run.finish_stage("ratio", {}, ratio_facts.model_dump(mode="json"))
    random = np.random.default_rng(0)
    pngs = [encode_png(pixels) for pixels in random.integers(256, size=(50, 1, 8, 8), dtype="u1")]
    with PoolShardWriter(run.pool, 0, "f") as writer:
        for key in range(size):
            writer.add(key, pngs[key % len(pngs)], 0, 0, "0" * 64, plan.seed, plan.pool_id)
    first = read_table(run.pool / table_name(0))
    metadata = read_metadata(run.pool / table_name(0))
    columns: dict[str, list[np.ndarray]] = {"ratio": [], "told": [], "error": []}
    for spec in plan.shards:
        labels = plan.labels(spec)
        keys = np.arange(spec.first_key, spec.first_key + spec.count)
        new = {"key": keys, "shard": np.full(size, spec.index, np.int32), "label": labels}
        table = first
        for name, values in {**new, "condition": labels}.items():
            table = table.set_column(table.column_names.index(name), name, pa.array(values))
        if spec.index:
            os.link(run.pool / tar_name(0), run.pool / tar_name(spec.index))
        write_table(run.pool / table_name(spec.index), table, metadata)
        logits = random.standard_normal((size, CLASSES), np.float32)
        logits[np.arange(size), labels] += 4
        told, ratio = logits.argmax(1), random.lognormal(size=size).astype(np.float32)
        error = random.exponential(size=size).astype(np.float32)
        for name, values in {"ratio": ratio, "told": told, "error": error}.items():
            columns[name].append(values)
        flat = pa.array(logits.astype(np.float16).ravel())
        scored = {
            "key": keys,
            "label": labels,
            "density_ratio": ratio,
            "teacher_label": told,
            "teacher_error": error,
            "teacher_entropy": random.random(size, np.float32),
            "teacher_logits": pa.FixedSizeListArray.from_arrays(flat, CLASSES).cast(
                pa.list_(pa.float16())
            ),
            "status": pa.array(["ok"] * size),
        }
        write_table(run.scores / table_name(spec.index), pa.table(scored))
    run.finish_stage("scores", {}, ScoreFacts(rows=rows, sha256="0").model_dump(mode="json"))
    labels = np.concatenate([plan.labels(spec) for spec in plan.shards])
    neighbours = near_duplicates(rows, CLASSES, random)
    write_table(
        run.path / "neighbours.parquet",
        neighbours.table(labels),
        {"thresholds": neighbours.thresholds.model_dump(mode="json")},
    )
    write_table(run.neighbours / "columns.parquet", neighbours.columns())
    facts = NeighbourFacts(rows=rows, pairs=len(neighbours.key_a), pool_sha256="0", sha256="0")
    run.finish_stage("neighbours", {}, facts.model_dump(mode="json"))
    scores = Scores(
        key=neighbours.key,
        label=labels,
        group=labels,
        ratio=np.concatenate(columns["ratio"]).astype(np.float64),
        teacher_label=np.concatenate(columns["told"]),
        teacher_error=np.concatenate(columns["error"]).astype(np.float64),
        scored=np.ones(rows, bool),
    )
    drawn = uniforms(plan.seed, 0, rows, "accept")
    selection = select(scores, Policy(), drawn, np.ones(rows, bool))
    path = run.selections / "cgan-kd.parquet"
    write_table(path, selection.table(), {"policy": Policy().model_dump(mode="json")})


def main() -> None:
    """Prints the seconds of what a reviewer waits for, and the peak memory of a fresh process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where the run lies, or is made; a new one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "run"
        if not (folder / "selections").is_dir():
            # In a process of its own: making the run is not what is measured.
            maker = multiprocessing.get_context("spawn").Process(
                target=write_run, args=(folder, options.rows)
            )
            maker.start()
            maker.join()
        with tempfile.TemporaryDirectory() as reviews:
            measure(folder, Path(reviews))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory {peak:.2f} GiB  (demanded: at most 1.5 GiB)")


def measure(folder: Path, reviews: Path) -> None:
    """Each step as a page does it, against what is demanded of it."""
    begun = time.perf_counter()
    state = timed("open", 3, lambda: ReviewState.open(folder, reviews=reviews))
    subject = state.subject

    def shown(wanted: Filter, by: str, number: int = 0) -> np.ndarray:
        mask = matching(subject, state.verdict, wanted)
        return page(ordered(subject, state.verdict, mask, by, True), number, PAGE)

    def first_page() -> None:
        counted(subject)
        thumbnails(subject, shown(Filter(), "key"))

    timed(f"first page of {PAGE} thumbnails", 3, first_page)
    print(f"{time.perf_counter() - begun:5.2f} s  first page with opening (demanded: 3 s)")
    wanted = Filter(
        kept=True,
        ranges=(("teacher_error", 0.1, 1.0), ("density_ratio", 0.5, 3.0)),
        teacher_disagrees=False,
        duplicates=True,
    )
    timed("filter by four columns, first of them", 1, lambda: shown(wanted, "key"))
    rows = timed("sort all by a score", 1, lambda: shown(Filter(), "teacher_error"))
    timed(f"its {PAGE} thumbnails, from {len(set(rows // 5000))} shards", 1,
          lambda: thumbnails(subject, rows))  # fmt: skip
    timed("counts and five distributions", 1, lambda: [counted(subject)]
          + [spread(subject, subject, score) for score in SCORES])  # fmt: skip
    timed("one sample with all that is known", 1, lambda: sample(subject, int(rows[0])))
    timed("one verdict", 1, lambda: state.give(rows[:1], "accept", reviewer="me"))
    some = np.flatnonzero(subject.duplicate_group >= 0)
    timed(f"one verdict on {len(some):,}", 3, lambda: state.give(some, "flag", reviewer="me"))
    for policy in (
        Policy(filter=Quantile(rho=0.7)),
        Policy(subsample=BudgetedRejection(accept=0.3), quota=LowestKeys(size=1000)),
        Policy(duplicates=Duplicates()),
        Policy(filter=Band(low=0.2)),
    ):
        rules = policy.model_dump(exclude_none=True)
        timed(f"policy {rules}", 1, partial(preview, subject, policy, state.reviews()))


def timed(name: str, demanded: float, work: Callable[[], Any]) -> Any:
    """What the work returns; prints its seconds."""
    start = time.perf_counter()
    result = work()
    print(f"{time.perf_counter() - start:5.2f} s  {name}  (demanded: {demanded} s)")
    return result


if __name__ == "__main__":
    main()
