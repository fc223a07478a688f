"""The sets that a check compares: what each step of the selection keeps."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from cgankd.app.compared import side
from cgankd.app.context import Context
from cgankd.app.stages.selections import arm_policies, decide, effective_policy
from cgankd.curation.policies.policy import Policy
from cgankd.curation.policies.selection import Scores
from cgankd.shardset.errors import BadInput
from cgankd.shardset.pool.plan import read_plan
from cgankd.shardset.tables import read_metadata


@dataclass(frozen=True)
class Kept:
    """The kept part of a selection: rows of the pool int64 `[k]`, and their final labels `[k]`."""

    rows: np.ndarray
    labels: np.ndarray


def kept_of(ctx: Context, name: str, samples: int) -> tuple[Kept, Policy, pa.Table]:
    """What a selection keeps of a pool of so many samples, by what policy, and its table.

    `BadInput` for a selection of another pool, or one that keeps nothing.
    """
    table = side(str(ctx.run.path), name).decisions
    if len(table) != samples:
        raise BadInput(
            f"selection {name} decides on {len(table):,} samples, the pool has {samples:,}; "
            "select again"
        )
    own = table["kept"].to_numpy()
    if not own.any():
        raise BadInput(f"selection {name} keeps nothing, so there is nothing to check")
    stored = read_metadata(ctx.run.selections / f"{name}.parquet")["policy"]
    policy = Policy.model_validate(stored)
    return Kept(np.flatnonzero(own), table["label"].to_numpy()[own]), policy, table


def sets_of_arms(ctx: Context, scores: Scores) -> dict[str, Kept]:
    """What each step of the selection keeps, by the recipe's policy."""
    plan = read_plan(ctx.run.pool / "plan.json")
    found = {}
    for name, policy in arm_policies(effective_policy(ctx)).items():
        if name != "cgan-kd":
            chosen = decide(ctx, scores, plan, policy)
            found[name] = Kept(np.flatnonzero(chosen.kept), chosen.label[chosen.kept])
    return found
