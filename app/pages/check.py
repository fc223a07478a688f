"""The page of `cgankd check`: check.json in plain words, with pairs of images."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from cgankd.app.pages import number, page_templates, percent
from cgankd.app.pages.figures import draw_grid
from cgankd.app.pages.records import CheckFacts, ImageGrid
from cgankd.curation.metrics import Measured
from cgankd.shardset.labels import ContinuousLabels, LabelSpace

PAIR_WIDTH = 132  # CSS pixels that two images take
REMEDIES = {
    "memorised": "Set policy.copies.threshold: calibrated; more real images help the generator",
    "duplicates": "Set policy.duplicates.threshold: calibrated, or train the generator longer",
    "agreement": "Filter by the teacher (policy.filter.rho), or replace labels",
    "label_score": "Filter by the teacher (policy.filter.rho), or replace labels",
    "auc": "Subsample by density ratio (policy.subsample.accept), or train the generator longer",
}


class Words(NamedTuple):
    """What a number means, in one line, and where good values lie."""

    meaning: str
    good: Literal["higher", "lower", "near 1", "about ½ or higher"]


WORDS = {
    "agreement": Words("Share of kept images whose label the judge tells", "higher"),
    "label_score": Words("Mean |judge − label| of kept images, in the label's unit", "lower"),
    "fid": Words("Distance of kept from real images; falls with their number", "lower"),
    "kid": Words("Distance of kept from real images; about 0 for none, at any number", "lower"),
    "precision": Words("Share of kept images that look like some real one", "higher"),
    "recall": Words("Share of real images that look like some kept one", "higher"),
    "density": Words("How densely real images surround kept ones", "near 1"),
    "coverage": Words("Share of real images with a kept one nearby", "higher"),
    "authenticity": Words(
        "Share of kept images that are no near copies of a training image", "about ½ or higher"
    ),
    "vendi": Words("How many different images the kept ones amount to", "higher"),
    "duplicate_rate": Words("Share that could go without losing a picture", "lower"),
    "effective_sample": Words(
        "Share that is left when kept images are weighted by density ratio", "higher"
    ),
    "classification_accuracy_score": Words(
        "Share of real validation images that a fresh student gets right after it learned from "
        "kept images alone",
        "higher",
    ),
    "learned_error": Words(
        "Mean error, in the label's unit, on real validation images of a fresh student that "
        "learned from kept images alone",
        "lower",
    ),
    "teacher_agreement": Words(
        "Share of kept images that the teacher gives their label; 1 where it replaced them",
        "higher",
    ),
    "teacher_label_score": Words(
        "Mean |teacher − label| of kept images, in the label's unit; 0 where it replaced them",
        "lower",
    ),
    "teacher_accuracy": Words("Share of real images that the teacher gets right", "higher"),
    "teacher_error": Words(
        "Mean error of the teacher on real images, in the label's unit", "lower"
    ),
    "teacher_calibration_error": Words(
        "Mean gap between the teacher's confidence and how often it gives the kept label", "lower"
    ),
    "teacher_calibration_error_on_real": Words(
        "Mean gap between the teacher's confidence and how often it is right on real images",
        "lower",
    ),
}  # fmt: skip

RATIO_WORDS = {
    "gain": "How much its held-out loss is below that of a constant ratio; higher is better",
    "gain_error": "Standard error of the gain, which must be clearly larger",
    "held_out_loss": "Loss on held-out samples; lower is better, −1.3133 means it knows nothing",
    "tell_apart": "How often a real image outranks a generated one; ½ where they are alike",
    "mean_generated": "Mean ratio of generated images; must be near 1",
    "mean_error": "Standard error of that mean",
    "mean_real": "Mean ratio of real images; 1 where they are like generated ones, else more",
    "effective_sample": "Share that is left when the pool is weighted by the ratio",
    "acceptance": "Share that rejection would keep: mean over largest ratio",
    "largest": "The largest ratio of a generated image",
    "dominance": "The largest ratio in 99 % quantiles; near 1 where no image stands out",
    "real_images": "Real images it was measured on",
    "generated_images": "Generated images it was measured on",
    "not_numbers": "Ratios that were no numbers; must be 0",
}
STEP_WORDS = {
    "raw": "the pool with its assigned labels, up to the quota",
    "subsampled": "by density ratio alone",
    "filtered": "by density ratio, then by the teacher",
    "relabelled": "by density ratio, with the teacher's labels",
}
HEADLINES = {
    "memorised": "of the kept are copies of training images",
    "duplicates": "are near-duplicates",
    "auc": "AUC of telling them from real images (½ is best)",
    "agreement": "have the label that the judge tells",
    "label_score": "is the mean |judge − label|",
}
SHARES = ("memorised", "duplicates", "agreement")


def render_check(
    title: str, space: LabelSpace, facts: CheckFacts, pairs: Mapping[str, Sequence[ImageGrid]]
) -> str:
    """The page's HTML; every text is escaped, nothing is loaded from elsewhere."""
    return (
        page_templates()
        .get_template("check.html.j2")
        .render(
            title=title,
            space=space,
            facts=facts,
            headlines=[
                (percent(value) if name in SHARES else number(value), headline(name, space))
                for name, value in facts.overall.items()
            ],
            words=WORDS,
            step_words=STEP_WORDS,
            ratio_words=RATIO_WORDS,
            overall={
                metric: [n for n in facts.metrics if n.kind == "all" and n.metric == metric]
                for metric in WORDS
            },
            by_label=_table(facts.metrics, "group"),
            by_window=_table(facts.metrics, "window"),
            width=PAIR_WIDTH,
            pairs={kind: list(map(draw_grid, grids)) for kind, grids in pairs.items()},
        )
    )


def _table(metrics: Sequence[Measured], kind: str) -> dict[str, Any]:
    """The numbers of one kind: a row for each place, a column for each metric and reference."""
    rows: dict[str, dict[tuple[str, str], float]] = {}
    for one in metrics:
        if one.kind == kind:
            split, beside = one.judge.split, "on" if one.references is None else "against"
            column = one.metric.replace("_", " "), f"{beside} {split}" if split else ""
            rows.setdefault(one.place, {})[column] = one.value
    columns = list(dict.fromkeys(column for row in rows.values() for column in row))
    return {
        "columns": columns,
        "rows": [(place, [row.get(column) for column in columns]) for place, row in rows.items()],
    }


def headline(name: str, space: LabelSpace) -> str:
    """What stands after a number at the head of the page."""
    unit = f"{space.unit} " if name == "label_score" and isinstance(space, ContinuousLabels) else ""
    return unit + HEADLINES[name]


def failures(
    limits: Mapping[str, float | None], overall: Mapping[str, float | None]
) -> dict[str, str]:
    """A line for each limit that is not met; what cannot be measured does not meet one."""
    lines = {}
    for name, limit in limits.items():
        value = overall.get(name)
        least = name == "agreement"
        if limit is None:
            continue
        if value is None:
            lines[name] = f"{name} cannot be measured here, and check.{name} is {limit:g}."
        elif value < limit if least else value > limit:
            side = "least" if least else "most"
            lines[name] = f"{name} is {value:.4g}, at {side} {limit:g} was asked for."
    return lines
