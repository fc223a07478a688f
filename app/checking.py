"""`cgankd check`: is a selection fit to be published, and if not, what to change."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow.compute as pc

from app.check_judging import NET, Judged, judge_pool, measured
from app.check_page import Pair, render_check
from app.context import Context, Facts
from app.differing import decided
from app.neighbouring import read_neighbours, search
from app.selections import arm_policies, decide, effective_policy, read_scores
from curation.error_bound import bound_terms, label_loss, which_to_work_on
from curation.measured import Measured
from curation.neighbour_policy import aligned_rows, duplicate_groups, memorised
from curation.neighbour_table import Neighbours
from curation.selection import Scores
from curation.two_sample import TwoSampleByLabel, two_sample_by_label
from shardset.errors import BadInput, CheckFailed
from shardset.files import derive_seed, write_bytes, write_json
from shardset.labels import ContinuousLabels
from shardset.plan import read_plan

SHOWN = 20  # pairs of images of a kind
REMEDIES = {
    "memorised": "Set policy.memorised: calibrated; more real images help the generator",
    "duplicates": "Set policy.duplicates: calibrated, or train the generator longer",
    "agreement": "Filter by the teacher (policy.filter, policy.rho), or replace labels",
    "label_score": "Filter by the teacher (policy.filter, policy.rho), or replace labels",
    "auc": "Subsample by density ratio (policy.accept), or train the generator longer",
}


@dataclass(frozen=True)
class Kept:
    """The kept part of a selection: rows of the pool int64 `[k]`, and their final labels `[k]`."""

    rows: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Copies:
    """What is copied among the kept samples."""

    memorised: np.ndarray  # rows of the pool, the most similar first
    real_id: np.ndarray  # of each the training image
    similarity: np.ndarray
    groups: list[np.ndarray]  # rows of each group of near-duplicates, the largest first


def check(ctx: Context, name: str) -> Facts:
    """What `check/check.json` says of a selection; `check/check.html` shows it.

    `CheckFailed`, after both were written, where a threshold of the recipe's check is not met. No
    test image is looked at.
    """
    search(ctx)
    scores, neighbours = read_scores(ctx), read_neighbours(ctx)
    table = decided(ctx.run.path, name).table
    if len(table) != len(scores.key):
        raise BadInput(
            f"selection {name} decides on {len(table):,} samples, the pool has "
            f"{len(scores.key):,}; select again"
        )
    kept = Kept(
        np.flatnonzero(table["kept"].to_numpy()), table.filter(table["kept"])["label"].to_numpy()
    )
    if not len(kept.rows):
        raise BadInput(f"selection {name} keeps nothing, so there is nothing to check")
    copies = _copies(ctx, neighbours, scores, kept)
    shown = [rows[:2] for rows in copies.groups[:SHOWN]] + [copies.memorised[:SHOWN]]
    judged = judge_pool(ctx, scores.key[np.concatenate(shown)].tolist())
    sets = {**_arms(ctx, scores), name: kept}
    told_apart = _told_apart(ctx, judged, sets)
    numbers = measured(ctx, judged, kept.rows, kept.labels)
    reasons = pc.value_counts(table["reason"].drop_null()).to_pylist()
    ratio = ctx.run.stage_facts("ratio")
    shares = {
        "memorised": len(copies.memorised) / len(kept.rows),
        "duplicates": sum(len(rows) - 1 for rows in copies.groups) / len(kept.rows),
    }
    overall = {**shares, "auc": told_apart[name].overall.auc if told_apart else None}
    overall |= {row.metric: _finite(row.value) for row in numbers if row.kind == "all"}
    bound = _bound(ctx, scores, sets, told_apart)
    failures = _failures(ctx, overall)
    advice = [f"{line} {REMEDIES[limit]}" for limit, line in failures.items()]
    advice += [f"Density ratio refused: {problem}" for problem in ratio["problems"]]
    facts: Facts = {
        "selection": name,
        "failures": list(failures.values()),
        "advice": [*advice, *([bound["line"]] if bound else [])],
        "limits": ctx.recipe.check.model_dump(mode="json"),
        "overall": {limit: overall.get(limit) for limit in REMEDIES if limit in overall},
        "pool": len(table),
        "kept": len(kept.rows),
        "dropped": {row["values"]: row["counts"] for row in reasons},
        "labels": _labels(ctx, kept, copies, told_apart.get(name), numbers),
        "two_sample": {
            of: {
                "overall": asdict(found.overall),
                "labels": {
                    ctx.space.group_names[group]: asdict(row)
                    for group, row in found.per_label.items()
                },
            }
            for of, found in told_apart.items()
        },
        "bound": bound,
        "ratio": {"problems": ratio["problems"], "overall": ratio["overall"]},
        "duplicates": [scores.key[rows].tolist() for rows in copies.groups],
        "memorised": [
            {"key": key, "real_id": real, "similarity": similarity}
            for key, real, similarity in zip(
                scores.key[copies.memorised].tolist(),
                copies.real_id.tolist(),
                copies.similarity.astype(float).tolist(),
                strict=True,
            )
        ],
        "judge": {"net": NET, "sha256": judged.sha256, "images": judged.images},
        "metrics": [
            {
                **asdict(row),
                "value": _finite(row.value),
                "interval": row.interval and list(row.interval),
            }
            for row in numbers
        ],
    }
    write_json(ctx.run.check / "check.json", facts)
    page = render_check(ctx.recipe.name, ctx.space, facts, _pairs(ctx, judged, scores, copies))
    write_bytes(ctx.run.check / "check.html", page.encode())
    ctx.console.note(f"check {ctx.run.check / 'check.html'}")
    for line in facts["advice"]:
        ctx.console.note(line)
    if failures:
        raise CheckFailed(
            f"{name} is beyond {len(failures)} of the recipe's check thresholds: "
            f"{next(iter(failures.values()))} See {ctx.run.check / 'check.html'}"
        )
    return facts


def _copies(ctx: Context, neighbours: Neighbours, scores: Scores, kept: Kept) -> Copies:
    """By the policy's thresholds, or calibrated ones where it has none."""
    policy = ctx.recipe.policy
    rows = aligned_rows(neighbours, scores.key, scores.scored)
    groups, chosen = scores.group[rows], np.isin(rows, kept.rows)
    copied = np.flatnonzero(
        memorised(neighbours, groups, policy.memorised or "calibrated") & chosen
    )
    similarity = neighbours.nearest_real_similarity[copied]
    order = np.lexsort((copied, -similarity))
    connected = duplicate_groups(neighbours, groups, policy.duplicates or "calibrated")
    own = rows[chosen]
    by_group = np.argsort(connected[chosen], kind="stable")
    starts = np.unique(connected[chosen][by_group], return_index=True)[1]
    alike = [part for part in np.split(own[by_group], starts[1:]) if len(part) > 1]
    return Copies(
        memorised=rows[copied[order]],
        real_id=neighbours.nearest_real_id[copied[order]],
        similarity=similarity[order],
        groups=sorted(alike, key=lambda part: (-len(part), part[0])),
    )


