"""Stages side by side: in an order that follows their inputs, ending together, saying what they
say as if they ran here.
"""

import io
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console as RichConsole

from cgankd.app.console import Console
from cgankd.app.context import Context, Facts
from cgankd.app.recipe import load_recipe
from cgankd.app.side_by_side import run_side_by_side
from cgankd.app.stages import STAGES, Stage
from cgankd.shardset.errors import CgankdError, CorruptShard
from cgankd.shardset.pool.run_folder import RunFolder


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)


def left(ctx: Context) -> Facts:
    """Ends only once `right` has begun."""
    (ctx.run.path / "left").touch()
    wait_for(ctx.run.path / "right")
    ctx.console.note(f"left [{ctx.space.task}]")
    with ctx.console.task("outer") as outer, ctx.console.task("inner") as inner:
        inner(1, 2, {"loss": 0.5})
        inner(2, 2, {"loss": 0.25})
        outer(7, 9, {})
    ctx.console.table("a table", ["arm", "n"], [["no-kd", 3]])
    return {"process": os.getpid(), "redone": ctx.drop_where_redone("teacher")}


def right(ctx: Context) -> Facts:
    """Ends only once `left` has begun."""
    (ctx.run.path / "right").touch()
    wait_for(ctx.run.path / "left")
    return {"process": os.getpid()}


def after_left(ctx: Context) -> Facts:
    return {"redone": ctx.drop_where_redone("teacher")}


def fail(ctx: Context) -> Facts:
    wait_for(ctx.run.path / "long")
    with ctx.console.task("failing"):
        raise CorruptShard("pool/000002.tar has 3 samples, marker says 4")


def die(ctx: Context) -> Facts:
    """Ends its own process as the kernel does when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def err(ctx: Context) -> Facts:
    """Has a bug, after its workers have done something."""
    ctx.map(abs, [-1, -2], "jobs")
    raise ValueError("a bug")


def long(ctx: Context) -> Facts:
    """Is ended."""
    (ctx.run.path / "long").write_text(str(os.getpid()))
    time.sleep(600)
    return {}


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    """A run of digits, whose console writes into `ctx.console.file`."""
    text = io.StringIO()
    console: Any = Console(rich=RichConsole(file=text, width=100, color_system=None))
    console.file = text
    return Context(
        run=RunFolder.open(tmp_path / "run", create=True),
        recipe=load_recipe("digits"),
        device=torch.device("cpu"),
        console=console,
        workers=2,
        redo={"teacher"},
    )


def test_stages_that_wait_for_nothing_run_at_once_and_the_others_after_their_inputs(
    ctx: Any,
) -> None:
    """Each of two waits for the other's first file, which one after the other would never end; what
    they say is printed here, and what is done anew is so once.
    """
    stages = [
        Stage("left", left),
        Stage("right", right, yields=True),
        Stage("after", after_left, ("left", "right")),
    ]

    facts = run_side_by_side(ctx, stages)

    assert list(facts)[-1] == "after"
    processes = {os.getpid(), facts["left"]["process"], facts["right"]["process"]}
    assert len(processes) == 3
    assert (facts["left"]["redone"], facts["after"]["redone"]) == (True, False)
    assert ctx.redo == set()
    assert set(ctx.run.facts()["seconds"]) == {"left", "right", "after"}
    assert ctx.lanes_bytes > 2 * 2**20
    said = ctx.console.file.getvalue().splitlines()
    assert said[0] == "left [classification]"
    assert [line.split(" in ")[0] for line in said[1:3]] == ["inner  2", "outer  7"]
    assert [line.split() for line in said[3:] if "no-kd" in line] == [["no-kd", "3"]]


def test_the_first_error_arrives_as_raised_and_ends_the_other_stage(ctx: Any) -> None:
    """The other one would sleep for ten minutes."""
    with pytest.raises(CorruptShard, match=r"^pool/000002.tar has 3 samples, marker says 4$"):
        run_side_by_side(ctx, [Stage("fail", fail), Stage("long", long)])

    assert not Path(f"/proc/{(ctx.run.path / 'long').read_text()}").exists()
    assert ctx.console.file.getvalue() == ""


def test_a_killed_stage_is_an_error_with_advice(ctx: Any) -> None:
    """It does not hang the run."""
    with pytest.raises(CgankdError, match=r"killed.*smaller --workers"):
        run_side_by_side(ctx, [Stage("die", die), Stage("long", long)])


def test_an_error_of_our_own_ends_the_run_though_workers_are_kept(ctx: Any) -> None:
    """Its traceback is shown by the stage's own process."""
    with pytest.raises(CgankdError, match=r"^err met an error of cgankd's own, shown above$"):
        run_side_by_side(ctx, [Stage("err", err), Stage("long", long)])


def test_every_stage_comes_after_its_inputs_in_the_list() -> None:
    """One after the other, they run in the list's order."""
    before: set[str] = set()
    for stage in STAGES:
        assert set(stage.inputs) <= before, stage.name
        before.add(stage.name)
