"""How long commands take to start against bare Python and torch: `python -m benchmarks.start_up`.

Processor seconds of a whole process, the least of five; `--help` imports no torch.
"""

import subprocess
import sys
from resource import RUSAGE_CHILDREN, getrusage

ROUNDS = 5
COMMANDS = {
    "python": ("-c", "pass"),
    "torch": ("-c", "import torch"),
    "--help": ("-m", "cgankd.app", "--help"),
    "recipes": ("-m", "cgankd.app", "recipes"),
}


def seconds_of(arguments: tuple[str, ...]) -> float:
    """The processor seconds of one Python process."""
    before = getrusage(RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
    after = getrusage(RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Prints the seconds of each command, and what part of importing torch they take."""
    best = dict.fromkeys(COMMANDS, float("inf"))
    for _ in range(ROUNDS):
        for name, arguments in COMMANDS.items():
            best[name] = min(best[name], seconds_of(arguments))
    for name, seconds in best.items():
        print(f"{name:8} {seconds:6.2f} s")
    for name in ("--help", "recipes"):
        print(f"ratio    {best[name] / best['torch']:6.2f}  {name} against importing torch")


if __name__ == "__main__":
    main()
