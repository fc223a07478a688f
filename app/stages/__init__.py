"""The stages of a run, one file each: what it reads, what it does, and the record in its marker.

A stage's fields are the recipe's fields that it reads and the hashes of its inputs, nothing more;
its marker carries them, so that a change touches that stage and what follows it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from pydantic import BaseModel

from cgankd.app.context import Context, Facts
from cgankd.app.stages import generator, pool, ratio, scores, teacher
from cgankd.app.stages.check import check
from cgankd.app.stages.generator import train_gan
from cgankd.app.stages.neighbours import neighbours_stage
from cgankd.app.stages.pool import produce
from cgankd.app.stages.ratio import fit_density_ratio
from cgankd.app.stages.release import build_where_changed
from cgankd.app.stages.report import write
from cgankd.app.stages.scores import score
from cgankd.app.stages.selections import select_all
from cgankd.app.stages.students import train_on_reals, train_students
from cgankd.app.stages.teacher import train_teacher


class Stage(NamedTuple):
    """One stage, as `cgankd run`, its own command and `--redo` know it."""

    name: str
    work: Callable[[Context], BaseModel | dict[str, Any]]  # returns its facts; does nothing twice
    inputs: tuple[str, ...] = ()  # the stages whose results it reads, and nothing else
    fields: Callable[[Context], Facts] | None = None  # what it reads; None where it never is stale
    in_run: bool = True  # False: where the selections ask for it, or on its own command alone
    yields: bool = False  # its end is not waited for: what runs beside it has the processor first
    not_redone: str = ""  # what to do instead of --redo


STAGES = (  # in an order in which they can run one after the other
    Stage("teacher", train_teacher, fields=teacher.fields_of, yields=True),
    Stage("generator", train_gan, fields=generator.fields_of),
    Stage("pool", produce, ("generator",), pool.fields_of),
    Stage("ratio", fit_density_ratio, ("pool",), ratio.fields_of),
    Stage("scores", score, ("teacher", "pool", "ratio"), scores.fields_of),
    Stage("features", neighbours_stage, in_run=False),  # kept apart, made with the neighbours
    Stage("neighbours", neighbours_stage, in_run=False),
    Stage(
        "selections",
        select_all,
        ("scores",),
        not_redone="a selection is cheap: `cgankd select RUN` replaces it, and so does `run` with "
        "another policy",
    ),
    Stage("check", check, in_run=False, not_redone="`cgankd check RUN` always makes it anew"),
    Stage(
        "release",
        build_where_changed,
        ("selections",),
        yields=True,
        not_redone="a release is never deleted: `cgankd release RUN` builds the next version; "
        "remove one that was never published by hand, from RUN/release/VERSION",
    ),
    Stage(
        "reals",
        train_on_reals,
        ("teacher",),
        yields=True,
        not_redone="its students are redone with the others, by --redo students",
    ),
    Stage("students", train_students, ("selections", "reals")),
    Stage("report", write, ("release", "students")),
)
