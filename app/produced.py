"""How the samples of a run folder or a release were produced: all that they can be made again from.

The place of a key in its padded batch changes the last bits of its floats, so the pool's plan is
needed whole. A run has it; of a release, rows and lineage tell it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from cgankd.shardset.errors import CorruptShard, ReleaseError
from cgankd.shardset.hub.read import Opened, opened
from cgankd.shardset.pool.plan import Plan, Segment, read_plan
from cgankd.shardset.pool.run_folder import RunFolder
from cgankd.shardset.release.manifest import MANIFEST
from cgankd.shardset.release.tables import SCORES
from cgankd.shardset.tables import read_numbered, read_table

COLUMNS = ("key", "condition", "status", "pixel_sha256")


@dataclass(frozen=True)
class Produced:
    """A pool's plan, and its rows in the order of keys: key, condition, status, pixel_sha256.

    `libraries` are the versions that computed it, where they are recorded. The weights are those
    of a folder, or of a model repo of the Hub at a version, where either is known.
    """

    where: str
    plan: Plan
    rows: pa.Table
    generator_sha256: str
    device: str
    libraries: Mapping[str, str]
    generator: Path | None = None
    generator_repo: str | None = None
    version: str | None = None


def produced_in(where: str) -> Produced:
    """How the pool of a run folder, a release folder or a release on the Hub was produced.

    `BadInput` for a run without a finished pool, `ReleaseError` for a release that does not tell.
    """
    if (Path(where) / "recipe.yaml").is_file():
        return _by_run(where)
    return _by_release(where, opened(where, only=("metadata/*", "scores/*")))


def _by_run(where: str) -> Produced:
    run = RunFolder.open(where)
    plan = read_plan(run.pool / "plan.json")
    fields = run.stage_fields("pool")
    rows = read_numbered(run.pool, COLUMNS)
    if not _are_all_keys(rows, plan.count):
        raise CorruptShard(
            f"{run.pool} has {len(rows)} rows, its plan {plan.count} keys; run produce again"
        )
    return Produced(
        where=where,
        plan=plan,
        rows=rows,
        generator_sha256=fields["generator_sha256"],
        device=fields["device"],
        libraries=run.stage_facts("pool").get("libraries", {}),
        generator=run.generator,
    )


def _by_release(where: str, release: Opened) -> Produced:
    facts = release.manifest.facts
    paths = (entry.path for entry in release.manifest.files)
    files = [release.folder / path for path in paths if path.startswith(f"{SCORES}/")]
    if not files:
        raise ReleaseError(f"{where} holds no scores, which say what each sample was made of")
    tables = [read_table(file, COLUMNS).replace_schema_metadata(None) for file in files]
    rows = pa.concat_tables(tables)
    try:
        production = facts["production"]
        plan = Plan(
            version=production["plan_version"],
            seed=release.manifest.production_seed,
            pool_id=release.manifest.pool_id,
            shard_size=production["shard_size"],
            batch=production["batch"],
            threads=production["threads"],
            precision=production["precision"],
            rounds=_rounds(production["rounds"], rows["condition"].to_pylist()),
        )
        generator_sha256, device = facts["weights"]["generator"], production["device"]
        libraries = dict(production.get("libraries", {}))
    except (KeyError, TypeError, ValueError) as error:  # ValueError: also what pydantic raises
        what = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:200]
        raise ReleaseError(
            f"{where}: {MANIFEST} does not say how its samples were produced ({what}); give the "
            "run folder, or release it again"
        ) from error
    if not _are_all_keys(rows, plan.count):
        raise ReleaseError(
            f"{where} has scores of {len(rows)} samples, {plan.count} were produced by its "
            "manifest; release it again"
        )
    return Produced(
        where=where,
        plan=plan,
        rows=rows,
        generator_sha256=generator_sha256,
        device=device,
        libraries=libraries,
        generator_repo=facts.get("generator_repo"),
        version=release.version,
    )


def _rounds(counts: Sequence[int], conditions: list[Any]) -> tuple[tuple[Segment, ...], ...]:
    """The rounds of a plan, given the samples of each and what each sample was made of."""
    rounds, key = [], 0
    for count in counts:
        segments = []
        for label, same in groupby(conditions[key : key + count]):
            segments.append(Segment(label=label, first_key=key, count=len(list(same))))
            key += segments[-1].count
        if not segments:
            raise ValueError(f"a round of {count} samples beyond the last row")
        rounds.append(tuple(segments))
    return tuple(rounds)


def _are_all_keys(rows: pa.Table, count: int) -> bool:
    return np.array_equal(rows["key"].to_numpy(), np.arange(count))
