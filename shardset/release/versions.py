"""Which version a release gets: what it changes in the one before it decides.

Another schema or label space is major, other samples, labels or scores are minor, another card or
metadata alone is a patch.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa

from cgankd.shardset.errors import BadInput, ReleaseError
from cgankd.shardset.files import canonical_json
from cgankd.shardset.labels import LabelSpace
from cgankd.shardset.release.manifest import MANIFEST, VERSION_PATTERN, Changes, Level, Manifest
from cgankd.shardset.release.tables import SCORES, release_schema
from cgankd.shardset.tables import read_table

FIRST = "v1.0.0"
LEVELS: tuple[Level, ...] = get_args(Level)


@dataclass(frozen=True)
class Proposal:
    """The version that a release should get; `parent` is None for the first one, and `reason` is
    empty where nothing changed, so that there is nothing to build.
    """

    version: str
    parent: str | None
    reason: str


def numbers_of(version: str) -> tuple[int, int, int]:
    """The three numbers of a version, by which versions compare; `BadInput` for no version."""
    match = re.fullmatch(VERSION_PATTERN, version)
    if match is None:
        raise BadInput(f"version {version!r} is not of the form v1.0.0")
    major, minor, patch = map(int, match.groups())
    return major, minor, patch


def released_versions(out: Path) -> list[str]:
    """The versions that a folder holds, ascending."""
    versions = [
        path.name
        for path in out.glob("v*")
        if re.fullmatch(VERSION_PATTERN, path.name) and (path / MANIFEST).is_file()
    ]
    return sorted(versions, key=numbers_of)


def parent_of(out: Path, version: str | None) -> str | None:
    """The highest released version, below `version` where one is given."""
    lower = [
        other
        for other in released_versions(out)
        if version is None or numbers_of(other) < numbers_of(version)
    ]
    return lower[-1] if lower else None


def next_version(parent: str, level: Level) -> str:
    """The version after `parent` with its major, minor or patch number raised."""
    numbers = list(numbers_of(parent))
    place = LEVELS.index(level)
    numbers[place:] = [numbers[place] + 1, *[0] * (2 - place)]
    return "v{}.{}.{}".format(*numbers)


def understated(parent: str, version: str, changes: Changes) -> str | None:
    """What a chosen version hides, in a sentence; None where it says as much as it should."""
    old, new = numbers_of(parent), numbers_of(version)
    place = next(i for i in range(3) if old[i] != new[i])
    if place <= LEVELS.index(changes.level):
        return None
    return (
        f"{version} understates a {changes.level} change ({changes.reasons[0]}); "
        f"{next_version(parent, changes.level)} would say so"
    )


def changes_of(
    parent: Manifest,
    folder: Path,
    table: pa.Table,
    now: Manifest,
    metadata: Mapping[str, tuple[Any, Any]],
    current_policy: Callable[[Any], Any],
) -> Changes | None:
    """What a release of `table` and with the manifest `now` (its files are not looked at) changes
    in the one in `folder`; None where nothing differs.

    `metadata` has for each other file of both the values before and now; `current_policy` gives a
    policy the names of today, so that one of before, by its old names, is not another.
    """
    before, after = parent.lineage.plain(), now.lineage.plain()
    for fields in (before, after):
        if fields["policy"] is not None:
            fields["policy"] = current_policy(fields["policy"])
    level: Level = "patch"
    reasons = []
    if parent.space != now.space:
        level = "major"
        reasons.append(f"the label space is another: {_space_change(parent.space, now.space)}")
    old, schema = read_scores(folder), release_schema(SCORES, now.space)
    columns = _columns(old.schema) ^ _columns(schema)
    if level != "major" and columns:
        level = "major"
        reasons.append(
            f"the columns are others: {', '.join(sorted({name for name, _ in columns}))}"
        )
    same_pool = parent.pool_id == now.pool_id
    came, went, relabelled = _moved(old, table, same_pool)
    if level != "major":
        if not same_pool:
            reasons.append("the samples are of another pool")
        elif came or went or relabelled:
            reasons.append(
                f"the samples are others: {came:,} came, {went:,} went, {relabelled:,} have "
                "another label"
            )
        elif not old.equals(table.select(schema.names).cast(schema)):
            reasons.append("the scores or decisions are others")
        if any(parent.rejected) != any(now.rejected):
            what = "added" if any(now.rejected) else "left out"
            reasons.append(f"the rejected images are {what}")
        level = "minor" if reasons else "patch"
    if level == "patch":
        names = sorted(
            name for name, (old_file, new_file) in metadata.items() if old_file != new_file
        )
        if others := list(_differences(before, after)):
            reasons.append(f"the facts are others: {', '.join(others)}")
        if names:
            reasons.append(f"the metadata are others: {', '.join(names)}")
        if not reasons:
            return None
    return Changes(
        level=level,
        reasons=tuple(reasons),
        accepted_before=sum(parent.accepted),
        came=came,
        went=went,
        relabelled=relabelled,
        policy=_differences(_by_path(before["policy"]), _by_path(after["policy"])),
    )


def read_scores(folder: Path) -> pa.Table:
    """The score rows of a release, one for every key of its pool, in key order."""
    tables = [read_table(path) for path in sorted((folder / SCORES).glob("*.parquet"))]
    if not tables:
        raise ReleaseError(f"{folder} holds no scores, so a new version cannot be compared with it")
    return pa.concat_tables(tables)


def _columns(schema: pa.Schema) -> set[tuple[str, str]]:
    return {(field.name, str(field.type)) for field in schema}


def _moved(old: pa.Table, new: pa.Table, same_pool: bool) -> tuple[int, int, int]:
    """How many kept samples came, went, and have another label."""
    before, after = old.filter(old["kept"]), new.filter(new["kept"])
    if not same_pool:
        return len(after), len(before), 0
    keys, old_keys = after["key"].to_numpy(), before["key"].to_numpy()
    both, ours, theirs = np.intersect1d(keys, old_keys, return_indices=True)
    labels = after["label"].to_numpy()[ours], before["label"].to_numpy()[theirs]
    relabelled = int((labels[0] != labels[1]).sum())
    return len(keys) - len(both), len(old_keys) - len(both), relabelled


def _space_change(old: LabelSpace, new: LabelSpace) -> str:
    before, after = old.model_dump(mode="json"), new.model_dump(mode="json")
    return ", ".join(
        name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)
    )


def _differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Both values of each name whose values differ, in the order of the names."""
    return {
        name: (before.get(name), after.get(name))
        for name in sorted(before.keys() | after.keys())
        if _text(before.get(name)) != _text(after.get(name))
    }


def _by_path(policy: dict[str, Any] | None) -> dict[str, Any]:
    """The settings of each slot by their paths, `filter.rho` say; none where there is no policy."""
    paths: dict[str, Any] = {}
    for name, value in (policy or {}).items():
        inner = value if isinstance(value, dict) else {}
        paths |= {f"{name}.{field}": setting for field, setting in inner.items()}
        if not isinstance(value, dict):
            paths[name] = value
    return paths


def _text(value: Any) -> bytes:
    """A value by its text: 1, 1.0 and true are equal in Python but not the same setting."""
    return canonical_json(value)
