"""Runs stages side by side: each as soon as what it waits for is done, in a process of its own.

The process that was started only keeps the order and prints. Stages work in lanes, processes that
take one stage after the other; a lane says here what its stages say, and ends when this process
does.
"""

import os
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from copy import copy
from multiprocessing.connection import Connection
from typing import Any

from pydantic import BaseModel

from cgankd.app.console import DRAW_SECONDS
from cgankd.app.context import Context, Facts
from cgankd.app.engine import KILLED, begin_worker, spawning
from cgankd.app.machine import peak_memory_bytes
from cgankd.app.stages import Stage
from cgankd.nets.device import Progress
from cgankd.shardset.errors import CgankdError

NICENESS = 10  # of a lane whose stages let those beside them go first


def work_on(ctx: Context, stage: Stage) -> Facts:
    """The facts of a stage that is worked on in this process; its seconds are recorded."""
    with ctx.timed(stage.name):
        facts = stage.work(ctx)
    return facts.model_dump(mode="json") if isinstance(facts, BaseModel) else facts


def run_side_by_side(ctx: Context, stages: Sequence[Stage]) -> dict[str, Facts]:
    """The facts of stages by name, all of which have ended; they wait for one another's `inputs`
    and for nothing else.

    The first error ends what is still worked on and is raised as it was; so does Ctrl-C. Stages
    leave whole files and checkpoints, so that they can be ended at any time.
    """
    facts: dict[str, Facts] = {}
    waiting, running = list(stages), dict[Future[tuple[Facts, set[str]]], Stage]()
    # A thread for every stage at work, which shows what its lane says.
    with ThreadPoolExecutor(len(stages)) as threads, _lanes(ctx) as lanes:
        while waiting or running:
            for stage in [stage for stage in waiting if facts.keys() >= set(stage.inputs)]:
                waiting.remove(stage)
                lane = lanes.free(stage.yields)
                running[threads.submit(lane.work, stage, set(ctx.redo))] = stage
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                facts[running.pop(future).name], redo = future.result()
                ctx.redo &= redo
        ctx.lanes_bytes = lanes.end()
    return facts


class _Lane:
    """A process that takes stages, seen from here."""

    def __init__(self, ctx: Context, lifeline: Connection, yields: bool) -> None:
        self.console, self.yields, self.busy = ctx.console, yields, False
        spawn = spawning()
        self.connection, theirs = spawn.Pipe()
        there = copy(ctx)  # with the images, which were read already
        there.console = _Relay(theirs)  # type: ignore[assignment]
        self.process = spawn.Process(target=_work, args=(there, theirs, lifeline, yields))
        # Blocked there from its first moment: Ctrl-C is this process's business.
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        theirs.close()

    def work(self, stage: Stage, redo: set[str]) -> tuple[Facts, set[str]]:
        """The facts of a stage that is worked on there, and what of `redo` it left."""
        return self._answer((stage, redo), stage.name)

    def end(self) -> int:
        """Ends the process; the bytes of memory that it and its workers held at most."""
        return self._answer(None, "its end")

    def _answer(self, given: Any, what: str) -> Any:
        try:
            self.connection.send(given)
            answer = self._follow()
        except (EOFError, ConnectionError):
            self.process.join()
            if (self.process.exitcode or 0) < 0:
                raise CgankdError(KILLED) from None
            raise CgankdError(f"{what} met an error of cgankd's own, shown above") from None
        self.busy = False
        return answer

    def _follow(self, *shown: Progress) -> Any:
        """What comes as done, of a stage or the innermost of its tasks; shows what comes before."""
        while True:
            kind, *said = self.connection.recv()
            if kind == "done":
                return said[0]
            if kind == "failed":
                raise said[0]
            if kind == "progress":
                shown[said[0]](*said[1:])
            elif kind == "task":
                with self.console.task(said[0]) as progress:
                    self._follow(*shown, progress)
            elif kind == "note":
                self.console.note(*said)
            elif kind == "table":
                self.console.table(*said)


class _Lanes:
    def __init__(self, ctx: Context, lifeline: Connection) -> None:
        self.ctx, self.lifeline, self.lanes = ctx, lifeline, list[_Lane]()

    def free(self, yields: bool) -> _Lane:
        """A lane without a stage, a new one where there is none; now taken."""
        idle = (lane for lane in self.lanes if not lane.busy and lane.yields == yields)
        lane = next(idle, None)
        if lane is None:
            lane = _Lane(self.ctx, self.lifeline, yields)
            self.lanes.append(lane)
        lane.busy = True
        return lane

    def end(self) -> int:
        """Ends every lane; the bytes of memory that they and their workers held at most."""
        return sum(lane.end() for lane in self.lanes)


@contextmanager
def _lanes(ctx: Context) -> Iterator[_Lanes]:
    """Lanes that are gone afterwards, also where this process is killed."""
    # Nothing is ever sent: when this process closes the pipe or dies, the lanes end, and with
    # them their workers.
    lifeline, ours = spawning().Pipe(duplex=False)
    lanes = _Lanes(ctx, lifeline)
    try:
        yield lanes
    finally:
        ours.close()
        for lane in lanes.lanes:
            lane.process.join()
        lifeline.close()


def _work(ctx: Context, connection: Connection, lifeline: Connection, yields: bool) -> None:
    """Takes stages until there are no more: a lane, in its own process."""
    begin_worker(lifeline, ctx.threads)
    if yields:
        os.nice(NICENESS)
    try:
        while (given := connection.recv()) is not None:
            stage, ctx.redo = given
            try:
                facts = work_on(ctx, stage)
            except (CgankdError, OSError) as error:
                connection.send(("failed", error))
            else:
                connection.send(("done", (facts, ctx.redo)))
    finally:
        ctx.end_workers()  # or Python would wait for them before it shows an error of ours
    connection.send(("done", peak_memory_bytes(ctx.workers)))


class _Relay:
    """A console for the stages of a lane: all they say is sent to the process that prints.

    An error that leaves a task must leave the stage: then the task ends there as well.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection, self._open = connection, 0

    @contextmanager
    def task(self, name: str) -> Iterator[Progress]:
        """As the console's."""
        latest: tuple[int, int, dict[str, float]] | None = None
        number, sent = self._open, 0.0
        self._connection.send(("task", name))

        def progress(done: int, total: int, values: Mapping[str, float]) -> None:
            nonlocal latest, sent
            latest = done, total, dict(values)
            if time.monotonic() - sent >= DRAW_SECONDS:
                sent = time.monotonic()
                self._connection.send(("progress", number, *latest))

        self._open += 1
        yield progress
        self._open -= 1
        if latest is not None:  # the count of its last line
            self._connection.send(("progress", number, *latest))
        self._connection.send(("done", None))

    def note(self, text: str) -> None:
        """As the console's."""
        self._connection.send(("note", text))

    def table(
        self, title: str, columns: Sequence[str], rows: Iterable[Sequence[str | float | None]]
    ) -> None:
        """As the console's."""
        self._connection.send(("table", title, list(columns), [list(row) for row in rows]))
