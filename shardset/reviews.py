"""What reviewers decided: `reviews/<session>.jsonl`, appended to, never changed.

A line is one decision on one key or on many. It is on disk before `append` returns, whole or not
at all. Each tab or process has a session, and so a file, of its own; of all decisions on a key the
latest counts: by time, then session, then line. The pool itself is never edited.
"""

import errno
import fcntl
import hashlib
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import AwareDatetime, Field, ValidationError, model_validator

from cgankd.shardset.errors import BadInput
from cgankd.shardset.files import naming_full_disk, sync_file
from cgankd.shardset.identity import KEYS
from cgankd.shardset.labels import ContinuousLabels, LabelSpace
from cgankd.shardset.records import Record

Verdict = Literal["accept", "reject", "relabel", "flag", "clear"]
VERDICTS: tuple[Verdict, ...] = ("accept", "reject", "relabel", "flag", "clear")
DECIDING = ("accept", "reject", "relabel")  # what a selection heeds; a flag is a note to people
NONE = -1
MAX_LINE = 16 << 20  # bytes: a million keys fit
SESSION_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
EXACT = 2**53  # whole numbers up to here are floats too
TICK = timedelta(microseconds=1)

Key = Annotated[int, Field(ge=0, lt=KEYS)]
Label = Annotated[int, Field(ge=-EXACT, le=EXACT)] | Annotated[float, Field(allow_inf_nan=False)]


class Decision(Record):
    """What a reviewer says of one key, or of several at once; `clear` takes back what was said."""

    key: Key | Annotated[tuple[Key, ...], Field(min_length=1)]
    verdict: Verdict
    label: Label | None = None
    comment: str = Field("", max_length=2000)
    reviewer: str = Field(min_length=1, max_length=100)

    @model_validator(mode="after")
    def _label_goes_with_relabel(self) -> Self:
        if (self.label is not None) != (self.verdict == "relabel"):
            raise ValueError("relabel needs a label, and no other verdict has one")
        return self


class Line(Decision):
    """A decision as it lies on disk."""

    time: AwareDatetime


@dataclass(frozen=True)
class Reviews:
    """The latest verdict on each reviewed key; keys whose verdict was cleared are left out."""

    key: np.ndarray  # int64 [n], ascending
    verdict: np.ndarray  # int8 [n], an index into VERDICTS
    label: np.ndarray  # float64 [n], NaN but for relabel
    comment: np.ndarray  # object [n]
    reviewer: np.ndarray  # object [n]

    def deciding(self) -> "Reviews":
        """Those that a selection heeds: accept, reject, relabel."""
        rows = np.isin(self.verdict, [VERDICTS.index(name) for name in DECIDING])
        return Reviews(*(column[rows] for column in vars(self).values()))

    def counts(self) -> dict[str, int]:
        """The number of keys with each verdict that occurs."""
        times = np.bincount(self.verdict, minlength=len(VERDICTS)).tolist()
        return {name: count for name, count in zip(VERDICTS, times, strict=True) if count}

    def sha256(self) -> str:
        """The sha256 of keys, verdicts and labels: not of who said so, when, or with what words."""
        digest = hashlib.sha256()
        for column, kind in ((self.key, "<i8"), (self.verdict, "i1"), (self.label, "<f8")):
            digest.update(column.astype(kind).tobytes())
        return digest.hexdigest()


def read_reviews(
    folder: Path, keys: np.ndarray | None = None, space: LabelSpace | None = None
) -> Reviews:
    """The latest verdicts of all sessions; none where there is no folder.

    `keys` (int64 ascending) are the pool's, `space` its labels. A last line without its end was
    cut by a crash and does not count. `BadInput` names the file and the line that is no decision,
    or is on a key or with a label that the pool does not have.
    """
    places, lines = _in_order(folder)
    if not lines:
        none = np.empty(0, object)
        return Reviews(np.empty(0, np.int64), np.empty(0, np.int8), np.empty(0), none, none)
    on = [np.atleast_1d(np.array(line.key, np.int64)) for line in lines]
    key, by = np.concatenate(on), np.repeat(np.arange(len(on)), [len(some) for some in on])
    if keys is not None and (strange := np.flatnonzero(~np.isin(key, keys))).size:
        raise BadInput(
            f"{places[by[strange[0]]]}: key {key[strange[0]]} is not in this pool of "
            f"{len(keys):,}; the file belongs to another one, move it away"
        )
    if space is not None:
        for place, line in zip(places, lines, strict=True):
            if line.label is not None:
                checked_label(line.label, space, place)
    key, last = np.unique(key[::-1], return_index=True)
    by = by[::-1][last]
    verdict = np.array([VERDICTS.index(line.verdict) for line in lines], np.int8)[by]
    label = np.array([np.nan if line.label is None else line.label for line in lines], float)[by]
    comment = np.array([line.comment for line in lines], object)[by]
    reviewer = np.array([line.reviewer for line in lines], object)[by]
    stands = verdict != VERDICTS.index("clear")
    return Reviews(*(column[stands] for column in (key, verdict, label, comment, reviewer)))


