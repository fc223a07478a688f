"""What a policy would do, computed on the loaded scores at once and written only when somebody
saves it; and two selections compared: two versions, or two policies on one pool.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import yaml

from cgankd.app.review.subject import SCORES, Subject
from cgankd.curation.difference import CHANGES, difference, why
from cgankd.curation.neighbours.find import Features
from cgankd.curation.policies import Policy
from cgankd.curation.policies.selection import KEPT, REASONS, Selection, select
from cgankd.shardset.errors import BadInput
from cgankd.shardset.files import write_bytes
from cgankd.shardset.reviews import Reviews

EXAMPLES = 12


def counted(subject: Subject, reason: np.ndarray | None = None) -> pd.DataFrame:
    """How many samples of each group of assigned labels were kept, and dropped for what: a row for
    each group, the columns `kept` and each reason that occurs.

    They are those of the subject's selection, or of other reasons int8 `[n]`.
    """
    reason = subject.reason if reason is None else reason
    names, outcomes = subject.space.group_names, ("kept", *REASONS)
    cells = subject.group * len(outcomes) + (reason - KEPT)
    counts = np.bincount(cells, minlength=len(names) * len(outcomes)).reshape(len(names), -1)
    table = pd.DataFrame(counts, pd.Index(names, name="label"), outcomes)
    return table[["kept", *(name for name in REASONS if table[name].any())]]


def spread(first: Subject, second: Subject, score: str, bins: int = 40) -> pd.DataFrame | None:
    """How a score is distributed among what each of two selections keeps: shares in the columns
    `first` and `second`, by the middles of the bins; `None` where one has no such score.

    The bins reach to the 0.5 % least and largest values of the first's samples, kept or not; the
    outermost ones take in what lies beyond.
    """
    values = first.scores[score][np.isfinite(first.scores[score])]
    if not values.size or not np.isfinite(second.scores[score]).any():
        return None
    low, high = np.quantile(values.astype(np.float64), [0.005, 0.995])
    edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    shares = {}
    for name, subject in (("first", first), ("second", second)):
        kept = subject.scores[score][subject.kept & np.isfinite(subject.scores[score])]
        counts, _ = np.histogram(np.clip(kept, edges[0], edges[-1]), edges)
        shares[name] = counts / max(counts.sum(), 1)
    return pd.DataFrame(shares, ((edges[:-1] + edges[1:]) / 2).round(4))


@dataclass(frozen=True)
class Preview:
    """A policy's selection, and how it differs from the decisions that the subject has."""

    selection: Selection
    counts: pd.DataFrame  # as `counted` has them
    shortfall: dict[str, int]  # group's name → samples missing to its quota
    why: pa.Table  # change, reason_before, reason_after, count: the most frequent first
    examples: Mapping[str, np.ndarray]  # some rows int64 for each of CHANGES
    notes: tuple[str, ...]


def preview(
    subject: Subject, policy: Policy, reviews: Reviews | None = None, examples: int = EXAMPLES
) -> Preview:
    """What a policy and what reviewers said make of the subject's scores.

    `BadInput` where there are no scores, or the policy asks for neighbours that are not there.
    """
    if not np.isfinite(subject.scores["teacher_error"]).any():
        raise BadInput(f"{subject.path} has no scores to select by; run `cgankd score` first")
    notes = []
    if subject.ratio_problems and policy.subsample is not None:
        policy = policy.model_copy(update={"subsample": None})
        notes.append(f"density ratio refused, nothing is subsampled: {subject.ratio_problems[0]}")
    if subject.kind == "release":
        notes.append("a release does not say which samples came first: limits are fitted on all")
    selection = select(
        subject.policy_scores,
        policy,
        subject.uniforms,
        subject.in_first_round,
        subject.neighbours if policy.reads("neighbours") else None,
        _features(subject) if policy.reads("features") else None,
        None if reviews is None else reviews.deciding(),
    )
    changes = changed(subject, selection)
    keys, kinds = changes["key"].to_numpy(), np.array(changes["change"])
    names = subject.space.group_names
    return Preview(
        selection,
        counted(subject, selection.reason),
        {names[group]: missing for group, missing in selection.shortfall.items()},
        why(changes),
        {kind: subject.rows_of(keys[kinds == kind][:examples]) for kind in CHANGES},
        notes=(*notes, *selection.problems(subject.space)),
    )


def changed(subject: Subject, after: Selection | Subject) -> pa.Table:
    """One row for each key that came, went or has another label, as `difference` has it.

    `after` decides on the same keys. Only what differs is compared further: of a million samples
    few do.
    """
    rows = np.flatnonzero(
        (subject.kept != after.kept) | (subject.kept & (subject.label != after.label))
    )
    return difference(_table(subject, rows), _table(after, rows))


