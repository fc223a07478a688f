"""Tiny pools, scores, selections and releases for tests: real files, made in milliseconds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from shardset.files import write_json
from shardset.identity import latents, pool_id, uniforms
from shardset.images import encode_png, pixel_sha256
from shardset.labels import ClassLabels
from shardset.manifest import write_pool_manifest
from shardset.plan import Plan, make_plan, write_plan
from shardset.release import ReleaseFacts, build_release
from shardset.shards import PoolShardWriter, marker_name
from shardset.tables import read_numbered, table_name, write_table

FINGERPRINT = "0" * 64


def tiny_space(classes: int = 3) -> ClassLabels:
    """Classes named `class 0`, `class 1`, …"""
    return ClassLabels(names=tuple(f"class {label}" for label in range(classes)))


def tiny_plan(per_label: int = 8, classes: int = 3, *, seed: int = 0, shard_size: int = 10) -> Plan:
    """A plan of `per_label` samples for each class."""
    return make_plan(
        seed=seed,
        pool_id=pool_id(FINGERPRINT, seed, 1),
        shard_size=shard_size,
        batch=4,
        threads=1,
        precision="float32",
        per_label=dict.fromkeys(range(classes), per_label),
    )


def tiny_pixels(plan: Plan, key: int, label: int, size: int = 8, channels: int = 1) -> np.ndarray:
    """The pixels uint8 `[channels, size, size]` of a key: a row as bright as noise allows, whose
    height tells the class.
    """
    noise = latents(plan.seed, key, 1, channels * size * size).reshape(channels, size, size)
    noise = noise * 20 + 60
    noise[:, label % size] += 120
    return np.clip(np.rint(noise), 0, 255).astype(np.uint8)


def write_tiny_pool(
    folder: Path, plan: Plan | None = None, *, size: int = 8, channels: int = 1
) -> Plan:
    """The plan of a finished pool written to `folder`."""
    plan = plan or tiny_plan()
    write_plan(folder / "plan.json", plan)
    for spec in plan.shards:
        with PoolShardWriter(folder, spec.index, FINGERPRINT) as writer:
            for key, label in enumerate(plan.labels(spec).tolist(), start=spec.first_key):
                pixels = tiny_pixels(plan, key, label, size, channels)
                digest = pixel_sha256(pixels)
                png = encode_png(pixels)
                writer.add(key, png, label, label, digest, plan.seed, plan.pool_id)
    write_pool_manifest(folder, plan)
    return plan


def write_tiny_scores(folder: Path, plan: Plan) -> None:
    """Score tables for a plan's shards: a teacher that is right nine times in ten, ratios that are
    log-normal with mean 1.
    """
    classes = len(plan.planned)
    for spec in plan.shards:
        labels = plan.labels(spec)
        normals = latents(plan.seed + 1, spec.first_key, spec.count, classes).astype(np.float64)
        logits = normals + 4 * np.eye(classes)[labels]
        wrong = uniforms(plan.seed, spec.first_key, spec.count, "tiny mistakes") < 0.1
        logits[wrong] = np.roll(logits[wrong], 1, axis=1)
        log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        table = pa.table(
            {
                "key": np.arange(spec.first_key, spec.first_key + spec.count),
                "label": labels,
                "density_ratio": np.exp(0.5 * normals[:, 0] - 0.125).astype(np.float32),
                "teacher_label": logits.argmax(axis=1),
                "teacher_error": -log_p[np.arange(len(labels)), labels].astype(np.float32),
                "teacher_entropy": -(np.exp(log_p) * log_p).sum(axis=1).astype(np.float32),
                "teacher_logits": pa.array(list(logits.astype(np.float16)), pa.list_(pa.float16())),
                "status": ["ok"] * len(labels),
            }
        )
        write_table(folder / table_name(spec.index), table)
        write_json(folder / marker_name(spec.index), {"fingerprint": FINGERPRINT})


def write_tiny_selection(path: Path, scores: Path) -> None:
    """A selection that keeps the samples which the teacher agrees with, with their labels."""
    table = read_numbered(scores, ["key", "label", "teacher_label"])
    kept = table["label"].to_numpy() == table["teacher_label"].to_numpy()
    columns = {
        "key": table["key"],
        "kept": kept,
        "reason": [None if keep else "teacher" for keep in kept],
        "label": table["label"],
        "original_label": table["label"],
    }
    write_table(path, pa.table(columns), {"policy": {"filter": "agreement"}})


def tiny_facts(classes: int = 3) -> dict[str, Any]:
    """Lineage facts of the kinds that a release has."""
    return {
        "name": "tiny",
        "space": tiny_space(classes).model_dump(mode="json"),
        "license": "cc0-1.0",
        "seeds": {"run": 0},
        "normalisation": {"range": [-1, 1]},
        "weights": {"generator": FINGERPRINT, "teacher": "1" * 64, "ratio": None},
        "ratio_problems": ["mean ratio 0.2, expected 1"],
        "policy": {"filter": "agreement"},
        "real": {"spec": "digits", "revision": None, "fingerprint": "2" * 64, "split_seed": 0},
    }


def write_tiny_release(
    out: Path,
    version: str = "v1.0.0",
    *,
    plan: Plan | None = None,
    include_rejected: bool = True,
    facts: Mapping[str, Any] | None = None,
) -> ReleaseFacts:
    """A release in `out/version`, with its pool, scores and selection in `out/run`."""
    run = out / "run"
    plan = write_tiny_pool(run / "pool", plan)
    write_tiny_scores(run / "scores", plan)
    write_tiny_selection(run / "selections" / "cgan-kd.parquet", run / "scores")
    return build_release(
        out,
        version,
        run / "pool",
        run / "scores",
        run / "selections" / "cgan-kd.parquet",
        facts or tiny_facts(len(plan.planned)),
        include_rejected,
    )
