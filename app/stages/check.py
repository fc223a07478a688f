"""`cgankd check`: is a selection fit to be published, and if not, what to change."""

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
import pyarrow.compute as pc

from cgankd.app.context import Context, Facts
from cgankd.app.pages.check_copies import copies_facts, find_copies, image_pairs
from cgankd.app.pages.check_judging import NET, by_the_judge, judge_pool
from cgankd.app.pages.check_labels import finite, label_rows
from cgankd.app.pages.check_learning import learned, learning_rows
from cgankd.app.pages.check_limits import REMEDIES, failures
from cgankd.app.pages.check_page import render_check
from cgankd.app.pages.check_selectors import by_the_ratio, teacher_on_kept, teacher_on_real
from cgankd.app.pages.check_sets import kept_of, sets_of_arms
from cgankd.app.pages.check_steps import bound_facts, told_apart, two_sample_facts
from cgankd.app.stages.neighbours import read_neighbours, search
from cgankd.app.stages.selections import read_scores
from cgankd.curation.metrics.measured import Measured
from cgankd.shardset.errors import CheckFailed
from cgankd.shardset.files import sha256_file, write_bytes, write_json


def check(ctx: Context, name: str) -> Facts:
    """What `check/check.json` says of a selection; `check/check.html` shows it.

    `CheckFailed`, after both were written, where a threshold of the recipe's check is not met. No
    test image is looked at.
    """
    search(ctx)
    scores, neighbours = read_scores(ctx), read_neighbours(ctx)
    kept, policy, table = kept_of(ctx, name, len(scores.key))
    copies = find_copies(ctx, neighbours, scores, kept)
    own = learning_rows(ctx, kept)
    keys = scores.key[kept.rows[own]].tolist()
    judged = judge_pool(ctx, [*keys, *scores.key[copies.shown].tolist()])
    sets = {**sets_of_arms(ctx, scores), name: kept}
    told = told_apart(ctx, judged, sets)
    pixels = np.stack([judged.pictures[key] for key in keys])
    learnt, learning = learned(ctx, pixels, kept.labels[own])
    numbers = (
        *by_the_judge(ctx, judged, kept),
        *learnt,
        *teacher_on_kept(ctx, scores, kept, policy),
        *teacher_on_real(ctx),
        *by_the_ratio(ctx, scores, kept, policy, copies),
    )
    of_all = {row.metric: finite(row.value) for row in numbers if row.kind == "all"}
    overall = {
        "memorised": len(copies.memorised) / len(kept.rows),
        "duplicates": of_all["duplicate_rate"],
        "auc": told[name].overall.auc if told else None,
        **{limit: of_all[limit] for limit in REMEDIES if limit in of_all},
    }
    ratio, bound = ctx.run.stage_facts("ratio"), bound_facts(ctx, scores, sets, told)
    broken = failures(ctx.recipe.check, overall)
    advice = [f"{line} {REMEDIES[limit]}" for limit, line in broken.items()]
    advice += [f"Density ratio refused: {problem}" for problem in ratio["problems"]]
    reasons = pc.value_counts(table["reason"].drop_null()).to_pylist()
    facts: Facts = {
        "selection": name,
        "selection_sha256": sha256_file(ctx.run.selections / f"{name}.parquet"),
        "failures": list(broken.values()),
        "advice": [*advice, *([f"Error bound: {bound['line']}"] if bound else [])],
        "limits": ctx.recipe.check.model_dump(mode="json"),
        "overall": overall,
        "pool": len(table),
        "kept": len(kept.rows),
        "dropped": {row["values"]: row["counts"] for row in reasons},
        "labels": label_rows(ctx, kept, copies, told.get(name), numbers),
        "two_sample": two_sample_facts(ctx, told),
        "bound": bound,
        "ratio": {"problems": ratio["problems"], "overall": ratio["overall"]},
        **copies_facts(scores, copies),
        "judge": {"net": NET, "sha256": judged.sha256, "images": judged.images},
        "learned": learning,
        "metrics": [_row(number) for number in numbers],
    }
    write_json(ctx.run.check / "check.json", facts)
    pairs = image_pairs(ctx, judged.pictures, scores, copies)
    page = render_check(ctx.recipe.name, ctx.space, facts, pairs)
    write_bytes(ctx.run.check / "check.html", page.encode())
    ctx.console.note(f"check {ctx.run.check / 'check.html'}")
    for line in facts["advice"]:
        ctx.console.note(line)
    if broken:
        raise CheckFailed(
            f"{name} is beyond {len(broken)} of the recipe's check thresholds: "
            f"{next(iter(broken.values()))} See {ctx.run.check / 'check.html'}"
        )
    return facts


def _row(number: Measured) -> Mapping[str, object]:
    """A number as check.json holds it."""
    return {
        **asdict(number),
        "value": finite(number.value),
        "interval": number.interval and list(number.interval),
    }
