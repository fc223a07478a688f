"""The samples of a run folder, a release folder or a Hub id, opened in one way.

Opening reads a few small files. Columns are read when they are asked for, and no others: a million
samples are a hundred megabytes of them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from cgankd.shardset.errors import BadInput, CorruptShard, ReleaseError
from cgankd.shardset.files import read_json
from cgankd.shardset.hub.ids import REPO_PATTERN
from cgankd.shardset.hub.read import Opened, opened
from cgankd.shardset.labels import LabelSpace
from cgankd.shardset.places import PoolPlaces, ReleasePlaces, release_places
from cgankd.shardset.pool.plan import Plan, Segment, read_plan
from cgankd.shardset.pool.run_folder import RunFolder, is_run
from cgankd.shardset.records import PoolFacts
from cgankd.shardset.release.manifest import (
    CURATION,
    MANIFEST,
    read_manifest,
)
from cgankd.shardset.release.tables import SCORES
from cgankd.shardset.tables import read_metadata, read_numbered, read_table

DECISIONS = ("key", "kept", "reason", "label", "original_label")
DEFAULT_SELECTION = "cgan-kd"


@dataclass(frozen=True)
class Production:
    """How a pool was produced: all that a sample can be made again from.

    `libraries` are the versions that computed it, where they are recorded. The weights are those
    of the folder `generator`, or of the model repo `generator_repo` of the Hub at `version`, where
    either is known.
    """

    where: str
    plan: Plan
    rows: pa.Table  # in the order of keys: key, condition, status, pixel_sha256
    generator_sha256: str
    device: str
    libraries: Mapping[str, str]
    generator: Path | None = None
    generator_repo: str | None = None
    version: str | None = None


@dataclass(frozen=True)
class Samples:
    """All samples of a pool, as a run or a release holds them; columns are in the order of keys.

    A run has the decisions of any number of selections, a release those of one, which goes by the
    version's name.
    """

    spec: str  # as it was given
    path: Path  # the folder; of a Hub id, the verified copy in the client's cache
    space: LabelSpace
    pool_id: str
    seed: int  # of the production
    selections: tuple[str, ...]
    origin: RunFolder | Opened

    @property
    def kind(self) -> Literal["run", "release"]:
        return "run" if isinstance(self.origin, RunFolder) else "release"

    @property
    def run(self) -> RunFolder:
        """The run folder; `BadInput` for a release."""
        if isinstance(self.origin, RunFolder):
            return self.origin
        raise BadInput(f"{self.spec} is a release; give the run folder that it was made in")

    @property
    def release(self) -> Opened:
        """The opened release; `BadInput` for a run."""
        if isinstance(self.origin, Opened):
            return self.origin
        raise BadInput(f"{self.spec} is a run folder; give one of its releases")

    def selected(self, name: str | None) -> str | None:
        """The selection of that name; of None `cgan-kd`, else the first, None where there is none.
        `BadInput` names those that are there.
        """
        if name is None:
            if DEFAULT_SELECTION in self.selections:
                return DEFAULT_SELECTION
            return self.selections[0] if self.selections else None
        if name in self.selections:
            return name
        if self.kind == "release":
            raise BadInput(f"{self.spec} is a release, which holds one selection; give no name")
        names = ", ".join(self.selections) or "none"
        raise BadInput(f"{self.path} has no selection {name!r}; it has {names}")

    def score_files(self) -> list[Path]:
        """The score tables in order; `ReleaseError` for a release without, none for such a run."""
        if isinstance(self.origin, RunFolder):
            return sorted(self.origin.scores.glob("*.parquet"))
        entries = [entry.path for entry in self.origin.manifest.files]
        files = [self.path / path for path in entries if path.startswith(f"{SCORES}/")]
        if not files:
            raise ReleaseError(
                f"{self.spec} holds no scores, which say what each sample was made of and why one "
                "was dropped; pull or release it again"
            )
        return files

    def produced(self, columns: Sequence[str]) -> pa.Table:
        """What the pool's rows, or a release's scores, say of every sample."""
        if isinstance(self.origin, RunFolder):
            return read_numbered(self.origin.pool, columns)
        return self.scores(columns)

    def scores(self, columns: Sequence[str]) -> pa.Table:
        """Columns of every score table, as one."""
        if isinstance(self.origin, RunFolder):
            return read_numbered(self.origin.scores, columns)
        tables = [read_table(file, columns) for file in self.score_files()]
        return pa.concat_tables([table.replace_schema_metadata(None) for table in tables])

    def score_names(self) -> tuple[str, ...]:
        """The columns that the score tables have, none where there are no tables."""
        return tuple(name for file in self.score_files()[:1] for name in pq.read_schema(file).names)

    def decisions(self, selection: str) -> pa.Table:
        """What a selection decided: the columns `DECISIONS`."""
        if isinstance(self.origin, RunFolder):
            return read_table(self.selection_file(selection), DECISIONS).replace_schema_metadata(
                None
            )
        return self.scores(DECISIONS)

    def curation(self, selection: str) -> dict[str, Any]:
        """What is recorded of a selection's making: its policy, counts and figures."""
        if isinstance(self.origin, RunFolder):
            return read_metadata(self.selection_file(selection))
        path = self.path / CURATION
        return read_json(path) if path.is_file() else {}

    def selection_file(self, selection: str) -> Path:
        """The table of a run's selection; `BadInput` names those that are there."""
        self.selected(selection)
        return self.run.selections / f"{selection}.parquet"

    def places(self, key: np.ndarray) -> PoolPlaces | ReleasePlaces:
        """Where the image of each key lies, for all the keys of the samples in their order."""
        if isinstance(self.origin, RunFolder):
            rows = read_numbered(self.origin.pool, ("shard", "png_offset", "png_length"))
            return PoolPlaces(self.origin.pool, *(column.to_numpy() for column in rows.columns))
        return release_places(self.path, key)

    def production(self) -> Production:
        """How the samples were produced.

        The place of a key in its padded batch changes the last bits of its floats, so the pool's
        plan is needed whole. A run has it; of a release, rows and lineage tell it. `CorruptShard`
        for a run without a finished pool, `ReleaseError` for a release that does not tell.
        """
        rows = self.produced(("key", "condition", "status", "pixel_sha256"))
        make = _production_of_run if self.kind == "run" else _production_of_release
        production = make(self, rows)
        if not np.array_equal(rows["key"].to_numpy(), np.arange(production.plan.count)):
            if self.kind == "run":
                raise CorruptShard(
                    f"{self.run.pool} has {len(rows)} rows, its plan {production.plan.count} keys; "
                    "run produce again"
                )
            raise ReleaseError(
                f"{self.spec} has scores of {len(rows)} samples, {production.plan.count} were "
                "produced by its manifest; release it again"
            )
        return production


