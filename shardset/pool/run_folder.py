"""A run folder: where each stage's files lie, who works in it, and which stages are done."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from cgankd.shardset.errors import BadInput, RunBusy, StaleStage
from cgankd.shardset.files import canonical_json, fingerprint, parse_json, read_json, write_json

STAGES = (  # in the order in which they run
    "teacher", "generator", "pool", "ratio", "scores", "features", "neighbours",
    "selections", "check", "release", "students", "report",
)  # fmt: skip
# Their results are files or folders that must hold nothing else, so the marker lies beside them.
MARKED_BESIDE = ("selections", "release")
ABSENT = "absent"
RecordT = TypeVar("RecordT", bound=BaseModel)


class _Below:
    """The folder below a run's that is named like the attribute."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, run: "RunFolder", owner: type) -> Path:
        return run.path / self._name


@dataclass(frozen=True)
class RunFolder:
    """One run on disk. Make it with `open`."""

    path: Path

    teacher = _Below()
    generator = _Below()
    ratio = _Below()
    pool = _Below()
    scores = _Below()
    features = _Below()
    neighbours = _Below()
    selections = _Below()
    reviews = _Below()
    release = _Below()
    students = _Below()
    report = _Below()
    check = _Below()

    @classmethod
    def open(cls, path: Path | str, create: bool = False) -> "RunFolder":
        """The run in `path`; `BadInput` if there is none, unless `create` makes it."""
        path = Path(path)
        if path.exists() and not path.is_dir():
            raise BadInput(f"{path} is a file; give a folder for the run")
        if create:
            path.mkdir(parents=True, exist_ok=True)
        elif not path.is_dir():
            raise BadInput(f"{path} is not a run folder; `cgankd run RECIPE --out {path}` makes it")
        return cls(path)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the run for this process; `RunBusy` names the process that already does.

        The system drops the lock when its holder dies, however it dies.
        """
        handle = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                holder = os.read(handle, 32).decode() or "unknown"
                raise RunBusy(
                    f"{self.path} is in use by process {holder}; wait for it or stop it"
                ) from error
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
            yield
        finally:
            os.close(handle)

    def facts(self) -> dict[str, Any]:
        """What `run.json` says so far."""
        path = self.path / "run.json"
        return read_json(path) if path.is_file() else {}

    def record(self, **facts: Any) -> None:
        """Sets top-level entries of `run.json`, leaving the others as they are."""
        with self.changing() as known:
            known.update(facts)

    @contextmanager
    def changing(self) -> Iterator[dict[str, Any]]:
        """What `run.json` says, written anew with what is changed within.

        One at a time, in whatever process of the run: stages side by side record as they end.
        """
        with self.one_at_a_time():
            facts = self.facts()
            yield facts
            write_json(self.path / "run.json", facts)

    @contextmanager
    def one_at_a_time(self) -> Iterator[None]:
        """A context that another process of this run waits to enter; not within itself."""
        handle = os.open(self.path / ".changing", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def count_test_opening(self, by: str = "evaluate") -> None:
        """Counts in `run.json` that the command `by` looked at the test images."""
        with self.changing() as known:
            openings = known.get("test_openings", {})
            known["test_openings"] = {**openings, by: openings.get(by, 0) + 1}

    def stage_is_done(self, stage: str, fields: Mapping[str, Any]) -> bool:
        """Whether `stage` was finished with these very fields: what it reads of the recipe, and
        its inputs' hashes. `StaleStage` names the first field that it was finished otherwise with.
        """
        path = self._marker(stage)
        if not path.is_file():
            return False
        if self.stage_matches(stage, fields):
            return True
        changed = _first_change(read_json(path)["fields"], _as_json(fields, path))
        assert changed is not None
        field, old, new = changed
        raise StaleStage(
            f"{stage} in {self.path} was made with {field} = {_short(old)}, "
            f"now it is {_short(new)}; "
            f"change it back or replace the stage with --redo {stage}"
        )

    def stage_matches(self, stage: str, fields: Mapping[str, Any]) -> bool:
        """Whether `stage` was finished with these very fields; False where it is stale."""
        path = self._marker(stage)
        return path.is_file() and (
            _first_change(read_json(path)["fields"], _as_json(fields, path)) is None
        )

    def is_finished(self, stage: str) -> bool:
        """Whether `stage` was finished, with whatever fields."""
        return self._marker(stage).is_file()

    def finish_stage(self, stage: str, fields: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Marks a stage as done with `fields`, keeping `facts` for later stages and the report."""
        marker = {"fingerprint": fingerprint(fields), "fields": fields, "facts": facts}
        write_json(self._marker(stage), marker)

    def stage_facts(self, stage: str) -> dict[str, Any]:
        """The facts of a finished stage; `BadInput` if it is not finished."""
        path = self._marker(stage)
        if not path.is_file():
            raise BadInput(f"{stage} is not finished in {self.path}; run that stage first")
        return read_json(path)["facts"]

    def read_facts(self, stage: str, record: type[RecordT]) -> RecordT:
        """The facts of a finished stage as the record that they were written as; `BadInput` if it
        is not finished or its facts are of another form.
        """
        facts = self.stage_facts(stage)
        try:
            return record.model_validate_json(json.dumps(facts))
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in problem["loc"])
            raise BadInput(
                f"{self._marker(stage)} is of another version: {where}: {problem['msg']}"
            ) from error

    def stage_fields(self, stage: str) -> dict[str, Any]:
        """What a stage was finished with; `BadInput` if it is not finished."""
        self.stage_facts(stage)
        return read_json(self._marker(stage))["fields"]

    def drop_stage(self, stage: str) -> None:
        """Removes what a stage left, its marker first."""
        marker = self._marker(stage)
        marker.unlink(missing_ok=True)
        folder = self._folder(stage)
        if folder.is_dir():
            shutil.rmtree(folder)
        if stage.startswith("selections/"):
            folder.with_name(f"{folder.name}.parquet").unlink(missing_ok=True)
        if stage == "neighbours":
            folder.with_suffix(".parquet").unlink(missing_ok=True)

    def _folder(self, stage: str) -> Path:
        parts = stage.split("/")
        if parts[0] not in STAGES or not all(part.strip(".") for part in parts):
            raise BadInput(f"{stage!r} is not a stage; the stages are {', '.join(STAGES)}")
        return self.path.joinpath(*parts)

    def _marker(self, stage: str) -> Path:
        folder = self._folder(stage)
        if stage.split("/")[0] in MARKED_BESIDE and "/" in stage:
            return folder.with_name(f"{folder.name}.json")
        return folder / "stage.json"


def is_run(path: Path) -> bool:
    """Whether a folder is a run's: it holds the recipe, or what the first stage recorded."""
    return any((path / name).is_file() for name in ("recipe.yaml", "run.json"))


def _as_json(fields: Mapping[str, Any], path: Path) -> Any:
    """Fields as they would be read back: tuples as lists, keys as text."""
    return parse_json(canonical_json(fields), path)


def _short(value: Any) -> str:
    """A value in at most 80 characters: some fields are long lists."""
    text = str(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _first_change(old: Any, new: Any, place: str = "") -> tuple[str, Any, Any] | None:
    """The first field path whose value differs, with both values."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted(old.keys() | new.keys()):
            inner = f"{place}.{name}" if place else name
            change = _first_change(old.get(name, ABSENT), new.get(name, ABSENT), inner)
            if change is not None:
                return change
        return None
    # By text: 1, 1.0 and true are equal in Python but not the same setting.
    return None if canonical_json(old) == canonical_json(new) else (place, old, new)
