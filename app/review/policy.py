"""What a policy would do, computed on the loaded scores at once and written only when somebody
saves it; and two selections compared: two versions, or two policies on one pool.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from cgankd.app.review.filters import Counts, Histogram, counted, histogram
from cgankd.app.review.subject import SCORES, Subject
from cgankd.curation.difference import CHANGES, changes_per_group, difference, why
from cgankd.curation.neighbours.find import Features
from cgankd.curation.policies import Policy
from cgankd.curation.policies.selection import KEPT, REASONS, Selection, select
from cgankd.shardset.errors import BadInput
from cgankd.shardset.files import write_bytes
from cgankd.shardset.reviews import Reviews

EXAMPLES = 12


@dataclass(frozen=True)
class Preview:
    """A policy's selection, and how it differs from the decisions that the subject has."""

    selection: Selection
    counts: Counts
    shortfall: dict[str, int]  # group's name → samples missing to its quota
    why: pa.Table  # change, reason_before, reason_after, count: the most frequent first
    came: np.ndarray  # example rows int64, kept now and not before
    went: np.ndarray  # kept before and not now
    relabelled: np.ndarray  # kept with another label
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
    rows = {
        change: subject.rows_of(
            changes["key"].to_numpy()[np.array(changes["change"]) == change][:examples]
        )
        for change in CHANGES
    }
    names = subject.space.group_names
    return Preview(
        selection,
        counted(subject, selection.reason),
        {names[group]: missing for group, missing in selection.shortfall.items()},
        why(changes),
        **rows,
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
    return difference(_rows(subject, rows), _rows(after, rows))


@dataclass(frozen=True)
class Comparison:
    """What differs between two selections; of different pools, only how many and how spread."""

    counts: tuple[Counts, Counts]
    histograms: tuple[tuple[Histogram, Histogram], ...]  # a pair a score, on the same bins
    same_pool: bool
    changes: pa.Table | None  # a row for each key that differs, as `curation.difference` has it
    why: pa.Table | None
    labels: pa.Table | None  # how many came, went and were relabelled in each group
    only_first: np.ndarray  # keys int64 that the first alone keeps; empty for different pools
    only_second: np.ndarray


def compare(first: Subject, second: Subject) -> Comparison:
    """Two selections compared; `BadInput` where their labels are not the same."""
    if first.space != second.space:
        raise BadInput(f"{first.path} and {second.path} have different labels; compare equal ones")
    pairs = []
    for score in SCORES:
        one = histogram(first, score)
        other = one and histogram(second, score, edges=one.edges)
        if one and other:
            pairs.append((one, other))
    same = first.pool_id == second.pool_id and np.array_equal(first.key, second.key)
    changes = changed(first, second) if same else None
    none = np.empty(0, np.int64)
    return Comparison(
        counts=(counted(first), counted(second)),
        histograms=tuple(pairs),
        same_pool=same,
        changes=changes,
        why=None if changes is None else why(changes),
        labels=None if changes is None else changes_per_group(changes, first.space),
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


def _rows(decided: Selection | Subject, rows: np.ndarray) -> pa.Table:
    """Some rows of a selection as it lies on disk."""
    reason = decided.reason[rows]
    kept = reason == KEPT
    names = pa.DictionaryArray.from_arrays(
        pa.array(np.where(kept, 0, reason), pa.int8(), mask=kept), pa.array(REASONS)
    )
    return pa.table(
        {
            "key": decided.key[rows],
            "kept": kept,
            "reason": names.cast(pa.string()),
            "label": decided.label[rows],
            "original_label": decided.original_label[rows],
        }
    )


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
