"""From scores to the arms' selections, topping the pool up where a label starves."""

import math
from collections import Counter
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from cgankd.app.context import Context, Facts
from cgankd.app.recipe import BUILT_IN_SELECTIONS
from cgankd.app.stages.neighbours import needs, read_features, read_neighbours, search
from cgankd.app.stages.pool import produce
from cgankd.app.stages.scores import score
from cgankd.curation.policies import Policy
from cgankd.curation.policies.rule import Scores, score_columns
from cgankd.curation.policies.selection import Selection, select
from cgankd.curation.policies.teacher_rules import Quantile, TeacherLabels
from cgankd.shardset.files import sha256_file
from cgankd.shardset.identity import uniforms
from cgankd.shardset.labels import ContinuousLabels
from cgankd.shardset.pool.plan import Plan, read_plan
from cgankd.shardset.records import NeighbourFacts, RatioFacts, ScoreFacts, SelectionFacts
from cgankd.shardset.reviews import Reviews, read_reviews
from cgankd.shardset.tables import read_numbered, read_table, write_table

TOP_UP_MARGIN = 1.1  # the kept fraction of a small first round is uncertain by about this

ARMS_WITHOUT_REVIEWS = tuple(name for name in BUILT_IN_SELECTIONS if name != "cgan-kd")


def arm_policies(
    policy: Policy, named: Mapping[str, Policy] = MappingProxyType({})
) -> dict[str, Policy]:
    """The selections that arms train from: those built in, each the recipe's policy with parts left
    out, and the recipe's `named` ones.

    What goes by neighbours or features is in the whole policy alone, so that each arm differs from
    the next in one thing.
    """
    parts: dict[str, dict[str, Any]] = {
        "raw": {"subsample": None, "filter": None, "relabel": None},
        "subsampled": {"filter": None, "relabel": None},
        "filtered": {"filter": policy.filter or Quantile(), "relabel": None},
        "relabelled": {"filter": None, "relabel": TeacherLabels()},
    }
    alone = policy.by_scores_alone()
    arms = {name: alone.model_copy(update=part) for name, part in parts.items()}
    return {**arms, "cgan-kd": policy, **named}


def select_all(ctx: Context) -> Facts:
    """Facts of every arm's selection; the pool grows until each has its quota or may not grow.

    How much it grows is decided without neighbours, which are found once, in the last pool; what
    they drop is not made up for.
    """
    for problem in ctx.run.read_facts("ratio", RatioFacts).problems:
        ctx.console.note(f"density ratio refused: {problem}")
    policies = selection_policies(ctx)
    while True:
        scores, plan = read_scores(ctx), read_plan(ctx.run.pool / "plan.json")
        reviews = {name: reviews_for(ctx, name, scores.key) for name in policies}
        selections = {
            name: decide(ctx, scores, plan, policy.by_scores_alone(), reviews[name])
            for name, policy in policies.items()
        }
        wanted, groups = _top_up(ctx, plan, list(selections.values()))
        if not wanted:
            break
        names = ", ".join(ctx.space.group_names[group] for group in sorted(groups))
        ctx.console.note(f"topping up {sum(wanted.values()):,} samples of {names}")
        produce(ctx, more=wanted)
        score(ctx)
    for name, policy in policies.items():
        if needs(policy):
            search(ctx)
            selections[name] = decide(ctx, scores, plan, policy, reviews[name])
    for name, selection in selections.items():
        write_selection(ctx, name, policies[name], selection, reviews[name])
        for problem in selection.problems(ctx.space):
            ctx.console.note(f"{name}: {problem}")
        lever = (
            "pool.per_label"
            if needs(policies[name])
            else "pool.max_factor or policy.subsample.accept"
        )
        for group, missing in selection.shortfall.items():
            ctx.console.note(
                f"{name}: {ctx.space.group_names[group]} is {missing} short of its quota; raise "
                f"{lever}, or lower policy.quota.size"
            )
    ctx.write_recipe()
    return {name: selection.counts() for name, selection in selections.items()}


def select_one(ctx: Context, name: str) -> Facts:
    """Counts of one selection by the recipe's policy and what reviewers said, with how many samples
    `came` and `went` since it was selected before; reads score and neighbour tables and the reviews
    alone.
    """
    policies = selection_policies(ctx)
    policy = policies.get(name, policies["cgan-kd"])
    plan = read_plan(ctx.run.pool / "plan.json")
    scores = read_scores(ctx)
    reviews = reviews_for(ctx, name, scores.key)
    selection = decide(ctx, scores, plan, policy, reviews)
    change = write_selection(ctx, name, policy, selection, reviews)
    return {**selection.counts(), **change}


