"""The console shows rate and time left where it can, plain lines where it cannot."""

import io
import json
import os
import pty
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console as RichConsole

from cgankd.app.console import Console, Pace, duration


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def console_with(*, terminal: bool, json: bool = False) -> tuple[Console, io.StringIO, Clock]:
    """A console whose output is text and whose clock is moved by hand."""
    file, clock = io.StringIO(), Clock()
    rich = RichConsole(file=file, force_terminal=terminal, width=100, color_system=None)
    return Console(json=json, rich=rich, clock=clock), file, clock


def test_without_a_terminal_a_line_appears_about_every_ten_seconds() -> None:
    """Logs get count, rate, time left and values, and one line at the end."""
    console, file, clock = console_with(terminal=False)

    with console.task("produce") as progress:
        progress(0, 4000, {})
        for done in range(100, 4001, 100):
            clock.now += 1
            progress(done, 4000, {"loss": 0.71234})

    assert file.getvalue().splitlines() == [
        "produce  1,000 of 4,000, 100/s, 30 s left, loss 0.7123",
        "produce  2,000 of 4,000, 100/s, 20 s left, loss 0.7123",
        "produce  3,000 of 4,000, 100/s, 10 s left, loss 0.7123",
        "produce  4,000 of 4,000, 100/s, 0.0 s left, loss 0.7123",
        "produce  4,000 in 40 s, 100/s",
    ]


def test_a_resumed_task_counts_its_rate_from_where_it_began() -> None:
    """Work of an earlier run does not make this one look fast."""
    clock = Clock()
    pace = Pace(clock)

    pace.update(9000, 10_000)
    assert pace.state() == "9,000 of 10,000"
    clock.now += 10
    pace.update(9100, 10_000)

    assert pace.state() == "9,100 of 10,000, 10/s, 1 min 30 s left"


def test_a_count_that_falls_begins_a_new_phase() -> None:
    """A second pass over the same task has its own rate."""
    clock = Clock()
    pace = Pace(clock)
    for done in (0, 1000, 0, 5):
        pace.update(done, 1000)
        clock.now += 10

    assert pace.rate() == pytest.approx(5 / 20)


def test_on_a_terminal_a_bar_appears_after_two_seconds_and_is_gone_at_the_end() -> None:
    """Short tasks do not flicker; the bar carries rate, time left and values."""
    console, file, clock = console_with(terminal=True)

    with console.task("train [teacher]") as progress:
        progress(0, 1000, {})
        clock.now += 1
        progress(100, 1000, {"loss": 2.0})
        _redraw(console)
        assert "of 1,000" not in file.getvalue()
        clock.now += 1.5
        progress(250, 1000, {"loss": 1.5})
        _redraw(console)
        assert "train [teacher] " in file.getvalue()
        assert "250 of 1,000, 100/s, 7.5 s left" in file.getvalue()
        assert "loss 1.5" in file.getvalue()

    assert file.getvalue().endswith("train [teacher]  250 in 2.5 s, 100/s\n")


def test_tasks_may_be_nested_and_a_failed_one_leaves_no_line() -> None:
    """The outer bar stays while inner ones come and go; an error passes through unchanged."""
    console, file, clock = console_with(terminal=True)

    with console.task("run") as outer:
        outer(1, 3, {})
        with pytest.raises(ValueError, match="no"), console.task("score"):
            raise ValueError("no")
        clock.now += 3
        outer(2, 3, {})
        _redraw(console)

    assert "score  " not in file.getvalue()
    assert "2 of 3" in file.getvalue()
    assert file.getvalue().endswith("run  2 in 3.0 s, 0.33/s\n")


def test_of_two_tasks_side_by_side_the_first_may_end_first() -> None:
    """The bars stay as long as one of them is drawn."""
    console, file, clock = console_with(terminal=True)

    with ExitStack() as last:
        with console.task("teacher"):
            progress = last.enter_context(console.task("generator"))
            progress(0, 40, {})
        clock.now += 3
        progress(30, 40, {})
        _redraw(console)
        assert "30 of 40" in file.getvalue()

    assert console._bars is None
    assert file.getvalue().endswith("generator  30 in 3.0 s, 10/s\n")


