"""What tests stand on: tiny pools and releases here; a Hub on this machine in `hub_server`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import TypeAdapter

from cgankd.shardset.files import canonical_json, write_json
from cgankd.shardset.identity import latents, pool_id, uniforms
from cgankd.shardset.images import encode_png, pixel_sha256
from cgankd.shardset.labels import ClassLabels, ContinuousLabels, LabelSpace
from cgankd.shardset.pool.plan import PerLabel, Plan, make_plan, write_plan
from cgankd.shardset.pool.shards import PoolShardWriter, marker_name
from cgankd.shardset.release.build import ReleaseFacts, Sources, build_release
from cgankd.shardset.release.manifest import Lineage, write_pool_manifest
from cgankd.shardset.tables import read_numbered, table_name, write_table

FINGERPRINT = "0" * 64


def tiny_space(classes: int = 3) -> ClassLabels:
    """Classes named `class 0`, `class 1`, …"""
    return ClassLabels(names=tuple(f"class {label}" for label in range(classes)))


def tiny_continuous_space() -> ContinuousLabels:
    """Angles from −60 to 60 degrees, in 4 parts."""
    return ContinuousLabels(unit="degrees", low=-60, high=60, groups=4)


def tiny_plan(per_label: int = 8, classes: int = 3, *, seed: int = 0, shard_size: int = 10) -> Plan:
    """A plan of `per_label` samples for each class."""
    return _tiny_plan(dict.fromkeys(range(classes), per_label), seed, shard_size)


def tiny_continuous_plan(
    per_label: int = 2, labels: int = 12, *, seed: int = 0, shard_size: int = 10
) -> Plan:
    """A plan of `per_label` samples for each of equally spaced labels of the continuous space."""
    space = tiny_continuous_space()
    values = np.linspace(space.low, space.high, labels).tolist()
    return _tiny_plan(dict.fromkeys(values, per_label), seed, shard_size)


def _tiny_plan(per_label: PerLabel, seed: int, shard_size: int) -> Plan:
    return make_plan(
        seed=seed,
        pool_id=pool_id(FINGERPRINT, seed, 1),
        shard_size=shard_size,
        batch=4,
        threads=1,
        precision="float32",
        per_label=per_label,
    )


def tiny_pixels(plan: Plan, key: int, label: float, size: int = 8, channels: int = 1) -> np.ndarray:
    """The pixels uint8 `[channels, size, size]` of a key: a row as bright as noise allows, whose
    height tells the class, or the part of the range.
    """
    if isinstance(label, float):
        label = int(tiny_continuous_space().scaled(np.array(label)) * (size - 1))
    noise = latents(plan.seed, key, 1, channels * size * size).reshape(channels, size, size)
    noise = noise * 20 + 60
    noise[:, int(label) % size] += 120
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
        wrong = uniforms(plan.seed, spec.first_key, spec.count, "tiny mistakes") < 0.1
        of_teacher = _tiny_classes if labels.dtype == np.int64 else _tiny_numbers
        table = pa.table(
            {
                "key": np.arange(spec.first_key, spec.first_key + spec.count),
                "label": labels,
                "density_ratio": np.exp(0.5 * normals[:, 0] - 0.125).astype(np.float32),
                **of_teacher(labels, normals, wrong),
                "status": ["ok"] * len(labels),
            }
        )
        write_table(folder / table_name(spec.index), table)
        write_json(folder / marker_name(spec.index), {"fingerprint": FINGERPRINT})


def _tiny_classes(labels: np.ndarray, normals: np.ndarray, wrong: np.ndarray) -> dict[str, Any]:
    logits = normals + 4 * np.eye(normals.shape[1])[labels]
    logits[wrong] = np.roll(logits[wrong], 1, axis=1)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return {
        "teacher_label": logits.argmax(axis=1),
        "teacher_error": -log_p[np.arange(len(labels)), labels].astype(np.float32),
        "teacher_entropy": -(np.exp(log_p) * log_p).sum(axis=1).astype(np.float32),
        "teacher_logits": pa.array(list(logits.astype(np.float16)), pa.list_(pa.float16())),
    }


def _tiny_numbers(labels: np.ndarray, normals: np.ndarray, wrong: np.ndarray) -> dict[str, Any]:
    space = tiny_continuous_space()
    values = np.where(wrong, -labels, labels) + normals[:, 1]
    values = np.clip(values, space.low, space.high)
    errors = np.abs(values - labels).astype(np.float32)
    return {"teacher_value": values, "teacher_error": errors}


def write_tiny_selection(path: Path, scores: Path) -> None:
    """A selection that keeps the samples which the teacher agrees with, with their labels; for
    numbers, to 10 degrees.
    """
    table = read_numbered(scores)
    if "teacher_label" in table.column_names:
        kept = table["label"].to_numpy() == table["teacher_label"].to_numpy()
    else:
        kept = table["teacher_error"].to_numpy() < 10
    columns = {
        "key": table["key"],
        "kept": kept,
        "reason": [None if keep else "teacher" for keep in kept],
        "label": table["label"],
        "original_label": table["label"],
    }
    write_table(path, pa.table(columns), {"policy": {"filter": "agreement"}})


def tiny_facts(classes: int = 3, *, space: LabelSpace | None = None) -> dict[str, Any]:
    """Lineage facts of the kinds that a release has."""
    return {
        "name": "tiny",
        "space": (space or tiny_space(classes)).model_dump(mode="json"),
        "license": "cc0-1.0",
        "seeds": {"run": 0},
        "normalisation": {"range": [-1, 1]},
        "weights": {"generator": FINGERPRINT, "teacher": "1" * 64, "ratio": None},
        "ratio_problems": ["mean ratio 0.2, expected 1"],
        "policy": {"filter": "agreement"},
        "real": {"spec": "digits", "revision": None, "fingerprint": "2" * 64, "split_seed": 0},
    }


def described(facts: Mapping[str, Any]) -> tuple[LabelSpace, Lineage]:
    """The label space among facts, and the lineage that the others are."""
    space = TypeAdapter[LabelSpace](LabelSpace).validate_python(facts["space"])
    lineage = {name: value for name, value in facts.items() if name != "space"}
    return space, Lineage.model_validate_json(canonical_json(lineage))


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
    continuous = isinstance(next(iter(plan.planned)), float)
    space = tiny_continuous_space() if continuous else tiny_space(len(plan.planned))
    write_tiny_scores(run / "scores", plan)
    write_tiny_selection(run / "selections" / "cgan-kd.parquet", run / "scores")
    selection = run / "selections" / "cgan-kd.parquet"
    about = described(facts or tiny_facts(space=space))
    sources = Sources(run / "pool", run / "scores", selection, *about, include_rejected)
    return build_release(out, version, sources)