def reviews_for(ctx: Context, name: str, keys: np.ndarray) -> Reviews | None:
    """What reviewers decided that a selection of this name heeds; `None` where it heeds none or
    nothing was decided. `keys` are the pool's, in order.

    The arms with parts of the policy left out heed none: they are there to show what each part
    does, and people's verdicts would be in all of them.
    """
    if name in ARMS_WITHOUT_REVIEWS:
        return None
    reviews = read_reviews(ctx.run.reviews, keys, ctx.space).deciding()
    return reviews if len(reviews.key) else None


def review_facts(reviews: Reviews | None) -> Facts:
    """What a selection's marker and metadata say of the reviews it heeds: none of their authors."""
    return {} if reviews is None else {"reviews": {"sha256": reviews.sha256(), **reviews.counts()}}


def selection_policies(ctx: Context) -> dict[str, Policy]:
    """The policy of every selection of this run, by name; none subsamples where the density ratio
    was refused.
    """
    policies = [ctx.recipe.policy, *ctx.recipe.selections.values()]
    if ctx.run.read_facts("ratio", RatioFacts).problems:
        policies = [policy.model_copy(update={"subsample": None}) for policy in policies]
    return arm_policies(policies[0], dict(zip(ctx.recipe.selections, policies[1:], strict=True)))


def read_scores(ctx: Context) -> Scores:
    """The score table's columns that a policy may read."""
    table = read_numbered(ctx.run.scores, score_columns(ctx.space))
    return Scores.from_table(table, ctx.space)


def decide(
    ctx: Context, scores: Scores, plan: Plan, policy: Policy, reviews: Reviews | None = None
) -> Selection:
    """One decision with a reason for every pool sample; the uniform number is the key's own."""
    return select(
        scores,
        policy,
        uniforms(plan.seed, 0, plan.count, "accept"),
        plan.in_first_round(scores.key),
        read_neighbours(ctx) if policy.reads("neighbours") else None,
        read_features(ctx) if policy.reads("features") else None,
        reviews,
    )


def write_selection(
    ctx: Context, name: str, policy: Policy, selection: Selection, reviews: Reviews | None = None
) -> Facts:
    """How many samples `came` and `went` where a selection of this name was replaced; else nothing.

    Selecting again is cheap, so that another policy replaces the table unasked.
    """
    path = ctx.run.selections / f"{name}.parquet"
    fields: Facts = {
        "scores": ctx.run.read_facts("scores", ScoreFacts).sha256,
        "policy": policy.model_dump(mode="json"),
        **review_facts(reviews),
    }
    if needs(policy):
        fields["neighbours"] = ctx.run.read_facts("neighbours", NeighbourFacts).sha256
    if isinstance(ctx.space, ContinuousLabels):
        fields["groups"] = list(ctx.space.group_names)
    stage = f"selections/{name}"
    if path.is_file() and ctx.run.stage_matches(stage, fields):
        return {}
    before = read_table(path, ("key", "kept")) if path.is_file() else None
    table = selection.table()
    write_table(path, table, {**fields, "fitted": selection.fitted})
    facts = SelectionFacts(sha256=sha256_file(path), **selection.counts())
    # Not by the context: another policy does not change the recipe.
    ctx.run.finish_stage(stage, fields, facts.model_dump(mode="json"))
    if before is None:
        return {}
    old, new = (part["key"].to_numpy()[part["kept"].to_numpy()] for part in (before, table))
    came, went = len(np.setdiff1d(new, old)), len(np.setdiff1d(old, new))
    ctx.console.note(f"{name} was selected again: {came:,} samples came, {went:,} went")
    return {"came": came, "went": went}


def _top_up(
    ctx: Context, plan: Plan, selections: list[Selection]
) -> tuple[dict[int, int] | dict[float, int], set[int]]:
    """How many more samples of each label would meet the quotas, within the pool's bound, and the
    groups that starve.
    """
    labels = list(plan.planned)
    group_of = dict(zip(labels, ctx.space.group_of(np.array(labels)).tolist(), strict=True))
    planned: Counter[int] = Counter()
    for label, count in plan.planned.items():
        planned[group_of[label]] += count
    members = Counter(group_of.values())
    most = int(ctx.recipe.pool.per_label * ctx.recipe.pool.max_factor)
    wanted: dict[int, int] = {}
    for selection in selections:
        for group, missing in selection.shortfall.items():
            rate = max(selection.kept_of(group) / planned[group], 1 / planned[group])
            more = math.ceil(missing / rate * TOP_UP_MARGIN / members[group])
            wanted[group] = max(wanted.get(group, 0), more)
    per_label = {
        label: min(wanted.get(group, 0), most - plan.planned[label])
        for label, group in sorted(group_of.items())
    }
    per_label = {label: count for label, count in per_label.items() if count > 0}
    return per_label, {group_of[label] for label in per_label}
