"""One tab of the review app: the samples, the verdicts on them, and what this tab can undo.

Pages draw what is here and in the modules beside it; none of these knows of Streamlit.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from cgankd.app.review.subject import Subject, open_subject
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


@dataclass(frozen=True)
class Remark:
    """A comment, empty where none was made, and the reviewer whose verdict it belongs to."""

    comment: str
    reviewer: str


@dataclass(frozen=True)
class Snapshot:
    """The verdicts on some rows at one moment, NONE included."""

    rows: np.ndarray  # int64 [m]
    verdict: np.ndarray  # int8 [m], an index into VERDICTS, or NONE
    label: np.ndarray  # float64 [m], NaN but for relabel
    remark: np.ndarray  # int32 [m], an index into the state's `remarks`


@dataclass(frozen=True)
class Part:
    """One verdict on rows int64 `[m]`."""

    rows: np.ndarray
    verdict: Verdict
    label: int | float | None
    remark: Remark


@dataclass
class ReviewState:
    """Verdicts as they are on disk, aligned with the subject's rows. Make it with `open`."""

    subject: Subject
    session: ReviewSession
    verdict: np.ndarray  # int8 [n], an index into VERDICTS, NONE where there is no verdict
    relabelled: np.ndarray  # float64 [n], NaN but for relabel
    remark: np.ndarray  # int32 [n], an index into `remarks`
    remarks: list[Remark] = field(default_factory=lambda: [Remark("", "nobody")])
    undoable: list[Snapshot] = field(default_factory=list)

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
            remark=np.zeros(len(subject), np.int32),
        )
        state.refresh()
        return state

    def refresh(self) -> None:
        """Reads the verdicts that all tabs have given so far."""
        stored = read_reviews(self.subject.reviews, self.subject.key, self.subject.space)
        rows = self.subject.rows_of(stored.key)
        self.verdict[:], self.relabelled[:], self.remark[:] = NONE, np.nan, 0
        self.verdict[rows], self.relabelled[rows] = stored.verdict, stored.label
        texts = zip(stored.comment.tolist(), stored.reviewer.tolist(), strict=True)
        number: dict[tuple[str, str], int] = {}
        first = len(self.remarks)
        self.remark[rows] = [number.setdefault(text, first + len(number)) for text in texts]
        self.remarks += [Remark(*text) for text in number]

    def remark_on(self, row: int) -> Remark | None:
        """The comment on a row and its reviewer; `None` where there is no verdict."""
        return None if self.verdict[row] == NONE else self.remarks[self.remark[row]]

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
        if verdict == "relabel":
            if label is None:
                raise BadInput("relabel needs a label; choose one")
            label = checked_label(label, self.subject.space, "the new label")
        rows = _distinct(rows)
        self._decide(rows, [Part(rows, verdict, label, Remark(comment, reviewer))])

    def comment(self, rows: np.ndarray, text: str, *, reviewer: str) -> None:
        """Replaces the comments on rows int64 `[m]`; a row without a verdict is flagged."""
        rows, remark = _distinct(rows), Remark(text, reviewer)
        self._decide(
            rows,
            [
                replace(
                    part,
                    verdict="flag" if part.verdict == "clear" else part.verdict,
                    remark=remark,
                )
                for part in self._parts(self._snapshot(rows))
            ],
        )

    def undo(self, *, reviewer: str) -> np.ndarray | None:
        """The rows of this tab's last decision, whose verdicts before it are given again.

        `None` where there is nothing to undo. A verdict that another tab gave since is undone too.
        """
        if not self.undoable:
            return None
        before = self.undoable[-1]
        cleared = Remark("", reviewer)
        self._write(
            [
                replace(part, remark=cleared) if part.verdict == "clear" else part
                for part in self._parts(before)
            ]
        )
        self.undoable.pop()
        return before.rows

    def counts(self) -> dict[str, int]:
        """The number of samples with each verdict that occurs."""
        times = np.bincount(self.verdict[self.verdict != NONE], minlength=len(VERDICTS))
        return {name: int(n) for name, n in zip(VERDICTS, times, strict=True) if n}

    def reviews(self) -> Reviews:
        """The verdicts in force, as a selection reads them."""
        rows = np.flatnonzero(self.verdict != NONE)
        remarks = [self.remarks[index] for index in self.remark[rows].tolist()]
        return Reviews(
            self.subject.key[rows],
            self.verdict[rows],
            self.relabelled[rows],
            np.array([remark.comment for remark in remarks], object),
            np.array([remark.reviewer for remark in remarks], object),
        )

    def _snapshot(self, rows: np.ndarray) -> Snapshot:
        return Snapshot(rows, self.verdict[rows], self.relabelled[rows], self.remark[rows])

    def _parts(self, before: Snapshot) -> list[Part]:
        """Rows with one verdict, label, comment and reviewer together; `clear` where none was."""
        columns = (before.verdict, np.nan_to_num(before.label, nan=np.inf), before.remark)
        kinds, index = np.unique(np.stack(columns, 1), axis=0, return_inverse=True)
        is_class = self.subject.space.task == "classification"
        parts = []
        for number, (code, label, remark) in enumerate(kinds.tolist()):
            rows = before.rows[index.ravel() == number]
            verdict = "clear" if code == NONE else VERDICTS[int(code)]
            known = None if label == np.inf else int(label) if is_class else label
            parts.append(Part(rows, verdict, known, self.remarks[int(remark)]))
        return parts

    def _decide(self, rows: np.ndarray, parts: list[Part]) -> None:
        """Writes a decision that can be undone."""
        before = self._snapshot(rows)
        self._write(parts)
        self.undoable.append(before)

    def _write(self, parts: list[Part]) -> None:
        """Writes verdicts in one piece, then shows them."""
        decisions = []
        for part in parts:
            for start in range(0, len(part.rows), KEYS_IN_A_LINE):
                keys = self.subject.key[part.rows[start : start + KEYS_IN_A_LINE]].tolist()
                key = keys[0] if len(keys) == 1 else tuple(keys)
                remark = part.remark
                decisions.append(
                    decided(key, part.verdict, part.label, remark.comment, remark.reviewer)
                )
        self.session.append(decisions)
        for part in parts:
            cleared = part.verdict == "clear"
            self.verdict[part.rows] = NONE if cleared else VERDICTS.index(part.verdict)
            self.relabelled[part.rows] = np.nan if part.label is None else part.label
            self.remark[part.rows] = 0 if cleared else len(self.remarks)
            self.remarks.append(part.remark)


def _distinct(rows: np.ndarray) -> np.ndarray:
    """Distinct rows int64, ascending; `BadInput` for none."""
    if not np.size(rows):
        raise BadInput("no sample is chosen; choose one, or change the filter")
    return np.unique(np.asarray(rows, np.int64))
