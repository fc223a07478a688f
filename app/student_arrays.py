"""The images that students train on, decoded once and mapped by every worker."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from cgankd.app.context import REAL_OUTPUTS, Context, Facts, save_array
from cgankd.shardset.files import read_json, write_json
from cgankd.shardset.pool.plan import read_plan
from cgankd.shardset.pool.shards import read_shard
from cgankd.shardset.records import PoolFacts, ScoreFacts, TeacherFacts
from cgankd.shardset.tables import read_logits


def write_reals(ctx: Context) -> Path:
    """The folder of the images that students train on, with the real ones in it."""
    data = ctx.data
    fields = {
        **ctx.real_fields,
        "teacher": ctx.run.read_facts("teacher", TeacherFacts).sha256,
    }

    def arrays() -> dict[str, np.ndarray]:
        return {
            "train_pixels": data.train_pixels,
            "train_labels": data.train_labels,
            "train_logits": np.load(ctx.run.teacher / REAL_OUTPUTS),
            "validation_pixels": data.validation_pixels,
            "validation_labels": data.validation_labels,
            "all_pixels": data.all_train_pixels,
            "all_labels": data.all_train_labels,
        }

    return _written(ctx.run.students / "arrays", "reals", fields, arrays)


def write_arrays(ctx: Context) -> Path:
    """The same folder, with the pool's images in it too."""
    fields = {
        "pool": ctx.run.read_facts("pool", PoolFacts).manifest_sha256,
        "scores": ctx.run.read_facts("scores", ScoreFacts).sha256,
    }

    def arrays() -> dict[str, np.ndarray]:
        shards = read_plan(ctx.run.pool / "plan.json").shards
        pixels = [read_shard(ctx.run.pool, spec.index)[0] for spec in shards]
        arrays = {"pool_pixels": np.concatenate(pixels)}
        if ctx.recipe.task == "classification":
            arrays["pool_logits"] = read_logits(ctx.run.scores).astype(np.float32)
        return arrays

    return _written(write_reals(ctx), "pool", fields, arrays)


def _written(
    folder: Path, name: str, fields: Facts, arrays: Callable[[], dict[str, np.ndarray]]
) -> Path:
    """The folder, with these arrays in it; they are not written where their marker matches."""
    marker = folder / f"{name}.json"
    if not marker.is_file() or read_json(marker) != fields:
        marker.unlink(missing_ok=True)
        for array_name, values in arrays().items():
            save_array(folder / f"{array_name}.npy", values)
        write_json(marker, fields)
    return folder


def array(folder: Path, name: str) -> np.ndarray:
    """An array of `write_arrays`, mapped from its folder."""
    # Copy on write: torch takes writable arrays only, and nobody writes.
    return np.load(folder / f"{name}.npy", mmap_mode="c", allow_pickle=False)
