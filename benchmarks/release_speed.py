"""Building a release against decoding and encoding every PNG again: `python -m
benchmarks.release_speed [--images N]`.

A pool of 32 × 32 px colour images is written first, with scores and a selection that keeps them
all. Both sides then build the whole release, every hash checked, on as many workers as there are
cores; they differ in one function, which hands the PNG bytes on or decodes and encodes them with
this package's own codec. They alternate; the best of each counts.
"""

import argparse
import math
import os
import shutil
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow as pa

from cgankd.shardset.identity import pool_id
from cgankd.shardset.images import decode_png, encode_png, encode_pngs, pixel_sha256
from cgankd.shardset.labels import ClassLabels
from cgankd.shardset.pool.plan import PLAN_VERSION, Plan, make_plan, write_plan
from cgankd.shardset.pool.shards import PoolShardWriter
from cgankd.shardset.release import tables as release_tables
from cgankd.shardset.release.build import Sources, build_release
from cgankd.shardset.release.manifest import Lineage
from cgankd.shardset.tables import table_name, write_table

CLASSES, SIZE, SHARD = 10, 32, 10_000
ROUNDS = 3
SPACE = ClassLabels(names=tuple(map(str, range(CLASSES))))


def write_run(root: Path, images: int) -> Plan:
    """The plan of a pool of smooth random pictures, with its score tables and a selection."""
    plan = make_plan(
        seed=0,
        pool_id=pool_id("0" * 64, 0, PLAN_VERSION),
        shard_size=SHARD,
        batch=250,
        threads=1,
        precision="float32",
        per_label=dict.fromkeys(range(CLASSES), images // CLASSES),
    )
    write_plan(root / "pool" / "plan.json", plan)
    draws = np.random.default_rng(0)
    for spec in plan.shards:
        labels = plan.labels(spec)
        with PoolShardWriter(root / "pool", spec.index, "benchmark") as writer:
            for first in range(0, spec.count, 1000):
                part = labels[first : first + 1000].tolist()
                pixels = pictures(draws, len(part))
                for row, png in enumerate(encode_pngs(pixels)):
                    key = spec.first_key + first + row
                    digest = pixel_sha256(pixels[row])
                    writer.add(key, png, part[row], part[row], digest, plan.seed, plan.pool_id)
        logits = draws.normal(size=(spec.count, CLASSES)).astype(np.float16)
        columns = {
            "key": np.arange(spec.first_key, spec.first_key + spec.count),
            "label": labels,
            "density_ratio": draws.random(spec.count, np.float32),
            "teacher_label": labels,
            "teacher_error": draws.random(spec.count, np.float32),
            "teacher_entropy": draws.random(spec.count, np.float32),
            "teacher_logits": pa.array(list(logits), pa.list_(pa.float16())),
            "status": ["ok"] * spec.count,
        }
        write_table(root / "scores" / table_name(spec.index), pa.table(columns))
    keys = np.arange(plan.count)
    chosen = {
        "key": keys,
        "kept": np.ones(plan.count, bool),
        "reason": pa.nulls(plan.count, pa.string()),
        "label": np.concatenate([plan.labels(spec) for spec in plan.shards]),
    }
    write_table(root / "selection.parquet", pa.table(chosen), {"policy": {}})
    return plan


def pictures(draws: np.random.Generator, count: int) -> np.ndarray:
    """Pixels uint8 `[count, 3, 32, 32]` that compress about as photographs do."""
    coarse = draws.integers(40, 216, (count, 3, SIZE // 8, SIZE // 8))
    smooth = coarse.repeat(8, axis=2).repeat(8, axis=3)
    return (smooth + draws.integers(-8, 9, (count, 3, SIZE, SIZE))).astype(np.uint8)


def coded_again(images: pa.StructArray) -> pa.StructArray:
    """The same images, each decoded and encoded."""
    pngs = [encode_png(decode_png(png)) for png in images.field("bytes").to_pylist()]
    return pa.StructArray.from_arrays(
        [pa.array(pngs, pa.binary()), images.field("path")], ["bytes", "path"]
    )


def seconds_of(root: Path, workers: int) -> float:
    """Seconds of building the release, which is then removed."""
    out = root / "release"
    run = (root / "pool", root / "scores", root / "selection.parquet")
    start = time.perf_counter()
    build_release(out, "v1.0.0", Sources(*run, SPACE, Lineage(), False), workers=workers)
    seconds = time.perf_counter() - start
    shutil.rmtree(out)
    return seconds


def main() -> None:
    """Prints seconds and images per second of both sides, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    plain = release_tables.images_of
    best = {"passed": math.inf, "coded": math.inf}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        plan = write_run(root, options.images)
        for _ in range(ROUNDS):
            best["passed"] = min(best["passed"], seconds_of(root, options.workers))
            with patch.object(
                release_tables, "images_of", lambda pool, rows: coded_again(plain(pool, rows))
            ):
                best["coded"] = min(best["coded"], seconds_of(root, options.workers))
    print(f"PNG bytes passed on     {best['passed']:8.2f} s {plan.count / best['passed']:9,.0f}/s")
    print(f"decoded, encoded again  {best['coded']:8.2f} s {plan.count / best['coded']:9,.0f}/s")
    print(f"ratio                   {best['passed'] / best['coded']:8.2f}    (demanded: 0.33)")


if __name__ == "__main__":
    main()