def decided(
    key: int | tuple[int, ...],
    verdict: Verdict,
    label: int | float | None,
    comment: str,
    reviewer: str,
) -> Decision:
    """A decision from what a person typed; `BadInput` says which part of it is impossible."""
    try:
        return Decision(key=key, verdict=verdict, label=label, comment=comment, reviewer=reviewer)
    except ValidationError as error:
        raise BadInput(f"the verdict was not saved: {_problem(error)}") from error


def checked_label(label: int | float, space: LabelSpace, where: str) -> int | float:
    """The label as the space holds it; `BadInput` unless it is one of the space's."""
    if isinstance(space, ContinuousLabels):
        label = float(label)
    elif not isinstance(label, int):
        raise BadInput(f"{where}: label {label} is not a class; give its number")
    space.check(np.array([label]), where)
    return label


@dataclass
class ReviewSession:
    """One tab's or process's own file of decisions. Make it with `open`."""

    path: Path
    newest: datetime  # of all decisions known: what is decided next is later, whatever the clock

    @classmethod
    def open(cls, folder: Path, name: str | None = None) -> "ReviewSession":
        """The session of that name in a folder of reviews, a new one with a random name if none is
        given; nothing is written before the first decision.
        """
        name = secrets.token_hex(8) if name is None else name
        if not SESSION_NAME.fullmatch(name):
            raise BadInput(
                f"session {name!r}: expected up to 64 letters, digits, hyphens and underscores"
            )
        _, lines = _in_order(folder)
        newest = lines[-1].time if lines else datetime.fromtimestamp(0, UTC)
        return cls(folder / f"{name}.jsonl", newest)

    def append(self, decisions: Sequence[Decision]) -> None:
        """Writes decisions in one piece and returns when they are on disk.

        What a crash cut off the file's last line before is removed first. `BadInput` for a full
        disk or decisions that are too long; nothing is written then.
        """
        time = max(datetime.now(UTC), self.newest + TICK)
        lines = [Line(**dict(decision), time=time) for decision in decisions]
        texts = [line.model_dump_json().encode() + b"\n" for line in lines]
        for text in texts:
            if len(text) > MAX_LINE:
                raise BadInput(
                    f"{self.path}: a decision takes {len(text):,} bytes, at most {MAX_LINE:,} are "
                    "read; decide on fewer samples at once"
                )
        with naming_full_disk(self.path), self._locked() as handle:
            size = _mended(handle)
            data = b"".join(texts)
            try:
                if os.write(handle, data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
                os.fsync(handle)
            except OSError:
                os.ftruncate(handle, size)
                raise
        self.newest = time

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """The open file; another process with the same session's name waits for its turn."""
        is_new = not self.path.exists()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if is_new:
                sync_file(self.path.parent)
                sync_file(self.path.parent.parent)
            yield handle
        finally:
            os.close(handle)


def _mended(handle: int) -> int:
    """The size of a file after what follows its last line's end was cut off."""
    size = end = os.fstat(handle).st_size
    while end:
        start = max(0, end - (1 << 16))
        cut = os.pread(handle, end - start, start).rfind(b"\n") + 1
        end = start + cut
        if cut:
            break
    if end != size:
        os.ftruncate(handle, end)
    return end


def _in_order(folder: Path) -> tuple[list[str], list[Line]]:
    """All decisions, the latest last, and the file and line of each."""
    entries = [
        (line.time, path.stem, number, f"{path} line {number}", line)
        for path in sorted(folder.glob("*.jsonl"))
        for number, line in _lines(path)
    ]
    entries.sort(key=lambda entry: entry[:3])
    return [place for *_, place, _ in entries], [line for *_, line in entries]


def _lines(path: Path) -> Iterator[tuple[int, Line]]:
    with open(path, "rb") as file:
        number = 0
        while text := file.readline(MAX_LINE + 1):
            number += 1
            if len(text) > MAX_LINE:
                raise _no_decision(path, number, f"is longer than {MAX_LINE:,} bytes")
            if not text.endswith(b"\n"):
                return
            try:
                yield number, Line.model_validate_json(text)
            except ValidationError as error:
                raise _no_decision(path, number, f"is no decision ({_problem(error)})") from error


def _no_decision(path: Path, number: int, what: str) -> BadInput:
    return BadInput(f"{path} line {number} {what}; remove that line or move the file away")


def _problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in problem["loc"][:1])
    message = problem["msg"].removeprefix("Value error, ")
    return f"{place + ': ' if place else ''}{message}"