def open_samples(spec: str | Path, *, images: bool = True) -> Samples:
    """The samples of a run folder, a release folder, or `user/name[@v1.2.0]` on the Hub.

    Without `images`, a Hub id fetches metadata and scores alone, and those of a release folder are
    compared with its manifest. With them, a Hub id is fetched and verified whole, and a folder is
    taken as it lies: `verify` is what reads every byte. `BadInput` for what is none of the three,
    or a run that does not know its labels yet.
    """
    path = Path(spec).expanduser()
    if (path / MANIFEST).is_file() and images:
        manifest = read_manifest(path)
        return _of_release(spec, Opened(path, manifest, None, manifest.version, None))
    if is_run(path):
        return _of_run(spec, RunFolder.open(path))
    if not (path / MANIFEST).is_file() and (
        path.exists() or not re.fullmatch(f"{REPO_PATTERN}(@.*)?", str(spec))
    ):
        raise BadInput(
            f"{spec} is neither a run nor a release folder, nor an id of the Hub; expected one, "
            "an id as user/name@v1.0.0"
        )
    return _of_release(spec, opened(str(spec), only=None if images else ("metadata/*", "scores/*")))


def _of_run(spec: str | Path, run: RunFolder) -> Samples:
    facts = run.facts()
    if "space" not in facts.get("source", {}):
        raise BadInput(f"{run.path / 'run.json'} has no label space; continue the run first")
    plan = read_plan(run.pool / "plan.json")
    return Samples(
        spec=str(spec),
        path=run.path,
        space=TypeAdapter[LabelSpace](LabelSpace).validate_python(facts["source"]["space"]),
        pool_id=plan.pool_id,
        seed=plan.seed,
        selections=tuple(sorted(file.stem for file in run.selections.glob("*.parquet"))),
        origin=run,
    )


def _of_release(spec: str | Path, release: Opened) -> Samples:
    manifest = release.manifest
    return Samples(
        spec=str(spec),
        path=release.folder,
        space=manifest.space,
        pool_id=manifest.pool_id,
        seed=manifest.production_seed,
        selections=(manifest.version,),
        origin=release,
    )


def _production_of_run(samples: Samples, rows: pa.Table) -> Production:
    run = samples.run
    fields = run.stage_fields("pool")
    return Production(
        where=samples.spec,
        plan=read_plan(run.pool / "plan.json"),
        rows=rows,
        generator_sha256=fields["generator_sha256"],
        device=fields["device"],
        libraries=run.read_facts("pool", PoolFacts).libraries,
        generator=run.generator,
    )


def _production_of_release(samples: Samples, rows: pa.Table) -> Production:
    manifest = samples.release.manifest
    made, weights = manifest.lineage.production, manifest.lineage.weights
    try:
        if made is None or weights is None:
            raise ValueError("no production" if made is None else "no weights")
        plan = Plan(
            version=made.plan_version,
            seed=manifest.production_seed,
            pool_id=manifest.pool_id,
            shard_size=made.shard_size,
            batch=made.batch,
            threads=made.threads,
            precision=made.precision,
            rounds=_rounds(made.rounds, rows["condition"].to_pylist()),
        )
    except ValueError as error:  # also what pydantic raises
        what = " ".join(str(error).split())[:200]
        raise ReleaseError(
            f"{samples.spec}: {MANIFEST} does not say how its samples were produced ({what}); give "
            "the run folder, or release it again"
        ) from error
    return Production(
        where=samples.spec,
        plan=plan,
        rows=rows,
        generator_sha256=weights.generator,
        device=made.device,
        libraries=made.libraries,
        generator_repo=manifest.lineage.generator_repo,
        version=manifest.version,
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
