"""A whole run in a few seconds: digits or turned ones, ten steps of everything."""

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from cgankd.app import pipeline
from cgankd.app.console import Console
from cgankd.shardset.errors import RatioRefused

SMALL = (
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
    "pool.batch=20",
    "ratio.features.steps=50",
    "ratio.steps=100",
    "student.steps=[20]",
    "student.learning_rates=[0.1]",
    "student.search_seeds=1",
)
OVERRIDES = (
    *SMALL,
    "budget.per_class=10",
    "pool.per_label=30",
    "pool.shard_size=60",
    "policy.quota=8",
)
CONTINUOUS = (
    *SMALL,
    "budget.total=60",
    "label.groups=4",
    "pool.labels=12",
    "pool.per_label=25",
    "pool.shard_size=100",
    "policy.quota=10",
    "teacher.data=budget",
    "generator.training.embedding.image_steps=100",
    "generator.training.embedding.label_steps=300",
)
RECIPES = {"digits": OVERRIDES, "rotated-digits": CONTINUOUS}


def run_command(out: Path, *more: str, recipe: str = "digits") -> list[str]:
    """The command line of a tiny run."""
    sets = [word for override in RECIPES[recipe] for word in ("--set", override)]
    return [sys.executable, "-m", "cgankd.app", "run", recipe, "--out", str(out), *sets, *more]


def run_tiny(out: Path, *more: str, recipe: str = "digits") -> subprocess.CompletedProcess[str]:
    """A tiny run in a process of its own."""
    return subprocess.run(
        run_command(out, *more, recipe=recipe),
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


def files(out: Path) -> dict[str, bytes]:
    """The bytes of every file of a run but the report's, which tells the time."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.relative_to(out).parts[0] not in (".lock", "report")
    }


def wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    """Returns when the path exists; the process must not end before."""
    while not path.exists():
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.001)


def released_run(out: Path) -> Path:
    """A tiny run up to its first release, without students; in this process."""
    console = Console(json=True)
    own: dict[str, Any] = {"recipe": "digits", "overrides": OVERRIDES}
    for stage in ("teacher", "generator", "pool", "ratio", "scores"):
        # So few steps leave a ratio that may be refused; then nothing is subsampled.
        with suppress(RatioRefused):
            pipeline.stage(stage, out, console=console, backend="serial", **own)
        own = {}
    pipeline.select(out, console=console)
    pipeline.release(out, console=console, selection="cgan-kd", rejected=False)
    return out
