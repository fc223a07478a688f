"""The images that students train on, decoded once and mapped by every worker."""

from pathlib import Path

import numpy as np

from cgankd.app.context import REAL_OUTPUTS, Context, save_array
from cgankd.shardset.files import read_json, write_json
from cgankd.shardset.pool.plan import read_plan
from cgankd.shardset.pool.shards import read_shard
from cgankd.shardset.records import PoolFacts, ScoreFacts, TeacherFacts
from cgankd.shardset.tables import read_logits


def write_arrays(ctx: Context) -> Path:
    """The folder of the images that students train on, decoded once and mapped by every worker."""
    folder, data = ctx.run.students / "arrays", ctx.data
    plan = read_plan(ctx.run.pool / "plan.json")
    fields = {
        **ctx.real_fields,
        "pool": ctx.run.read_facts("pool", PoolFacts).manifest_sha256,
        "scores": ctx.run.read_facts("scores", ScoreFacts).sha256,
        "teacher": ctx.run.read_facts("teacher", TeacherFacts).sha256,
    }
    marker = folder / "done.json"
    if marker.is_file() and read_json(marker) == fields:
        return folder
    marker.unlink(missing_ok=True)
    pool = [read_shard(ctx.run.pool, spec.index)[0] for spec in plan.shards]
    arrays = {
        "train_pixels": data.train_pixels,
        "train_labels": data.train_labels,
        "train_logits": np.load(ctx.run.teacher / REAL_OUTPUTS),
        "validation_pixels": data.validation_pixels,
        "validation_labels": data.validation_labels,
        "all_pixels": data.all_train_pixels,
        "all_labels": data.all_train_labels,
        "pool_pixels": np.concatenate(pool),
    }
    if ctx.recipe.task == "classification":
        arrays["pool_logits"] = read_logits(ctx.run.scores).astype(np.float32)
    for name, values in arrays.items():
        save_array(folder / f"{name}.npy", values)
    write_json(marker, fields)
    return folder


def array(folder: Path, name: str) -> np.ndarray:
    """An array of `write_arrays`, mapped from its folder."""
    # Copy on write: torch takes writable arrays only, and nobody writes.
    return np.load(folder / f"{name}.npy", mmap_mode="c", allow_pickle=False)