def _redraw(console: Console) -> None:
    """Draws at once what the refresh thread would draw a quarter of a second later."""
    assert console._bars is not None
    console._bars.refresh()


SCRIPT = """
import time
from cgankd.app.console import Console
console = Console()
with console.task("score") as progress:
    for done in range(31):
        progress(done, 30, {"loss": 0.5})
        time.sleep(0.1)
console.note("wrote [scores]")
"""


def test_a_real_terminal_shows_the_bar_and_standard_output_stays_empty() -> None:
    """Everything a person sees is on standard error."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=os.environ
        | {
            "TERM": "xterm",
            "COLUMNS": "90",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        },
    ) as process:
        os.close(theirs)
        seen = b""
        try:
            while data := os.read(ours, 4096):
                seen += data
        except OSError:  # how Linux says that the other side of a terminal is closed
            pass
        finally:
            os.close(ours)
        assert process.stdout is not None
        assert process.stdout.read() == b""

    assert process.returncode == 0
    text = seen.decode()
    assert "of 30" in text
    assert "s left" in text
    assert "loss 0.5" in text
    assert "wrote [scores]" in text


def test_an_error_is_one_line_however_long_and_whatever_it_holds() -> None:
    """No wrapping, no markup, no second line: what a script can grep for."""
    console, file, _ = console_with(terminal=False)

    console.error("data/[a]/x.png does not decode:\n" + "very " * 60 + "long")

    assert file.getvalue() == "error: data/[a]/x.png does not decode: " + "very " * 60 + "long\n"


def test_a_table_sets_numbers_right_and_shows_every_row() -> None:
    """Whole numbers get their thousands apart, others two decimals, None a dash."""
    console, file, _ = console_with(terminal=False)

    console.table(
        "Arms",
        ["arm", "accuracy", "steps"],
        [["no-kd", 88.126, 12_000], ["cgan-kd [new]", None, 900]],
    )

    lines = [line.rstrip() for line in file.getvalue().splitlines() if line.strip()]
    assert lines[0] == "Arms"
    assert lines[1].split() == ["arm", "accuracy", "steps"]
    assert lines[3].split() == ["no-kd", "88.13", "12,000"]
    assert lines[4].split() == ["cgan-kd", "[new]", "–", "900"]
    assert lines[3].endswith(" 12,000")
    assert lines[4].endswith("    900")


def test_json_leaves_standard_output_to_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    """With --json the result can be parsed, tables are left out and progress is plain lines."""
    console, file, clock = console_with(terminal=True, json=True)

    with console.task("score") as progress:
        clock.now += 11
        progress(5, 10, {})
    console.table("Arms", ["arm"], [["no-kd"]])
    console.result({"name": "Größe", "values": [1.5, None], "path": Path("runs/a")})

    assert file.getvalue().splitlines() == ["score  5 of 10", "score  5 in 11 s"]
    printed = json.loads(capsys.readouterr().out)
    assert printed == {"name": "Größe", "values": [1.5, None], "path": "runs/a"}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3599.7, "1 h 00 min"),
        (7620, "2 h 07 min"),
    ],
)
def test_durations_read_as_a_person_says_them(seconds: float, text: str) -> None:
    """No 60 s and no 60 min at the borders."""
    assert duration(seconds) == text


@given(st.floats(min_value=0, max_value=1e6))
def test_a_duration_read_back_is_the_same_time(seconds: float) -> None:
    """Within the precision shown: a tenth, a second or a minute."""
    words = duration(seconds).split()
    units = {"s": 1, "min": 60, "h": 3600}
    read = sum(float(n) * units[unit] for n, unit in zip(words[::2], words[1::2], strict=True))
    precision = 60 if "h" in words else 1 if seconds >= 10 else 0.1

    assert read == pytest.approx(seconds, abs=precision)
    assert all(
        float(n) < 60 for n, unit in zip(words[::2], words[1::2], strict=True) if unit != "h"
    )
