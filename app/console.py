"""What a person sees while it runs: progress, tables, notes and one-line errors, on stderr.

Standard output is left to results: `--json`, and texts that were asked for.
"""

import json as json_text
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console as RichConsole
    from rich.progress import Progress as RichProgress

    from cgankd.nets.device import Progress

PATIENCE_SECONDS = 2.0  # what is over sooner needs no bar
DRAW_SECONDS = 0.1  # between two drawings of a bar: a step of a small network takes less
LINE_SECONDS = 10.0  # between two lines of a task where no bar can be drawn


class Console:
    """The one place that prints; with `json` only plain lines, so that logs stay readable."""

    def __init__(
        self,
        *,
        json: bool = False,
        rich: "RichConsole | None" = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        from rich.console import Console as RichConsole

        self._rich = rich or RichConsole(stderr=True, highlight=False)
        self._json = json
        self._clock = clock
        self._bars: RichProgress | None = None
        self._bars_lock = Lock()  # tasks of several threads share them

    @contextmanager
    def task(self, name: str) -> "Iterator[Progress]":
        """A `progress(done, total, values)` to call from a long piece of work, in this process.

        On a terminal a bar with rate, time left and the values appears after two seconds;
        elsewhere a line is printed about every ten. Tasks may be nested, and stand side by side in
        threads. A task that ends well leaves one line with its count and time.
        """
        pace = Pace(self._clock)
        show = self._bar if self._rich.is_interactive and not self._json else self._lines
        with show(name, pace) as progress:
            yield progress
        self._print(f"{name}  {pace.summary()}", "dim")

    @contextmanager
    def _lines(self, name: str, pace: "Pace") -> "Iterator[Progress]":
        last = self._clock()

        def progress(done: int, total: int, values: Mapping[str, float]) -> None:
            nonlocal last
            pace.update(done, total)
            if self._clock() - last >= LINE_SECONDS:
                last = self._clock()
                self._print(f"{name}  {join(pace.state(), *named(values))}")

        yield progress

    @contextmanager
    def _bar(self, name: str, pace: "Pace") -> "Iterator[Progress]":
        drawn = self._clock()
        with self._bars_lock:
            if self._bars is None:
                self._bars = _new_bars(self._rich, self._clock)
                self._bars.start()
            bars = self._bars
            row = bars.add_task(name, total=None, state="", values="", born=drawn)

        def progress(done: int, total: int, values: Mapping[str, float]) -> None:
            nonlocal drawn
            pace.update(done, total)
            if self._clock() - drawn < DRAW_SECONDS:
                return
            drawn = self._clock()
            bars.update(
                row,
                completed=done,
                total=total or None,
                state=pace.state(),
                values=join(*named(values)),
            )

        try:
            yield progress
        finally:
            with self._bars_lock:
                bars.remove_task(row)
                if not bars.tasks:
                    bars.stop()
                    self._bars = None

    def table(
        self, title: str, columns: Sequence[str], rows: Iterable[Sequence[str | float | None]]
    ) -> None:
        """Prints rows; numbers are set right, None as a dash. Left out with `json`."""
        from rich import box
        from rich.table import Table
        from rich.text import Text

        if self._json:
            return
        rows = [list(row) for row in rows]
        table = Table(
            title=Text(title, style="bold"),
            title_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
        )
        for index, column in enumerate(columns):
            numbers = bool(rows) and not any(isinstance(row[index], str) for row in rows)
            table.add_column(Text(column), justify="right" if numbers else "left")
        for row in rows:
            table.add_row(*(Text(cell_text(cell)) for cell in row))
        self._rich.print(table)

    def note(self, text: str) -> None:
        """Prints one line."""
        self._print(text)

    def text(self, text: str) -> None:
        """Writes a text that was asked for, a recipe say, on standard output; not with `json`."""
        if not self._json:
            sys.stdout.write(text)

    def error(self, text: str) -> None:
        """Prints `error: …` as one line, whatever the text held."""
        from rich.text import Text

        line = " ".join(text.splitlines())
        self._rich.print(Text.assemble(("error: ", "bold red"), line), soft_wrap=True)

    def result(self, value: Any) -> None:
        """Writes a value as JSON on standard output."""
        sys.stdout.write(json_text.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")

    def _print(self, line: str, style: str = "") -> None:
        from rich.text import Text

        # Text, not markup: a path may hold square brackets.
        self._rich.print(Text(line, style=style), soft_wrap=True)


class Pace:
    """How far a task is, how fast it goes and how long it will still take."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._start = clock()
        self._first: tuple[int, float] | None = None
        self._done = 0
        self._total = 0

    def update(self, done: int, total: int) -> None:
        """Notes a count; one that falls begins a new phase."""
        # The rate counts from the first call: a resumed task did not do its first part just now.
        if self._first is None or done < self._done:
            self._first = (done, self._clock())
        self._done, self._total = done, total

    def rate(self) -> float | None:
        """Counts per second since the first call; None before there are two."""
        if self._first is None or self._done == self._first[0]:
            return None
        seconds = self._clock() - self._first[1]
        return (self._done - self._first[0]) / seconds if seconds > 0 else None

    def state(self) -> str:
        """For example `3,000 of 20,000, 412/s, 41 s left`."""
        count = f"{self._done:,} of {self._total:,}" if self._total else f"{self._done:,}"
        rate = self.rate()
        if rate is None:
            return count
        left = max(self._total - self._done, 0) / rate
        return join(count, per_second(rate), f"{duration(left)} left" if self._total else "")

    def summary(self) -> str:
        """For example `20,000 in 48 s, 412/s`."""
        seconds = duration(self._clock() - self._start)
        rate = self.rate()
        if not self._done:
            return seconds
        return join(f"{self._done:,} in {seconds}", per_second(rate) if rate else "")


def _new_bars(rich: "RichConsole", clock: Callable[[], float]) -> "RichProgress":
    from rich.console import RenderableType
    from rich.progress import BarColumn, Progress, Task, TextColumn

    class PatientProgress(Progress):
        """Bars of the tasks that have already taken longer than `PATIENCE_SECONDS`."""

        def get_renderables(self) -> Iterable[RenderableType]:
            slow: list[Task] = [
                task for task in self.tasks if clock() - task.fields["born"] >= PATIENCE_SECONDS
            ]
            yield self.make_tasks_table(slow)

    return PatientProgress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[state]}", markup=False),
        TextColumn("{task.fields[values]}", markup=False, style="dim"),
        console=rich,
        transient=True,
        redirect_stdout=False,
        refresh_per_second=4,
    )


def join(*parts: str) -> str:
    """The parts that are not empty, with commas between."""
    return ", ".join(part for part in parts if part)


def named(values: Mapping[str, float]) -> list[str]:
    """For example `["loss 0.71"]`."""
    return [f"{name} {value:.4g}" for name, value in values.items()]


def per_second(rate: float) -> str:
    """For example `4,120/s` or `0.31/s`."""
    return f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s"


def duration(seconds: float) -> str:
    """For example `0.4 s`, `41 s`, `3 min 05 s` or `2 h 07 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def cell_text(cell: str | float | None) -> str:
    """A table cell as text: None is a dash, whole numbers get their thousands apart."""
    if cell is None:
        return "–"
    if isinstance(cell, str):
        return cell
    return f"{cell:,}" if isinstance(cell, int) else f"{cell:,.2f}"
