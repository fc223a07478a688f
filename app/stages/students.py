"""Trains every arm's students: steps and learning rates chosen on validation, then all seeds."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from cgankd.app.advice import advise
from cgankd.app.context import Context, Facts
from cgankd.app.student_arrays import array, write_arrays, write_reals
from cgankd.app.student_jobs import (
    StudentJob,
    portions_of,
    train_portion,
    validation_outputs,
)
from cgankd.nets.networks import load_network
from cgankd.nets.pack import MEMBERS
from cgankd.nets.pack_training import trains_in_packs
from cgankd.nets.training import EVALUATIONS
from cgankd.shardset.errors import BadInput, TrainingDiverged
from cgankd.shardset.files import derive_seed, fingerprint
from cgankd.shardset.records import (
    SelectionFacts,
    StudentsFacts,
    TeacherFacts,
    TrainedArm,
)
from cgankd.student.arms import choose, images_seen, promising, starts_from_no_kd, steps_of
from cgankd.student.evaluate import predictions
from cgankd.student.methods import method_named

METRICS = {"classification": "accuracy", "regression": "mae"}
HALVED_AT = 4  # tenths of the steps after which the better half of the learning rates goes on

Setting = tuple[int, float]  # steps and learning rate
Grid = Mapping[Setting, Sequence[StudentJob]]  # the jobs of each, one a search seed


def train_on_reals(ctx: Context) -> Facts:
    """How many arms train on real images alone; their students, which wait for no generator.

    They are searched and trained as by `train_students`, which then finds them done.
    """
    ctx.drop_where_redone("students")
    arms = [name for name, arm in ctx.recipe.arms.items() if arm.selection is None]
    search = ArmSearch(ctx, write_reals(ctx), arms)
    search.run()
    search.train_all()
    return {"arms": len(arms)}


def train_students(ctx: Context) -> StudentsFacts:
    """Facts of every arm's students, one per seed, with advice from validation alone, after the
    search for their steps and learning rates.
    """
    with ctx.timed("search"):
        ctx.drop_where_redone("students")
        search = ArmSearch(ctx, write_arrays(ctx), list(ctx.recipe.arms))
        search.run()
    advice = advise(search.validation(), ctx.recipe, ctx.space)
    for line in advice:
        ctx.console.note(line)
    facts = StudentsFacts(arms=search.train_all(), selections=search.sha256, advice=tuple(advice))
    fields = {"arms": list(facts.arms), "selections": facts.selections}
    return ctx.finish("students", fields, facts)


def trained_students(ctx: Context) -> StudentsFacts:
    """The students of the recipe's arms, in their order; `BadInput` names `train-students` where
    they are not trained, or were trained on selections that were replaced since.
    """
    run = ctx.run
    advice = f"train them with: cgankd train-students {run.path}"
    if not run.is_finished("students"):
        raise BadInput(f"no students are trained in {run.path} yet; {advice}")
    facts = run.read_facts("students", StudentsFacts)
    for name, sha256 in facts.selections.items():
        if run.read_facts(f"selections/{name}", SelectionFacts).sha256 != sha256:
            raise BadInput(f"the students of {run.path} are of an older selection {name}; {advice}")
    for name in ctx.recipe.arms:
        if name not in facts.arms:
            raise BadInput(f"arm {name} is not trained in {run.path} yet; {advice}")
        for folder in facts.arms[name].folders:
            if not (run.path / folder / "model.safetensors").is_file():
                raise BadInput(f"{run.path / folder} holds no student; {advice}")
    return facts.model_copy(update={"arms": {n: facts.arms[n] for n in ctx.recipe.arms}})


class ArmSearch:
    """Steps are chosen by no-kd and shared; each arm chooses its own learning rate.

    Both by the validation images, averaged over the search seeds (`student.arms.choose`). Of the
    learning rates the better half, and what is as good, goes on after four tenths of the steps
    (successive halving: Jamieson and Talwalkar, 2016). Jobs with equal settings share one folder,
    so a student of the search is not trained again for the table, nor one whose selection another
    arm shares.
    """

    def __init__(self, ctx: Context, arrays: Path, arms: Sequence[str]) -> None:
        self.ctx, self.arrays, self.arms, self.recipe = ctx, arrays, arms, ctx.recipe.student
        self.seeds = ctx.recipe.seeds[: self.recipe.search_seeds]
        self.steps = 0
        self.chosen: dict[str, tuple[int, float, list[Facts]]] = {}
        self.sha256 = {
            selection: ctx.run.read_facts(f"selections/{selection}", SelectionFacts).sha256
            for selection in (ctx.recipe.arms[name].selection for name in arms)
            if selection is not None
        }

    def run(self) -> None:
        """Searches: first no-kd, where others take their steps or weights from it; then the rest,
        all together.
        """
        names = ["no-kd", *(name for name in self.arms if name != "no-kd")]
        if len(self.recipe.steps) > 1 or self.recipe.init == "no-kd":
            self._search(names[:1], "search no-kd")
            self.steps = self.chosen["no-kd"][0]
            self._search(names[1:], "search other arms")
            return
        (self.steps,) = self.recipe.steps
        self._search(names, "search")

    def _search(self, names: Iterable[str], title: str) -> None:
        """Chooses the settings of these arms."""
        grids = {name: self.grid(name) for name in names}
        while grids:
            rivals = {name: grid for name, grid in grids.items() if _has_rivals(grid)}
            self.train(_jobs(rivals), f"{title}: rates", HALVED_AT)
            left = {**grids, **{name: self._better(grid) for name, grid in rivals.items()}}
            self.train(_jobs(left), title)
            # Where all that went on diverged after all, what was dropped for it is tried.
            grids = {
                name: grids[name]
                for name, grid in left.items()
                if all(map(_diverged, grid.values()))
                and not all(map(_diverged, grids[name].values()))
            }
            self.chosen |= {name: _best(grid) for name, grid in left.items() if name not in grids}

    def _better(self, grid: Grid) -> Grid:
        """The settings that go on: of the learning rates for the same steps the better half."""
        images = len(array(self.arrays, "validation_labels"))
        kept: list[Setting] = []
        for steps in dict.fromkeys(steps for steps, _ in grid):
            rivals = {setting: jobs for setting, jobs in grid.items() if setting[0] == steps}
            figures = {s: [job.figures(HALVED_AT) for job in jobs] for s, jobs in rivals.items()}
            kept += promising(figures, images)
        return {setting: grid[setting] for setting in kept}

    def grid(self, name: str) -> Grid:
        """The jobs of the search for one arm, where no setting is dropped."""
        arm = self.ctx.recipe.arms[name]
        every = self.recipe.steps if name == "no-kd" else [steps_of(arm, self.steps)]
        return {
            (steps, lr): [self.job(name, steps, lr, seed) for seed in self.seeds]
            for steps in every
            for lr in self.recipe.learning_rates
        }

    def validation(self) -> dict[str, np.ndarray]:
        """How well each arm does on each validation image, float `[search seeds, n]`, at its chosen
        learning rate: 100 or 0 for right or wrong, or minus the error in the label's unit.
        """
        labels = array(self.arrays, "validation_labels")
        merits = {}
        for name, (steps, lr, _) in self.chosen.items():
            rows = []
            for job in (self.job(name, steps, lr, seed) for seed in self.seeds):
                outputs = validation_outputs(job, load_network(job.folder)[0])
                guesses = predictions(outputs, job.space)
                if job.space.task == "classification":
                    rows.append(100.0 * (guesses == labels))
                else:
                    rows.append(-np.abs(guesses - labels))
            merits[name] = np.stack(rows)
        return merits

    def train_all(self) -> dict[str, TrainedArm]:
        """Every arm's students, one per seed."""
        jobs = {
            name: [self.job(name, *self.chosen[name][:2], seed) for seed in self.ctx.recipe.seeds]
            for name in self.arms
        }
        if self.recipe.init == "no-kd":  # others start from its students
            self.train(jobs["no-kd"], "students: no-kd")
        self.train((job for arm in jobs.values() for job in arm), "students")
        return {name: self._trained(name, arm) for name, arm in jobs.items()}

    def job(self, name: str, steps: int, lr: float, seed: int) -> StudentJob:
        """The job of one arm's student."""
        ctx, arm, recipe = self.ctx, self.ctx.recipe.arms[name], self.recipe
        method = method_named(arm.method, recipe.methods) if arm.method else None
        training = recipe.training.model_copy(update={"steps": steps, "lr": lr})
        init = None
        if starts_from_no_kd(arm, recipe.init):
            init = self.job("no-kd", *self.chosen["no-kd"][:2], seed)
        asks_teacher = method is not None and training.augment != "none"
        fields = {
            **ctx.real_fields,
            "device": ctx.device.type,
            "precision": ctx.precision,
            "recipe_seed": ctx.recipe.seed,
            "seed": seed,
            "reals_used": arm.reals,
            "training": training.model_dump(mode="json"),
            "method": method.model_dump(mode="json") if method else None,
            "selection": self.sha256[arm.selection] if arm.selection else None,
            "teacher": ctx.run.read_facts("teacher", TeacherFacts).sha256 if method else None,
            "init": fingerprint(init.fields) if init else None,
            "pack": MEMBERS if trains_in_packs(training, method, ctx.image_shape[-1]) else None,
        }
        return StudentJob(
            arrays=self.arrays,
            selection=ctx.run.selections / f"{arm.selection}.parquet" if arm.selection else None,
            reals=arm.reals,
            training=training,
            method=method,
            space=ctx.space,
            seed=derive_seed(ctx.recipe.seed, "student", seed),  # arms are paired by seed
            init=init.folder if init else None,
            teacher=ctx.teacher_loader if asks_teacher else None,
            folder=ctx.run.students / "trained" / fingerprint(fields)[:16],
            facts=ctx.network_facts,
            device=ctx.device.type,
            precision=ctx.precision,
            fields=fields,
        )

    def train(self, jobs: Iterable[StudentJob], name: str, tenths: int = EVALUATIONS) -> None:
        """Trains jobs so far, where they are not yet."""
        portions = portions_of(jobs, tenths)
        if portions:
            sizes = [len(portion.jobs) for portion in portions]
            self.ctx.map(train_portion, portions, name, sizes)

    def _trained(self, name: str, jobs: Sequence[StudentJob]) -> TrainedArm:
        steps, lr, figures = self.chosen[name]
        for seed, job in zip(self.ctx.recipe.seeds, jobs, strict=True):
            if job.figures() is None:
                raise TrainingDiverged(
                    f"{name}, seed {seed}: training diverged with learning rate {lr}, which the "
                    "search seeds survived; lower student.learning_rates"
                )
            _link(self.ctx.run.students / name / f"seed-{seed}", job.folder)
        return TrainedArm(
            steps=steps,
            lr=lr,
            images_seen=images_seen(
                self.ctx.recipe.arms[name], self.recipe.init, self.steps, self.recipe.training.batch
            ),
            validation=tuple(figure[METRICS[self.ctx.recipe.task]] for figure in figures),
            folders=tuple(str(job.folder.relative_to(self.ctx.run.path)) for job in jobs),
        )


def _jobs(grids: Mapping[str, Grid]) -> Iterable[StudentJob]:
    return (job for grid in grids.values() for jobs in grid.values() for job in jobs)


def _has_rivals(grid: Grid) -> bool:
    """Whether there is more than one learning rate for the same steps."""
    return len(grid) > len({steps for steps, _ in grid})


def _diverged(jobs: Sequence[StudentJob]) -> bool:
    return any(job.is_done and job.figures() is None for job in jobs)


def _best(grid: Grid) -> tuple[int, float, list[Facts]]:
    """The chosen steps and learning rate, and their figures, one for each search seed."""
    figures = {setting: [job.figures() for job in jobs] for setting, jobs in grid.items()}
    best = choose(figures)
    return (*best, [row for row in figures[best] if row is not None])


def _link(link: Path, folder: Path) -> None:
    """Points `students/<arm>/seed-k` at the trained student's folder."""
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(Path("..") / folder.relative_to(link.parent.parent), target_is_directory=True)
