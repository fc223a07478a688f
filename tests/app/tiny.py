"""A whole run in a few seconds: digits, ten steps of everything."""

import os
import subprocess
import sys
from pathlib import Path

OVERRIDES = (
    "budget.per_class=10",
    "seeds=[0, 1]",
    "teacher.training.network=convnet-1k",
    "teacher.training.steps=150",
    "teacher.training.lr=0.1",
    "generator.network.width=8",
    "generator.network.latent_dim=8",
    "generator.training.iterations=20",
    "generator.training.log_every=10",
    "generator.training.checkpoint_every=10",
    "generator.training.grid_every=20",
    "generator.training.batch=16",
    "pool.per_label=30",
    "pool.shard_size=60",
    "pool.batch=20",
    "policy.quota=8",
    "student.steps=[20]",
    "student.learning_rates=[0.1]",
    "student.search_seeds=1",
)


def run_command(out: Path, *more: str, overrides: tuple[str, ...] = OVERRIDES) -> list[str]:
    """The command line of a tiny run."""
    sets = [word for override in overrides for word in ("--set", override)]
    return [sys.executable, "-m", "app", "run", "digits", "--out", str(out), *sets, *more]


def run_tiny(out: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """A tiny run in a process of its own."""
    return subprocess.run(
        run_command(out, *more),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def content(out: Path) -> dict[str, bytes]:
    """The bytes of what must be the same in every run: pool, scores, selections and release."""
    folders = ("pool", "scores", "selections", "release")
    return {
        str(path.relative_to(out)): path.read_bytes()
        for folder in folders
        for path in sorted((out / folder).rglob("*"))
        if path.is_file()
    }
