"""From a selection to a release folder, with everything that led to it."""

from pathlib import Path

import numpy as np

from app.context import Context, Facts
from shardset.errors import BadInput
from shardset.manifest import salted_hashes
from shardset.release import build_release, release_facts
from shardset.tables import read_metadata

SALT_LABEL = "cgan-kd real images"


def build(ctx: Context, version: str, selection: str, include_rejected: bool) -> Facts:
    """Facts of the release of a selection; one that this run built before is not built again."""
    run = ctx.run
    table = run.selections / f"{selection}.parquet"
    lineage = lineage_of(ctx, selection)
    chosen_by = read_metadata(table).get("groups")
    if chosen_by not in (None, list(ctx.space.group_names)):
        raise BadInput(
            f"{table} was selected by {len(chosen_by)} parts of the label range, the recipe has "
            f"{len(ctx.space.group_names)}; select again with the recipe's label.groups"
        )
    fields = {
        "selection_sha256": run.stage_facts(f"selections/{selection}")["sha256"],
        "include_rejected": include_rejected,
        "lineage": lineage,
    }
    stage = f"release/{version}"
    if ctx.is_done(stage, fields) and (run.release / version).is_dir():
        facts = release_facts(run.release / version)
    else:
        run.drop_stage(stage)  # a folder without its marker: this run was killed between the two
        facts = build_release(
            run.release, version, run.pool, run.scores, table, lineage, include_rejected
        )
    plain = {
        "folder": str(facts.folder),
        "version": facts.version,
        "accepted": facts.accepted,
        "rejected": facts.rejected,
        "bytes": facts.bytes,
        "manifest_sha256": facts.manifest_sha256,
    }
    ctx.finish(stage, fields, {k: v for k, v in plain.items() if k != "folder"})
    return plain


def lineage_of(ctx: Context, selection: str) -> Facts:
    """What the manifest tells of a release's making: hashes, seeds, recipe, policy, real set.

    Nothing of clock, machine or place: a local path would say where somebody's images lie.
    """
    run, recipe, data = ctx.run, ctx.recipe, ctx.data
    ratio = run.stage_facts("ratio")
    plain = recipe.model_dump(mode="json")
    plain["source"] = _without_place(recipe.source)
    for part in ("teacher", "generator"):
        if plain[part]["weights"] is not None:
            plain[part]["weights"] = _without_place(plain[part]["weights"])
    values = data.train_pixels.astype(np.float64) / 255
    salt = f"{SALT_LABEL} {recipe.seed} {data.reals.fingerprint[:16]}"
    parts = {
        "train": data.split.train,
        "validation": data.split.validation,
        "test": data.split.test,
    }
    return {
        "name": recipe.name,
        "space": data.reals.space.model_dump(mode="json"),
        "recipe": plain,
        "policy": read_metadata(run.selections / f"{selection}.parquet")["policy"],
        "seeds": {"recipe": recipe.seed},
        "normalisation": {
            "mean": [round(float(v), 6) for v in values.mean(axis=(0, 2, 3))],
            "std": [round(float(v), 6) for v in values.std(axis=(0, 2, 3))],
        },
        "weights": {
            "generator": run.stage_facts("generator")["sha256"],
            "teacher": run.stage_facts("teacher")["sha256"],
            "ratio": None if ratio["problems"] else ratio["sha256"],
        },
        "ratio_problems": ratio["problems"],
        "real": {
            "spec": plain["source"],
            "revision": data.reals.revision,
            "fingerprint": data.reals.fingerprint,
            "split_seed": recipe.seed,
            "salt": salt,
            "hashes": {
                name: salted_hashes([data.reals.pixel_hashes[i] for i in indices], salt)
                for name, indices in parts.items()
            },
        },
    }


def _without_place(spec: str) -> str:
    """A source or weights file by its own name, where it is a file or folder of this machine."""
    kind, separator, where = spec.partition(":")
    if not separator:
        kind, where = "", spec
    path = Path(where).expanduser()
    return f"{kind}{separator}{path.name}" if path.exists() else spec