def _arms(ctx: Context, scores: Scores) -> dict[str, Kept]:
    """What each step of the selection keeps, by the recipe's policy."""
    plan = read_plan(ctx.run.pool / "plan.json")
    found = {}
    for name, policy in arm_policies(effective_policy(ctx)).items():
        if name != "cgan-kd":
            chosen = decide(ctx, scores, plan, policy)
            found[name] = Kept(np.flatnonzero(chosen.kept), chosen.label[chosen.kept])
    return found


def _told_apart(
    ctx: Context, judged: Judged, sets: Mapping[str, Kept]
) -> dict[str, TwoSampleByLabel]:
    """The two-sample check of each set against all real images but the test ones; empty where a
    label has too few of either.
    """
    data, group_of = ctx.data, ctx.space.group_of
    try:
        return two_sample_by_label(
            np.concatenate([judged.train, judged.validation]),
            group_of(np.concatenate([data.train_labels, data.validation_labels])),
            {name: (judged.pool[k.rows], group_of(k.labels)) for name, k in sets.items()},
            seed=derive_seed(ctx.recipe.seed, "two samples") % 2**32,
        )
    except BadInput as problem:
        ctx.console.note(str(problem))
        return {}


def _bound(
    ctx: Context,
    scores: Scores,
    sets: Mapping[str, Kept],
    told_apart: Mapping[str, TwoSampleByLabel],
) -> Facts | None:
    """The error bound's terms of each set, and which to work on."""
    if not told_apart:
        return None
    space, told = ctx.space, ctx.run.stage_facts("teacher")["validation"]
    if isinstance(space, ContinuousLabels):
        error = min(told["mae"] / space.span, 1.0)
    else:
        error = 1 - told["accuracy"] / 100
    terms = [
        bound_terms(
            name,
            disagreement=label_loss(scores.teacher_label[kept.rows], kept.labels, space),
            teacher_error=error,
            accuracy=told_apart[name].overall.accuracy,
            generated=len(kept.rows),
            reals=len(ctx.data.train_labels),
        )
        for name, kept in sets.items()
    ]
    return {"terms": [asdict(row) for row in terms], "line": which_to_work_on(terms)}


