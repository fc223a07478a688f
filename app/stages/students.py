"""Trains every arm's students: steps and learning rates chosen on validation, then all seeds."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cgankd.app.advice import advise
from cgankd.app.context import REAL_OUTPUTS, Context, Facts, save_array, write_metrics
from cgankd.nets.batches import TrainingData
from cgankd.nets.device import Precision
from cgankd.nets.networks import load_network, save_network
from cgankd.nets.training import StudentTraining, train_network
from cgankd.shardset.errors import BadInput, TrainingDiverged
from cgankd.shardset.files import derive_seed, fingerprint, read_json, write_json
from cgankd.shardset.labels import LabelSpace
from cgankd.shardset.pool.plan import read_plan
from cgankd.shardset.pool.shards import read_shard
from cgankd.shardset.records import (
    PoolFacts,
    ScoreFacts,
    SelectionFacts,
    StudentsFacts,
    TeacherFacts,
    TrainedArm,
)
from cgankd.shardset.tables import read_logits, read_table
from cgankd.shardset.weights import load_weights
from cgankd.student.arms import choose, images_seen, starts_from_no_kd, steps_of
from cgankd.student.evaluate import measures, outputs_of, predictions
from cgankd.student.methods import Method, method_named
from cgankd.student.teacher import Teacher

METRICS = {"classification": "accuracy", "regression": "mae"}


@dataclass(frozen=True)
class StudentJob:
    """One student to train: from which images, how, and where it goes."""

    arrays: Path  # folder of the decoded images, see `write_arrays`
    selection: Path | None
    reals: str  # "budget" or "all"
    training: StudentTraining
    method: Method | None  # None: labels alone
    space: LabelSpace
    seed: int
    init: Path | None
    teacher: Callable[[], Teacher] | None  # for augmented images; else stored logits serve
    folder: Path
    facts: Mapping[str, Any]  # further entries of config.json
    device: str
    precision: Precision
    fields: Mapping[str, Any]  # all that decides the result


def train_student_job(job: StudentJob) -> Facts | None:
    """A student's validation figures, None where training diverged.

    A folder whose marker matches is not trained again.
    """
    marker = job.folder / "done.json"
    if marker.is_file() and (done := read_json(marker))["fingerprint"] == fingerprint(job.fields):
        return done["figures"]
    done = {"fingerprint": fingerprint(job.fields), "fields": job.fields}
    try:
        figures = _train(job)
    except TrainingDiverged as error:
        # A learning rate that is too high for this arm is a result of the search, not its end.
        write_json(marker, {**done, "figures": None, "diverged": str(error)})
        return None
    write_json(marker, {**done, "figures": figures})
    return figures


def _train(job: StudentJob) -> Facts:
    """Trains the student, writes it to its folder and returns its validation figures."""
    device = torch.device(job.device)
    evaluate = partial(_figures, job)
    module, history = train_network(
        _training_data(job),
        job.training,
        space=job.space,
        init=load_weights(job.init)[0] if job.init else None,
        seed=job.seed,
        device=device,
        precision=job.precision,
        eval=evaluate,
        method=job.method,
        teacher=job.teacher() if job.teacher else None,
    )
    channels, size = _array(job.arrays, "train_pixels").shape[1:3]
    save_network(
        job.folder,
        module,
        name=job.training.network,
        outputs=job.space.outputs,
        channels=channels,
        size=size,
        facts=job.facts,
    )
    write_metrics(job.folder, history)
    return evaluate(module)


def _figures(job: StudentJob, module: torch.nn.Module) -> dict[str, float]:
    return measures(
        _validation_outputs(job, module), _array(job.arrays, "validation_labels"), job.space
    )


def _validation_outputs(job: StudentJob, module: torch.nn.Module) -> np.ndarray:
    pixels = _array(job.arrays, "validation_pixels")
    device = torch.device(job.device)
    return outputs_of(module, pixels, 1000, device=device, precision=job.precision)


def _training_data(job: StudentJob) -> TrainingData:
    real = "all" if job.reals == "all" else "train"
    arrays: dict[str, Any] = {
        "real_pixels": _array(job.arrays, f"{real}_pixels"),
        "real_labels": _array(job.arrays, f"{real}_labels"),
    }
    keys = None
    if job.selection is not None:
        table = read_table(job.selection, ("key", "kept", "label"))
        kept = table["kept"].to_numpy()
        keys = table["key"].to_numpy()[kept]
        arrays["generated_pixels"] = _array(job.arrays, "pool_pixels")[keys]
        arrays["generated_labels"] = table["label"].to_numpy()[kept]
    if job.method is not None and job.teacher is None:
        arrays["real_logits"] = _array(job.arrays, "train_logits")
        if keys is not None:
            arrays["generated_logits"] = _array(job.arrays, "pool_logits")[keys]
    return TrainingData(**arrays)


def _array(folder: Path, name: str) -> np.ndarray:
    # Copy on write: torch takes writable arrays only, and nobody writes.
    return np.load(folder / f"{name}.npy", mmap_mode="c", allow_pickle=False)


def write_arrays(ctx: Context) -> Path:
    """The folder of the images that students train on, decoded once and mapped by every worker."""
    folder, data = ctx.run.students / "arrays", ctx.data
    plan = read_plan(ctx.run.pool / "plan.json")
    fields = {
        **ctx.real_fields,
        "pool": ctx.run.read_facts("pool", PoolFacts).manifest_sha256,
        "scores": ctx.run.read_facts("scores", ScoreFacts).sha256,
        "teacher": ctx.run.read_facts("teacher", TeacherFacts).sha256,
    }
    marker = folder / "done.json"
    if marker.is_file() and read_json(marker) == fields:
        return folder
    marker.unlink(missing_ok=True)
    pool = [read_shard(ctx.run.pool, spec.index)[0] for spec in plan.shards]
    arrays = {
        "train_pixels": data.train_pixels,
        "train_labels": data.train_labels,
        "train_logits": np.load(ctx.run.teacher / REAL_OUTPUTS),
        "validation_pixels": data.validation_pixels,
        "validation_labels": data.validation_labels,
        "all_pixels": data.all_train_pixels,
        "all_labels": data.all_train_labels,
        "pool_pixels": np.concatenate(pool),
    }
    if ctx.recipe.task == "classification":
        arrays["pool_logits"] = read_logits(ctx.run.scores).astype(np.float32)
    for name, array in arrays.items():
        save_array(folder / f"{name}.npy", array)
    write_json(marker, fields)
    return folder


def train_students(ctx: Context) -> StudentsFacts:
    """Facts of every arm's students, one per seed, with advice from validation alone, after the
    search for their steps and learning rates.
    """
    with ctx.timed("search"):
        ctx.drop_where_redone("students")
        search = ArmSearch(ctx, write_arrays(ctx))
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

    Both by the validation images, averaged over the search seeds (`student.arms.choose`). Jobs with
    equal settings share one folder, so a student of the search is not trained again for the table,
    nor one whose selection another arm shares.
    """

    def __init__(self, ctx: Context, arrays: Path) -> None:
        self.ctx, self.arrays, self.recipe = ctx, arrays, ctx.recipe.student
        self.seeds = ctx.recipe.seeds[: self.recipe.search_seeds]
        self.steps = 0
        self.chosen: dict[str, tuple[int, float, list[Facts]]] = {}
        self.sha256 = {
            arm.selection: ctx.run.read_facts(f"selections/{arm.selection}", SelectionFacts).sha256
            for arm in ctx.recipe.arms.values()
            if arm.selection is not None
        }

    def run(self) -> None:
        """Searches: first no-kd, whose students others may start from, then the other arms."""
        grid = {
            (steps, lr): [self.job("no-kd", steps, lr, seed) for seed in self.seeds]
            for steps in self.recipe.steps
            for lr in self.recipe.learning_rates
        }
        self._train((job for jobs in grid.values() for job in jobs), "search: no-kd")
        self.chosen["no-kd"] = _best(grid)
        self.steps = self.chosen["no-kd"][0]
        names = [name for name in self.ctx.recipe.arms if name != "no-kd"]
        grids = {
            name: {
                (steps, lr): [self.job(name, steps, lr, seed) for seed in self.seeds]
                for steps in [steps_of(self.ctx.recipe.arms[name], self.steps)]
                for lr in self.recipe.learning_rates
            }
            for name in names
        }
        self._train(
            (job for grid in grids.values() for jobs in grid.values() for job in jobs),
            "search: other arms",
        )
        for name in names:
            self.chosen[name] = _best(grids[name])

    def validation(self) -> dict[str, np.ndarray]:
        """How well each arm does on each validation image, float `[search seeds, n]`, at its chosen
        learning rate: 100 or 0 for right or wrong, or minus the error in the label's unit.
        """
        labels = _array(self.arrays, "validation_labels")
        merits = {}
        for name, (steps, lr, _) in self.chosen.items():
            rows = []
            for job in (self.job(name, steps, lr, seed) for seed in self.seeds):
                outputs = _validation_outputs(job, load_network(job.folder)[0])
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
            for name in self.ctx.recipe.arms
        }
        self._train(jobs["no-kd"], "students: no-kd")
        self._train((job for arm in jobs.values() for job in arm), "students")
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

    def _train(self, jobs: Iterable[StudentJob], name: str) -> None:
        distinct = {job.folder: job for job in jobs}
        self.ctx.map(train_student_job, list(distinct.values()), name)

    def _trained(self, name: str, jobs: Sequence[StudentJob]) -> TrainedArm:
        steps, lr, figures = self.chosen[name]
        for seed, job in zip(self.ctx.recipe.seeds, jobs, strict=True):
            if train_student_job(job) is None:
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


def _best(
    grid: Mapping[tuple[int, float], Sequence[StudentJob]],
) -> tuple[int, float, list[Facts]]:
    """The chosen steps and learning rate, and their figures, one for each search seed."""
    figures = {setting: [train_student_job(job) for job in jobs] for setting, jobs in grid.items()}
    best = choose(figures)
    return (*best, [row for row in figures[best] if row is not None])


def _link(link: Path, folder: Path) -> None:
    """Points `students/<arm>/seed-k` at the trained student's folder."""
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(Path("..") / folder.relative_to(link.parent.parent), target_is_directory=True)
