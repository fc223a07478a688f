"""Runs every benchmark of the README, one after the other: `python -m benchmarks [OUT]`."""

import subprocess
import sys

OUT = sys.argv[1] if len(sys.argv) > 1 else "runs/bench"
SCRIPTS = (
    ("select_speed",),
    ("review_speed",),
    ("review_page",),
    ("neighbour_speed",),
    ("planted_faults",),
    ("produce_speed",),
    ("produce_speed", "--recipe", "rotated-digits", "--size", "16"),
    ("student_steps",),
    ("train_from_release",),
    ("release_speed",),
    ("pools", "digits", f"{OUT}/digits"),
    ("pools", "rotated-digits", f"{OUT}/rotated-digits"),
    ("score_speed", f"{OUT}/digits/pool-0"),
    ("ratio_quality", f"{OUT}/ratio"),
    ("circle_of_gaussians",),
)

for name, *arguments in SCRIPTS:
    print(f"\n== {name}", flush=True)
    subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *arguments], check=True)
