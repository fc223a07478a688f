"""Processor seconds, user and system, as the claims of speed count them: other programs on the
machine change them less than the time on the wall.
"""

import subprocess
import sys
from collections.abc import Callable
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from typing import TypeVar

Value = TypeVar("Value")


def processor_seconds() -> float:
    """Those of this process with all its threads, and of the processes it started that ended."""
    used = [getrusage(who) for who in (RUSAGE_SELF, RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def spent(*arguments: str, quiet: bool = False) -> tuple[float, str]:
    """Those of a Python process and all that it starts, from start-up to end, and what it printed;
    `quiet` hides its messages.
    """
    before = getrusage(RUSAGE_CHILDREN)
    said = subprocess.run(
        [sys.executable, *arguments],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL if quiet else None,
        text=True,
    )
    after = getrusage(RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, said.stdout


def least(rounds: int, *sides: Callable[[], Value]) -> list[tuple[Value, float]]:
    """What each side returned last, and the least it took in rounds in which the sides alternate;
    an untimed round before them loads what stays loaded.
    """
    said = [(side(), float("inf")) for side in sides]
    for _ in range(rounds):
        for index, side in enumerate(sides):
            start = processor_seconds()
            value = side()
            said[index] = value, min(said[index][1], processor_seconds() - start)
    return said