def _table(decisions: Selection | Subject, rows: np.ndarray) -> pa.Table:
    """Some rows of a selection as it lies on disk."""
    columns = ("key", "reason", "label", "original_label", "group")
    some = {name: getattr(decisions, name)[rows] for name in columns}
    return Selection(**some, fitted={}, shortfall={}).table()


@dataclass(frozen=True)
class Comparison:
    """What differs between two selections; of different pools, only how many and how spread."""

    counts: tuple[pd.DataFrame, pd.DataFrame]  # as `counted` has them
    spreads: Mapping[str, pd.DataFrame]  # score → the distribution of both
    why: pa.Table | None  # change, reason_before, reason_after, count; None for different pools
    only_first: np.ndarray  # keys int64 that the first alone keeps; empty for different pools
    only_second: np.ndarray


def compare(first: Subject, second: Subject) -> Comparison:
    """Two selections compared; `BadInput` where their labels are not the same."""
    if first.space != second.space:
        raise BadInput(f"{first.path} and {second.path} have different labels; compare equal ones")
    spreads = {score: spread(first, second, score) for score in SCORES}
    same = first.pool_id == second.pool_id and np.array_equal(first.key, second.key)
    none = np.empty(0, np.int64)
    return Comparison(
        counts=(counted(first), counted(second)),
        spreads={score: shares for score, shares in spreads.items() if shares is not None},
        why=why(changed(first, second)) if same else None,
        only_first=first.key[first.kept & ~second.kept] if same else none,
        only_second=second.key[second.kept & ~first.kept] if same else none,
    )


def save_recipe(subject: Subject, policy: Policy, path: Path) -> Path:
    """The path of a new recipe file: the subject's own with this policy.

    `BadInput` where the file exists or the subject has no recipe.
    """
    from cgankd.app.recipe import load_recipe, recipe_of, recipe_yaml

    if path.exists():
        raise BadInput(f"{path} exists; give another name")
    own = subject.path / "recipe.yaml"
    if own.is_file():
        recipe = load_recipe(str(own)).model_copy(update={"policy": policy})
    elif isinstance(data := subject.facts.get("recipe"), dict):
        entries = {**data, "policy": policy.model_dump(mode="json")}
        recipe = recipe_of(entries, f"of {subject.path}")
    else:
        raise BadInput(f"{subject.path} has no recipe to put the policy in")
    write_bytes(path, recipe_yaml(recipe).encode())
    return path


def run_selection(
    subject: Subject, policy: Policy, name: str, replace: bool = False
) -> dict[str, Any]:
    """Counts of the selection that was written to a run under this name: with the policy, and with
    all verdicts on disk. `replace` allows another selection's name.
    """
    from cgankd.app import pipeline
    from cgankd.app.console import Console
    from cgankd.app.stages.selections import ARMS_WITHOUT_REVIEWS

    if subject.kind != "run":
        raise BadInput(f"{subject.path} is a release, which never changes; open the run instead")
    if name in ARMS_WITHOUT_REVIEWS or not name.strip(".") or "/" in name:
        raise BadInput(
            f"{name!r} cannot be a selection's name here; {', '.join(ARMS_WITHOUT_REVIEWS)} belong "
            "to the arms"
        )
    if name in subject.selections and not replace:
        raise BadInput(f"there is a selection {name!r}; give another name, or replace it")
    return pipeline.select(
        subject.path,
        console=Console(json=True),
        name=name,
        overrides=overrides_of(policy),
    )


def overrides_of(policy: Policy) -> Sequence[str]:
    """The policy as `--set` has it, every slot."""
    slots = policy.model_dump(mode="json")
    texts = {n: yaml.safe_dump(v, default_flow_style=True, width=1000) for n, v in slots.items()}
    return [f"policy.{name}={text.splitlines()[0]}" for name, text in texts.items()]


def _features(subject: Subject) -> Features:
    """The stored features of every sample; `BadInput` where there are none."""
    from cgankd.curation.neighbours.pool_features import StoredFeatures
    from cgankd.shardset.pool.plan import read_plan

    folder = subject.path / "features" / "ratio"
    if subject.kind != "run" or not any(folder.glob("*.npy")):
        raise BadInput(
            f"policy.quota needs features, and {subject.path} has none; run "
            "`cgankd find-neighbours` on the run"
        )
    counts = [spec.count for spec in read_plan(subject.path / "pool" / "plan.json").shards]
    return StoredFeatures(folder, counts, np.arange(sum(counts)))