def _failures(ctx: Context, overall: Mapping[str, float | None]) -> dict[str, str]:
    """A line for each threshold that is not met; what cannot be measured does not meet one."""
    lines = {}
    for name, limit in ctx.recipe.check.model_dump().items():
        value = overall.get(name)
        if limit is None:
            continue
        least = name == "agreement"
        if value is None:
            lines[name] = f"{name} cannot be measured here, and check.{name} is {limit:g}."
        elif value < limit if least else value > limit:
            side = "least" if least else "most"
            lines[name] = f"{name} is {value:.4g}, at {side} {limit:g} was asked for."
    return lines


def _labels(
    ctx: Context,
    kept: Kept,
    copies: Copies,
    told_apart: TwoSampleByLabel | None,
    numbers: tuple[Measured, ...],
) -> list[Facts]:
    """A row for each label, or part of the range, worst first: the judge tells the fewest right."""
    space = ctx.space
    final = np.full(ctx.run.stage_facts("pool")["samples"], -1)
    final[kept.rows] = space.group_of(kept.labels)

    def counted(rows: np.ndarray) -> np.ndarray:
        return np.bincount(final[rows], minlength=len(space.group_names))

    beyond = np.concatenate([np.empty(0, np.int64), *(rows[1:] for rows in copies.groups)])
    sizes, repeated, copied = counted(kept.rows), counted(beyond), counted(copies.memorised)
    by = {
        (row.metric, row.label): row.value
        for row in numbers
        if row.kind == "group" and row.judge.split == "train"
    }
    told = "label_score" if isinstance(space, ContinuousLabels) else "agreement"
    rows: list[Facts] = [
        {
            "label": name,
            "kept": int(sizes[group]),
            told: _finite(by[told, group]),
            "auc": told_apart.per_label[group].auc
            if told_apart and group in told_apart.per_label
            else None,
            "fid": _finite(by["fid", group]),
            "coverage": _finite(by["coverage", group]),
            "memorised": int(copied[group]),
            "duplicates": int(repeated[group]),
        }
        for group, name in enumerate(space.group_names)
    ]
    sign = 1 if told == "agreement" else -1
    # A label of which nothing was kept is the worst of all.
    return sorted(rows, key=lambda row: -np.inf if row[told] is None else sign * row[told])


def _pairs(ctx: Context, judged: Judged, scores: Scores, copies: Copies) -> dict[str, list[Pair]]:
    """The pairs of images that the page shows."""
    data, key, pictures = ctx.data, scores.key, judged.pictures
    name_of = ctx.space.display
    alike = [
        Pair(
            pictures[int(key[rows[0]])],
            pictures[int(key[rows[1]])],
            f"{name_of(scores.label[rows[0]])}: {len(rows)} alike",
        )
        for rows in copies.groups[:SHOWN]
    ]
    memorised = [
        Pair(
            pictures[int(key[row])],
            data.train_pixels[real],
            f"{name_of(scores.label[row])}: similarity {similarity:.4f}",
        )
        for row, real, similarity in zip(
            copies.memorised[:SHOWN], copies.real_id, copies.similarity, strict=False
        )
    ]
    return {"duplicates": alike, "memorised": memorised}


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
