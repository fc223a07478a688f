"""SIGKILL at any moment leaves no finished-looking shard, and a rerun gives the same bytes."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cgankd.shardset.images import encode_png
from cgankd.shardset.pool.shards import PoolShardWriter, is_done, verify_shard
from cgankd.shardset.testing import tiny_pixels, tiny_plan

# Writing a shard makes nine system calls that matter, in this order.
MOMENTS = [
    "sync rows", "rename rows", "sync folder", "sync tar", "rename tar", "sync folder again",
    "sync marker", "rename marker", "sync folder last",
]  # fmt: skip

CHILD = """
import os, signal, sys
from pathlib import Path
from test_shard_crashes import write

def dying(call):
    def wrapped(*args):
        if moments.pop(0):
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*args)
    return wrapped

folder, moment = Path(sys.argv[1]), int(sys.argv[2])
moments = [number == moment for number in range(9)]
os.fsync, os.replace = dying(os.fsync), dying(os.replace)
write(folder, stop_at=3 if moment < 0 else None)
"""


def write(folder: Path, stop_at: int | None = None) -> None:
    plan = tiny_plan()
    with PoolShardWriter(folder, 0, "f") as writer:
        for key in range(10):
            pixels = tiny_pixels(plan, key, 0)
            writer.add(key, encode_png(pixels), 0, 0, "", plan.seed, plan.pool_id)
            if key == stop_at:
                writer._flush()
                os.kill(os.getpid(), signal.SIGKILL)


def visible(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix != ".partial"}


def killed_at(folder: Path, moment: int) -> None:
    here = Path(__file__)
    path = f"{here.parent}:{here.parents[2]}"
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder), str(moment)],
        env={**os.environ, "PYTHONPATH": path},
    )
    assert child.returncode == -signal.SIGKILL


def expect_recovery(folder: Path, undisturbed: Path) -> None:
    write(folder)
    write(undisturbed)
    assert is_done(folder, 0, "f")
    assert {p.name: p.read_bytes() for p in undisturbed.iterdir()} == {
        p.name: p.read_bytes() for p in folder.iterdir()
    }


def test_killed_among_samples_nothing_is_visible(tmp_path):
    """Half a shard exists under a temporary name only, and the rerun replaces it."""
    (tmp_path / "pool").mkdir()
    killed_at(tmp_path / "pool", -1)

    assert set() == visible(tmp_path / "pool")
    assert any((tmp_path / "pool").iterdir())
    assert not is_done(tmp_path / "pool", 0, "f")
    expect_recovery(tmp_path / "pool", tmp_path / "undisturbed")


@pytest.mark.parametrize("moment", range(len(MOMENTS)), ids=MOMENTS)
def test_killed_while_finishing_the_shard_is_done_or_not_there(tmp_path, moment):
    """It counts as done only once its marker is in place, and then it is whole."""
    (tmp_path / "pool").mkdir()
    killed_at(tmp_path / "pool", moment)

    assert (moment > MOMENTS.index("rename marker")) == is_done(tmp_path / "pool", 0, "f")
    if is_done(tmp_path / "pool", 0, "f"):
        assert verify_shard(tmp_path / "pool", 0)["count"] == 10
    expect_recovery(tmp_path / "pool", tmp_path / "undisturbed")
