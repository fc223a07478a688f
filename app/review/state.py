"""One tab of the review app: the samples, the verdicts on them, what this tab can undo, and which
samples a filter shows in what order.

Pages draw what is here and in the modules beside it; none of these knows of Streamlit.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from cgankd.app.review.subject import SCORES, Subject, open_subject
from cgankd.curation.policies.selection import REASONS
from cgankd.shardset.errors import BadInput
from cgankd.shardset.reviews import (
    NONE,
    VERDICTS,
    Reviews,
    ReviewSession,
    Verdict,
    checked_label,
    decided,
    read_reviews,
)

KEYS_IN_A_LINE = 1_000_000
CLEAR, FLAG = VERDICTS.index("clear"), VERDICTS.index("flag")
UNREVIEWED = "none"
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
SORTABLE = tuple(COLUMN_NAMES)


@dataclass
class ReviewState:
    """Verdicts as they are on disk, aligned with the subject's rows. Make it with `open`."""

    subject: Subject
    session: ReviewSession
    verdict: np.ndarray  # int8 [n], an index into VERDICTS, NONE where there is no verdict
    relabelled: np.ndarray  # float64 [n], NaN but for relabel
    comments: np.ndarray  # object [n], "" where none was made
    reviewers: np.ndarray  # object [n], whose verdict it is
    undoable: list[Reviews] = field(default_factory=list)  # what stood before each decision

    @classmethod
    def open(
        cls,
        spec: str | Path | Subject,
        session: str | None = None,
        selection: str | None = None,
        reviews: Path | None = None,
    ) -> "ReviewState":
        """The state of a folder, or of a subject that is open already, as it lies on disk.

        Each tab has a session of its own: a random name, unless one is given.
        """
        subject = spec if isinstance(spec, Subject) else open_subject(spec, selection, reviews)
        state = cls(
            subject,
            ReviewSession.open(subject.reviews, session),
            verdict=np.full(len(subject), NONE, np.int8),
            relabelled=np.full(len(subject), np.nan),
            comments=np.full(len(subject), "", object),
            reviewers=np.full(len(subject), "", object),
        )
        state.refresh()
        return state

    def refresh(self) -> None:
        """Reads the verdicts that all tabs have given so far."""
        stored = read_reviews(self.subject.reviews, self.subject.key, self.subject.space)
        self.verdict[:], self.relabelled[:] = NONE, np.nan
        self.comments[:], self.reviewers[:] = "", ""
        self._show(stored)

    def verdict_text(self, row: int) -> str:
        """The verdict on a row, with its new label; empty where there is none."""
        code = self.verdict[row]
        if code == NONE:
            return ""
        label = self.relabelled[row].item()
        shown = "" if np.isnan(label) else f" {self.subject.space.display(label)}"
        return f"{VERDICTS[code]}{shown}"

    def give(
        self,
        rows: np.ndarray,
        verdict: Verdict,
        *,
        reviewer: str,
        label: int | float | None = None,
        comment: str = "",
    ) -> None:
        """Gives a verdict on one row, on many, or on all that match; it is on disk on return.

        rows: int64 `[m]`. `BadInput` for no rows, an unknown label, or a comment too long.
        """
        code = _index(verdict, VERDICTS, "verdict")
        if verdict == "relabel":
            if label is None:
                raise BadInput("relabel needs a label; choose one")
            if self.subject.space.task == "classification" and float(label).is_integer():
                label = int(label)  # a page may say 5.0
            label = checked_label(label, self.subject.space, "the new label")
        before = self._at(rows)
        self._decide(
            before,
            verdict=np.full_like(before.verdict, code),
            label=np.full_like(before.label, np.nan if label is None else label),
            comment=np.full_like(before.comment, comment),
            reviewer=np.full_like(before.reviewer, reviewer),
        )

    def comment(self, rows: np.ndarray, text: str, *, reviewer: str) -> None:
        """Replaces the comments on rows int64 `[m]`; a row without a verdict is flagged."""
        before = self._at(rows)
        self._decide(
            before,
            verdict=np.where(before.verdict == NONE, FLAG, before.verdict),
            comment=np.full_like(before.comment, text),
            reviewer=np.full_like(before.reviewer, reviewer),
        )

    def undo(self, *, reviewer: str) -> np.ndarray | None:
        """The rows of this tab's last decision, whose verdicts before it are given again.

        `None` where there is nothing to undo. A verdict that another tab gave since is undone too.
        """
        if not self.undoable:
            return None
        before = self.undoable[-1]
        had_none = before.verdict == NONE
        self._write(
            replace(
                before,
                verdict=np.where(had_none, CLEAR, before.verdict),
                reviewer=np.where(had_none, reviewer, before.reviewer),
            )
        )
        self.undoable.pop()
        return self.subject.rows_of(before.key)

    def counts(self) -> dict[str, int]:
        """The number of samples with each verdict that occurs."""
        return self.reviews().counts()

    def reviews(self) -> Reviews:
        """The verdicts in force, as a selection reads them."""
        return self._columns(np.flatnonzero(self.verdict != NONE))

    def _columns(self, rows: np.ndarray) -> Reviews:
        columns = (self.subject.key, self.verdict, self.relabelled, self.comments, self.reviewers)
        return Reviews(*(column[rows] for column in columns))

    def _at(self, rows: np.ndarray) -> Reviews:
        """The verdicts on distinct rows, ascending, NONE included; `BadInput` for no row."""
        if not np.size(rows):
            raise BadInput("no sample is chosen; choose one, or change the filter")
        return self._columns(np.unique(np.asarray(rows, np.int64)))

    def _decide(self, before: Reviews, **after: np.ndarray) -> None:
        """Writes a decision that can be undone."""
        self._write(replace(before, **after))
        self.undoable.append(before)

    def _write(self, after: Reviews) -> None:
        """Writes verdicts in one piece, a line for each different one, then shows them."""
        is_class = self.subject.space.task == "classification"
        by = ["verdict", "label", "comment", "reviewer"]
        decisions = []
        for same, keys in pd.DataFrame(vars(after)).groupby(by, dropna=False)["key"]:
            code, label, comment, reviewer = same
            known = None if np.isnan(label) else int(label) if is_class else float(label)
            for start in range(0, len(keys), KEYS_IN_A_LINE):
                part = tuple(keys.iloc[start : start + KEYS_IN_A_LINE].tolist())
                key = part[0] if len(part) == 1 else part
                decisions.append(decided(key, VERDICTS[code], known, comment, reviewer))
        self.session.append(decisions)
        self._show(after)

    def _show(self, given: Reviews) -> None:
        rows, cleared = self.subject.rows_of(given.key), given.verdict == CLEAR
        self.verdict[rows] = np.where(cleared, NONE, given.verdict)
        self.relabelled[rows] = given.label
        self.comments[rows] = np.where(cleared, "", given.comment)
        self.reviewers[rows] = np.where(cleared, "", given.reviewer)


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
        mask &= np.isin(subject.reason, [_index(r, REASONS, "reason") for r in wanted.reasons])
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
        names = (UNREVIEWED, *VERDICTS)  # from NONE on
        mask &= np.isin(verdict, [NONE + _index(v, names, "verdict") for v in wanted.verdicts])
    return mask


def ordered(
    subject: Subject, verdict: np.ndarray, mask: np.ndarray, by: str, descending: bool = False
) -> np.ndarray:
    """The rows int64 of a mask by one column of `SORTABLE`; equal ones by key, those without a
    value last. `BadInput` for another column.
    """
    _index(by, SORTABLE, "column")
    rows = np.flatnonzero(mask)
    if by == "key":
        return rows[::-1] if descending else rows
    columns = {**subject.scores, "verdict": verdict}
    values = (columns[by] if by in columns else getattr(subject, by))[rows].astype(np.float64)
    order = np.argsort(-values if descending else values, kind="stable")  # NaN goes last
    return rows[order]


def page(rows: np.ndarray, number: int, size: int) -> np.ndarray:
    """The rows of one page, counted from 0; the last one where there are fewer pages."""
    number = min(max(number, 0), max(pages(rows, size) - 1, 0))
    return rows[number * size : (number + 1) * size]


def pages(rows: np.ndarray, size: int) -> int:
    """How many pages rows fill."""
    return -(-len(rows) // size)


def _index(name: str, names: tuple[str, ...], what: str) -> int:
    if name not in names:
        raise BadInput(f"{what} {name!r} is not one of {', '.join(names)}")
    return names.index(name)
