"""The stages of a run, one file each: what it reads, what it does, and the record in its marker.

A stage's fields are the recipe's fields that it reads and the hashes of its inputs, nothing more;
its marker carries them, so that a change touches that stage and what follows it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from pydantic import BaseModel

from cgankd.app.context import Context
from cgankd.app.stages.check import check
from cgankd.app.stages.generator import train_gan
from cgankd.app.stages.neighbours import neighbours_stage
from cgankd.app.stages.pool import produce
from cgankd.app.stages.ratio import fit_density_ratio
from cgankd.app.stages.release import build_where_changed
from cgankd.app.stages.report import write
from cgankd.app.stages.scores import score
from cgankd.app.stages.selections import select_all
from cgankd.app.stages.students import train_students
from cgankd.app.stages.teacher import train_teacher


class Stage(NamedTuple):
    """One stage, as `cgankd run`, its own command and `--redo` know it."""

    name: str
    work: Callable[[Context], BaseModel | dict[str, Any]]  # returns its facts; does nothing twice
    in_run: bool = True  # False: where the selections ask for it, or on its own command alone
    not_redone: str = ""  # what to do instead of --redo


STAGES = (  # in the order in which they run
    Stage("teacher", train_teacher),
    Stage("generator", train_gan),
    Stage("pool", produce),
    Stage("ratio", fit_density_ratio),
    Stage("scores", score),
    Stage("features", neighbours_stage, in_run=False),  # kept apart, made with the neighbours
    Stage("neighbours", neighbours_stage, in_run=False),
    Stage(
        "selections",
        select_all,
        not_redone="a selection is cheap: `cgankd select RUN` replaces it, and so does `run` with "
        "another policy",
    ),
    Stage("check", check, in_run=False, not_redone="`cgankd check RUN` always makes it anew"),
    Stage(
        "release",
        build_where_changed,
        not_redone="a release is never deleted: `cgankd release RUN` builds the next version; "
        "remove one that was never published by hand, from RUN/release/VERSION",
    ),
    Stage("students", train_students),
    Stage("report", write),
)
