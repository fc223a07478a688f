"""Stages side by side against one after the other: `python -m benchmarks.side_by_side [RECIPE]`.

Both sides are whole runs with as many worker processes as there are cores, each in a process of
its own, and leave the same bytes, which is checked. On a machine that others use too the seconds
of the processor are worth more than those of the clock.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cgankd.app.console import Console
from cgankd.app.pipeline import opened, run_all
from cgankd.app.recipe import load_recipe
from cgankd.app.side_by_side import work_on
from cgankd.app.stages import STAGES
from cgankd.shardset.files import read_json, sha256_file

SIDES = ("one after the other", "side by side")


def main() -> None:
    """Prints the seconds of each stage and of the whole on either side, then their ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe", nargs="?", default="digits")
    parser.add_argument("--set", action="append", default=[], help="path=value of the recipe")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        run_one(options.recipe, options.set, options.side, options.out)
        return
    taken: dict[str, float] = {}
    students: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number, side in enumerate(SIDES):
            out = Path(folder) / str(number)
            before, start = os.times(), time.monotonic()
            command = [sys.executable, "-m", "benchmarks.side_by_side", *sys.argv[1:]]
            subprocess.run([*command, "--side", side, "--out", str(out)], check=True)
            taken[side] = time.monotonic() - start
            after = os.times()
            processor = sum(after[2:4]) - sum(before[2:4])
            stages = read_json(out / "run.json")["seconds"]
            print(side, *(f"{name} {seconds:.0f}" for name, seconds in stages.items()), sep="  ")
            print(f"{side}: {taken[side]:.0f} s, {processor:.0f} s of the processor", flush=True)
            trained = out / "students" / "trained"
            weights = trained.glob("*/model.safetensors")
            students[side] = {str(p.relative_to(trained)): sha256_file(p) for p in weights}
    same = students[SIDES[0]] == students[SIDES[1]]
    print(f"{len(students[SIDES[0]])} students, the same bytes on both sides: {same}")
    apart, beside = (taken[side] for side in SIDES)
    print(f"seconds side by side of those one after the other: {beside / apart:.2f}")


def run_one(recipe: str, overrides: list[str], side: str, out: Path) -> None:
    """One whole run into a new folder."""
    with opened(out, load_recipe(recipe, overrides), console=Console(json=True)) as ctx:
        if side == "side by side":
            run_all(ctx)
        else:
            for stage in STAGES:
                if stage.in_run:
                    work_on(ctx, stage)


if __name__ == "__main__":
    main()
