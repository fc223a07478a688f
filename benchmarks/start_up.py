"""How long commands take to start against bare Python and torch: `python -m benchmarks.start_up`.

Processor seconds of a whole process, the least of five; `--help` imports no torch.
"""

from benchmarks.processor_time import spent

ROUNDS = 5
COMMANDS = {
    "python": ("-c", "pass"),
    "torch": ("-c", "import torch"),
    "--help": ("-m", "cgankd.app", "--help"),
    "recipes": ("-m", "cgankd.app", "recipes"),
}


def main() -> None:
    """Prints the seconds of each command, and what part of importing torch they take."""
    best = dict.fromkeys(COMMANDS, float("inf"))
    for _ in range(ROUNDS):
        for name, arguments in COMMANDS.items():
            best[name] = min(best[name], spent(*arguments, quiet=True)[0])
    for name, seconds in best.items():
        print(f"{name:8} {seconds:6.2f} s")
    for name in ("--help", "recipes"):
        print(f"ratio    {best[name] / best['torch']:6.2f}  {name} against importing torch")


if __name__ == "__main__":
    main()
