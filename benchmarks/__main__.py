"""Runs the benchmarks of the README one after the other: `python -m benchmarks speed|evidence`.

`speed` measures the claims of speed that need no finished run, within a quarter of an hour on two
cores; `evidence` makes runs and measures what curated sets are worth, which takes hours. What the
scripts print is also written to `benchmarks/results/`, with date, processor and instruction set.
"""

import argparse
import datetime
import os
import platform
import subprocess
import sys
from pathlib import Path

import torch

from cgankd.app.machine import has_matrix_instructions

RESULTS = Path(__file__).parent / "results"
SPEED = (
    ("start_up",),
    ("generator_step",),
    ("side_by_side",),
    ("produce_speed",),
    ("produce_speed", "--recipe", "fashion-mnist", "--size", "28"),
    ("produce_speed", "--recipe", "rotated-digits", "--size", "16"),
    ("metrics_speed",),
    ("student_steps",),
    ("select_speed",),
    ("neighbour_speed",),
    ("release_speed",),
    ("train_from_release",),
    ("review_speed",),
    ("review_page",),
)
EVIDENCE = (
    ("pools", "digits", "OUT/digits"),
    ("pools", "rotated-digits", "OUT/rotated-digits"),
    ("score_speed", "OUT/digits/pool-3"),
    ("search_halving", "OUT/digits/pool-3", "OUT/rotated-digits/pool-3"),
    ("pool_making", "OUT/digits/pool-3", "--per-label", "1000"),
    ("ratio_quality", "OUT/ratio"),
    ("planted_faults",),
    ("circle_of_gaussians",),
)


def main() -> None:
    """Runs one of the two lists; ends at the first script that fails."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("which", choices=("speed", "evidence"))
    parser.add_argument("--out", default="runs/bench", help="folder of the runs they make")
    options = parser.parse_args()
    scripts = SPEED if options.which == "speed" else EVIDENCE
    blocks = [f"# {options.which}\n\n{machine()}"]
    RESULTS.mkdir(exist_ok=True)
    for name, *words in scripts:
        arguments = [word.replace("OUT", options.out) for word in words]
        heading = " ".join([name, *arguments])
        print(f"\n== {heading}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        print(done.stdout, end="", flush=True)
        blocks.append(f"## {heading}\n\n```\n{done.stdout}```")
        # After each script: a list that is interrupted leaves what it has measured.
        place = RESULTS / f"{options.which}-{instructions().lower().replace(' ', '-')}.md"
        place.write_text("\n\n".join(blocks) + "\n")


def machine() -> str:
    """The date, the processor with its instruction set, and torch, in one line."""
    name = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else ():
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
    return (
        f"{datetime.date.today()}, {name}, {instructions()}, {os.cpu_count()} cores, "
        f"torch {torch.__version__}"
    )


def instructions() -> str:
    """What torch and oneDNN may use: AVX2, AVX512, or that with AMX."""
    widest = torch.backends.cpu.get_cpu_capability()
    return f"{widest} AMX" if has_matrix_instructions() else widest


if __name__ == "__main__":
    main()
