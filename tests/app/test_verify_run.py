"""What `cgankd verify` says of a run folder: it only reads, and never passes where nothing was
verified.
"""

from pathlib import Path

import pytest

from cgankd.app import inspecting
from cgankd.app.console import Console
from cgankd.shardset.errors import CorruptShard, ReleaseError
from cgankd.shardset.images import encode_png, pixel_sha256
from cgankd.shardset.pool.plan import read_plan
from cgankd.shardset.pool.run_folder import RunFolder
from cgankd.shardset.pool.shards import PoolShardWriter
from cgankd.shardset.release.manifest import pool_manifest
from cgankd.shardset.testing import tiny_pixels
from tests.app.small_run import write_small_run

QUIET = Console(json=True)


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run with a pool and no release."""
    return write_small_run(tmp_path / "run")


def test_verifying_a_run_writes_nothing(run: RunFolder) -> None:
    """Not even a manifest that somebody removed or changed."""
    (run.pool / "manifest.json").write_text("changed")
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}

    assert inspecting.verify(str(run.path), console=QUIET) == {"verified": [str(run.pool)]}
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before
    assert (run.pool / "manifest.json").read_text() == "changed"


def test_a_shard_replaced_with_its_marker_is_found(run: RunFolder) -> None:
    """The pool stage recorded the hash of all markers."""
    plan = read_plan(run.pool / "plan.json")
    spec = plan.shards[1]
    for path in run.pool.glob("000001.*"):
        path.unlink()
    with PoolShardWriter(run.pool, spec.index, "settings") as writer:
        for key, label in enumerate(plan.labels(spec).tolist(), start=spec.first_key):
            pixels = tiny_pixels(plan, key, label)
            digest = pixel_sha256(pixels)
            writer.add(key, encode_png(pixels), label, label, digest, plan.seed, plan.pool_id)
    pool_manifest(run.pool, plan)  # every shard is as its own marker says

    with pytest.raises(CorruptShard, match=r"is not the pool that was made.* --redo pool"):
        inspecting.verify(str(run.path), console=QUIET)


def test_a_run_with_neither_pool_nor_release_is_not_called_verified(tmp_path: Path) -> None:
    """There is nothing that was verified."""
    run = RunFolder.open(tmp_path / "run", create=True)
    run.record(seconds={})
    with pytest.raises(ReleaseError, match="neither a pool nor a release yet"):
        inspecting.verify(str(run.path), console=QUIET)
