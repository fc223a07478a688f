"""One tab of the review app: the samples, what was said of them, and what this tab can undo.

Pages draw what is here and in the files beside it (`review_opening`, `review_data`,
`review_filters`, `review_images`, `review_sample`, `review_policy`, `review_compare`,
`review_blind`); nothing in them knows of Streamlit.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from cgankd.app.review.data import Subject
from cgankd.app.review.opening import open_subject
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
class Standing:
    """What stands on some rows, NONE included."""

    rows: np.ndarray  # int64 [m]
    verdict: np.ndarray  # int8 [m], an index into VERDICTS, or NONE
    label: np.ndarray  # float64 [m], NaN but for relabel
    words: np.ndarray  # int32 [m], an index into the state's `texts`


@dataclass(frozen=True)
class Words:
    """A comment and who wrote it."""

    comment: str
    reviewer: str


@dataclass(frozen=True)
class Part:
    """One verdict on rows int64 `[m]`."""

    rows: np.ndarray
    verdict: Verdict
    label: int | float | None
    words: Words


@dataclass
class ReviewState:
    """Verdicts as they are on disk, aligned with the subject's rows. Make it with `open`."""

    subject: Subject
    session: ReviewSession
    verdict: np.ndarray  # int8 [n], an index into VERDICTS, NONE where nothing was said
    relabelled: np.ndarray  # float64 [n], NaN but for relabel
    words: np.ndarray  # int32 [n], an index into `texts`
    texts: list[Words] = field(default_factory=lambda: [Words("", "nobody")])
    undoable: list[Standing] = field(default_factory=list)

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
        opened, count = ReviewSession.open(subject.reviews, session), len(subject)
        state = cls(
            subject,
            opened,
            verdict=np.full(count, NONE, np.int8),
            relabelled=np.full(count, np.nan),
            words=np.zeros(count, np.int32),
        )
        state.refresh()
        return state

    def refresh(self) -> None:
        """Reads what all tabs have said so far."""
        found = read_reviews(self.subject.reviews, self.subject.key, self.subject.space)
        rows = self.subject.rows_of(found.key)
        self.verdict[:], self.relabelled[:], self.words[:] = NONE, np.nan, 0
        self.verdict[rows], self.relabelled[rows] = found.verdict, found.label
        texts = zip(found.comment.tolist(), found.reviewer.tolist(), strict=True)
        number: dict[tuple[str, str], int] = {}
        first = len(self.texts)
        self.words[rows] = [number.setdefault(text, first + len(number)) for text in texts]
        self.texts += [Words(*text) for text in number]

    def said_of(self, row: int) -> Words | None:
        """The comment on a row and who made it; `None` where nothing was said."""
        return None if self.verdict[row] == NONE else self.texts[self.words[row]]

    def give(
        self,
        rows: np.ndarray,
        verdict: Verdict,
        *,
        reviewer: str,
        label: int | float | None = None,
        comment: str = "",
    ) -> None:
        """Says something of one row, of many, or of all that match; it is on disk on return.

        rows: int64 `[m]`. `BadInput` for no rows, an unknown label, or words too long.
        """
        if verdict == "relabel":
            if label is None:
                raise BadInput("relabel needs a label; choose one")
            label = checked_label(label, self.subject.space, "the new label")
        rows = _chosen(rows)
        self._do(rows, [Part(rows, verdict, label, Words(comment, reviewer))])

    def comment(self, rows: np.ndarray, text: str, *, reviewer: str) -> None:
        """Puts other words to the verdicts of rows; those without one are flagged."""
        rows, words = _chosen(rows), Words(text, reviewer)
        parts = [replace(part, words=words) for part in self._parts(self._standing(rows))]
        flagged = [
            replace(part, verdict="flag") if part.verdict == "clear" else part for part in parts
        ]
        self._do(rows, flagged)

    def undo(self, *, reviewer: str) -> np.ndarray | None:
        """The rows of this tab's last words, of which is said again what had stood before.

        `None` where there is nothing to undo. What another tab said of them since goes as well.
        """
        if not self.undoable:
            return None
        before = self.undoable[-1]
        cleared = Words("", reviewer)
        self._say(
            [
                replace(part, words=cleared) if part.verdict == "clear" else part
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
        """What stands, as a selection reads it."""
        rows = np.flatnonzero(self.verdict != NONE)
        texts = [self.texts[index] for index in self.words[rows].tolist()]
        return Reviews(
            self.subject.key[rows],
            self.verdict[rows],
            self.relabelled[rows],
            np.array([text.comment for text in texts], object),
            np.array([text.reviewer for text in texts], object),
        )

    def _standing(self, rows: np.ndarray) -> Standing:
        return Standing(rows, self.verdict[rows], self.relabelled[rows], self.words[rows])

    def _parts(self, standing: Standing) -> list[Part]:
        """Rows of one verdict, label, comment and reviewer together; `clear` where none was."""
        columns = (standing.verdict, np.nan_to_num(standing.label, nan=np.inf), standing.words)
        kinds, index = np.unique(np.stack(columns, 1), axis=0, return_inverse=True)
        parts = []
        for number, (code, label, words) in enumerate(kinds.tolist()):
            own = standing.rows[index.ravel() == number]
            verdict = "clear" if code == NONE else VERDICTS[int(code)]
            is_class = self.subject.space.task == "classification"
            known = None if label == np.inf else int(label) if is_class else label
            parts.append(Part(own, verdict, known, self.texts[int(words)]))
        return parts

    def _do(self, rows: np.ndarray, parts: list[Part]) -> None:
        """Says something that can be undone."""
        before = self._standing(rows)
        self._say(parts)
        self.undoable.append(before)

    def _say(self, parts: list[Part]) -> None:
        """Writes decisions in one piece, then shows them."""
        decisions = []
        for part in parts:
            for start in range(0, len(part.rows), KEYS_IN_A_LINE):
                keys = self.subject.key[part.rows[start : start + KEYS_IN_A_LINE]].tolist()
                key = keys[0] if len(keys) == 1 else tuple(keys)
                words = part.words
                decisions.append(
                    decided(key, part.verdict, part.label, words.comment, words.reviewer)
                )
        self.session.append(decisions)
        for part in parts:
            cleared = part.verdict == "clear"
            self.verdict[part.rows] = NONE if cleared else VERDICTS.index(part.verdict)
            self.relabelled[part.rows] = np.nan if part.label is None else part.label
            self.words[part.rows] = 0 if cleared else len(self.texts)
            self.texts.append(part.words)


def _chosen(rows: np.ndarray) -> np.ndarray:
    """Distinct rows int64, ascending; `BadInput` for none."""
    if not np.size(rows):
        raise BadInput("no sample is chosen; choose one, or change the filter")
    return np.unique(np.asarray(rows, np.int64))
