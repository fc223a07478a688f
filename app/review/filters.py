"""Which samples are shown, in what order, and how many of them there are."""

from dataclasses import dataclass

import numpy as np

from cgankd.app.review.subject import SCORES, Subject
from cgankd.curation.policies.selection import KEPT, REASONS
from cgankd.shardset.errors import BadInput
from cgankd.shardset.reviews import VERDICTS

UNREVIEWED = "none"
SORTABLE = ("key", "label", "original_label", "reason", "verdict", "duplicate_group", *SCORES)
COLUMN_NAMES = {
    "key": "key",
    "label": "label",
    "original_label": "assigned label",
    "reason": "reason of the drop",
    "verdict": "verdict",
    "duplicate_group": "group of duplicates",
    "density_ratio": "density ratio",
    "teacher_error": "teacher's error",
    "teacher_entropy": "teacher's entropy",
    "nearest_real_similarity": "similarity to a real image",
    "outlier": "distance from its label",
}


@dataclass(frozen=True)
class Filter:
    """What a sample must be to be shown; what is left as it is lets everything pass.

    Labels are those that samples were made for, before any replacement.
    """

    labels: tuple[int, ...] = ()  # classes; none: all
    label_range: tuple[float, float] | None = None  # in the label's unit, both ends included
    kept: bool | None = None
    reasons: tuple[str, ...] = ()  # of a drop; none: all
    ranges: tuple[tuple[str, float, float], ...] = ()  # a score, least and largest value
    duplicates: bool = False  # near-duplicates alone
    memorised: bool = False
    teacher_disagrees: bool = False
    verdicts: tuple[str, ...] = ()  # of `VERDICTS`, or `UNREVIEWED`; none: all


def matching(subject: Subject, verdict: np.ndarray, wanted: Filter) -> np.ndarray:
    """Bool `[n]`: the samples that a filter lets pass; `verdict` int8 `[n]` as in `ReviewState`.

    A sample without a score is in no range of it. `BadInput` for an unknown name.
    """
    mask = np.ones(len(subject), bool)
    if wanted.labels:
        mask &= np.isin(subject.original_label, wanted.labels)
    if wanted.label_range is not None:
        low, high = wanted.label_range
        mask &= (subject.original_label >= low) & (subject.original_label <= high)
    if wanted.kept is not None:
        mask &= subject.kept == wanted.kept
    if wanted.reasons:
        codes = [_index(name, REASONS, "reason") for name in wanted.reasons]
        mask &= np.isin(subject.reason, codes)
    for name, low, high in wanted.ranges:
        _index(name, SCORES, "score")
        values = subject.scores[name]
        # As float32, so that a limit which was read from a score lets that score pass.
        mask &= (values >= np.float32(low)) & (values <= np.float32(high))
    if wanted.duplicates:
        mask &= subject.duplicate_group >= 0
    if wanted.memorised:
        mask &= subject.memorised
    if wanted.teacher_disagrees:
        mask &= subject.teacher_disagrees
    if wanted.verdicts:
        names = (*VERDICTS, UNREVIEWED)
        codes = [_index(name, names, "verdict") for name in wanted.verdicts]
        codes = [-1 if code == len(VERDICTS) else code for code in codes]
        mask &= np.isin(verdict, codes)
    return mask


def ordered(
    subject: Subject, verdict: np.ndarray, mask: np.ndarray, by: str, descending: bool = False
) -> np.ndarray:
    """The rows int64 of a mask by one column of `SORTABLE`; equal ones by key, those without a
    value last.
    """
    rows = np.flatnonzero(mask)
    if by == "key":
        return rows[::-1] if descending else rows
    values = column(subject, verdict, by)[rows].astype(np.float64)
    order = np.argsort(-values if descending else values, kind="stable")  # NaN goes last
    return rows[order]


def column(subject: Subject, verdict: np.ndarray, name: str) -> np.ndarray:
    """One column of `SORTABLE`, `[n]`."""
    _index(name, SORTABLE, "column")
    if name in SCORES:
        return subject.scores[name]
    return verdict if name == "verdict" else getattr(subject, name)


def page(rows: np.ndarray, number: int, size: int) -> np.ndarray:
    """The rows of one page, counted from 0; the last one where there are fewer pages."""
    number = min(max(number, 0), max(pages(rows, size) - 1, 0))
    return rows[number * size : (number + 1) * size]


def pages(rows: np.ndarray, size: int) -> int:
    """How many pages rows fill."""
    return -(-len(rows) // size)


@dataclass(frozen=True)
class Counts:
    """How many samples of each group of assigned labels were kept, and dropped for what."""

    names: tuple[str, ...]  # of the groups
    kept: np.ndarray  # int64 [groups]
    dropped: dict[str, np.ndarray]  # reason → int64 [groups]; reasons that occur

    @property
    def produced(self) -> np.ndarray:
        """Int64 `[groups]`."""
        return self.kept + sum(self.dropped.values())


def counted(subject: Subject, reason: np.ndarray | None = None) -> Counts:
    """The counts of the subject's selection, or of other reasons int8 `[n]`."""
    reason = subject.reason if reason is None else reason
    groups, kinds = len(subject.space.group_names), len(REASONS) + 1
    cells = np.bincount(subject.group * kinds + (reason - KEPT), minlength=groups * kinds)
    table = cells.reshape(groups, kinds)
    dropped = {name: table[:, code + 1] for code, name in enumerate(REASONS)}
    return Counts(
        subject.space.group_names,
        table[:, 0],
        {name: counts for name, counts in dropped.items() if counts.any()},
    )


@dataclass(frozen=True)
class Histogram:
    """How a score is distributed among samples that were kept, and that were dropped."""

    score: str
    edges: np.ndarray  # float64 [bins + 1]
    kept: np.ndarray  # int64 [bins]
    dropped: np.ndarray  # int64 [bins]


def histogram(
    subject: Subject, score: str, bins: int = 40, edges: np.ndarray | None = None
) -> Histogram | None:
    """A score's histogram; `None` where no sample has the score.

    The bins reach to the 0.5 % least and largest values, which the outermost ones take in.
    """
    _index(score, SCORES, "score")
    values = subject.scores[score]
    there = np.isfinite(values)
    if not there.any():
        return None
    if edges is None:
        low, high = np.quantile(values[there].astype(np.float64), [0.005, 0.995])
        edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    clipped = np.clip(values, edges[0], edges[-1])
    kept, dropped = (
        np.histogram(clipped[there & part], edges)[0] for part in (subject.kept, ~subject.kept)
    )
    return Histogram(score, edges, kept, dropped)


def _index(name: str, names: tuple[str, ...], what: str) -> int:
    if name not in names:
        raise BadInput(f"{what} {name!r} is not one of {', '.join(names)}")
    return names.index(name)
