"""What every stage of one run shares: folder, recipe, images, device, workers, console."""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from pydantic import BaseModel, TypeAdapter

from cgankd.app.console import Console
from cgankd.app.engine import Backend, Workers, map_jobs
from cgankd.app.recipe import Recipe, recipe_yaml
from cgankd.nets.device import Precision, training_threads
from cgankd.shardset.errors import BadInput
from cgankd.shardset.files import atomic_path, write_bytes
from cgankd.shardset.labels import LabelSpace
from cgankd.shardset.pool.run_folder import RunFolder
from cgankd.shardset.sources.read import RealImages, read_source
from cgankd.shardset.splits import RealData, split_reals
from cgankd.student.teacher import Teacher, load_teacher

Facts = dict[str, Any]
Returned = TypeVar("Returned", bound=BaseModel | Facts)

# A worker process has its modules in about two seconds, in which a small network has seen this many
# pixels; larger networks come with larger images, and are handed on when the time is over.
FEW_PIXELS, PATIENCE = 8_000_000, 10.0  # PATIENCE in processor seconds
REAL_OUTPUTS = "real_outputs.npy"  # the teacher's, of the real training images


@dataclass
class Context:
    """One run in one process; images are read once, when first asked for."""

    run: RunFolder
    recipe: Recipe
    device: torch.device
    console: Console
    workers: int = 1
    backend: Backend = "processes"
    redo: set[str] = field(default_factory=set)
    lanes_bytes: int | None = None  # of memory, where stages had processes of their own
    _kept: Workers | None = None  # from one map to the next
    _within: float = 0.0  # seconds of stages timed within the one that is timed now

    @cached_property
    def reals(self) -> RealImages:
        """The source's images, all of them resized alike."""
        shape = self.recipe.image
        return read_source(
            self.recipe.source,
            size=shape.size,
            channels=shape.channels,
            columns=self.recipe.columns,
            task=self.recipe.task,
            label=self.recipe.label,
        )

    @cached_property
    def data(self) -> RealData:
        """The images in their splits."""
        return RealData(
            self.reals, split_reals(self.reals, self.recipe.budget, seed=self.recipe.seed)
        )

    @property
    def space(self) -> LabelSpace:
        """What a label is: as recorded with the run, so that selecting need not read the source,
        until the source is read.
        """
        if "reals" not in self.__dict__ and (recorded := self._recorded_space) is not None:
            return recorded
        return self.reals.space

    @cached_property
    def _recorded_space(self) -> LabelSpace | None:
        recorded = self.run.facts().get("source", {})
        asked = {"spec": self.recipe.source, "label": self.recipe.label.model_dump(mode="json")}
        if any(recorded.get(name) != value for name, value in asked.items()):
            return None
        return TypeAdapter[LabelSpace](LabelSpace).validate_python(recorded["space"])

    @property
    def image_shape(self) -> tuple[int, ...]:
        """`(channels, size, size)` of the real images: as recorded with the run, so that scoring
        need not read the source for it, until the source is read.
        """
        recorded = self.run.facts().get("source", {})
        asked = {
            "spec": self.recipe.source,
            "size": self.recipe.image.size,
            "channels": self.recipe.image.channels,
        }
        same = all(recorded.get(name, "") == value for name, value in asked.items())
        if "reals" not in self.__dict__ and same and "image_shape" in recorded:
            return tuple(recorded["image_shape"])
        return self.reals.image_shape

    def source_facts(self) -> Facts:
        """What run.json keeps of the source: a row for every image that was left out, and why."""
        reals, split = self.reals, self.data.split
        return {
            "spec": reals.spec,
            "revision": reals.revision,
            "space": reals.space.model_dump(mode="json"),
            "label": self.recipe.label.model_dump(mode="json"),
            "size": self.recipe.image.size,
            "channels": self.recipe.image.channels,
            "image_shape": list(reals.image_shape),
            "fingerprint": reals.fingerprint,
            "images": len(reals.labels),
            "duplicates": split.duplicates,
            "cropped": reals.cropped,
            "rejected": [{"image": image.id, "status": image.reason} for image in reals.rejected],
        }

    @cached_property
    def threads(self) -> int:
        """Threads of the training stages: the recipe's, else the number recorded by this run, else
        that of the rule.
        """
        recorded = self.run.facts().get("threads")
        return self.recipe.threads or recorded or training_threads(self.image_shape[-1])

    @cached_property
    def precision(self) -> Precision:
        """The recipe's precision; `auto` is bfloat16 where the device computes in it."""
        return resolve_precision(self.recipe.precision, self.device, self.image_shape[-1])

    @cached_property
    def real_fields(self) -> dict[str, Any]:
        """What identifies the labelled images a stage may use."""
        return {
            "reals": self.reals.fingerprint,
            "split_seed": self.recipe.seed,
            "budget": self.recipe.budget.model_dump(mode="json"),
        }

    @cached_property
    def compute_fields(self) -> dict[str, Any]:
        """What changes the last bits of every float: device type, precision, threads."""
        return {
            "device": self.device.type,
            "precision": self.precision,
            "threads": self.threads,
        }

    @property
    def teacher_loader(self) -> Callable[[], Teacher]:
        """A function without arguments, for this or a worker process, that loads the teacher."""
        recipe = self.recipe.teacher
        channels, size = self.image_shape[:2]
        return partial(
            load_teacher,
            recipe.weights or str(self.run.teacher),
            outputs=self.space.outputs,
            channels=channels,
            size=size,
            network=recipe.training.network,
            mean=recipe.mean,
            std=recipe.std,
            device=self.device,
            precision=self.precision,
        )

    @property
    def network_facts(self) -> Facts:
        """What `config.json` says beside a network's weights, for whoever uses them elsewhere."""
        return {
            "label_space": self.space.model_dump(mode="json"),
            "input_range": [-1, 1],
        }

    def is_done(self, stage: str, fields: Facts) -> bool:
        """Whether a stage's marker matches; a stage that `--redo` names is dropped first, once."""
        self.drop_where_redone(stage.split("/")[0])
        return self.run.stage_is_done(stage, fields)

    def drop_where_redone(self, stage: str) -> bool:
        """Drops what a stage left if `--redo` names it, once; whether it did."""
        if stage not in self.redo:
            return False
        self.redo.discard(stage)
        self.run.drop_stage(stage)
        return True

    def finish(self, stage: str, fields: Facts, facts: Returned) -> Returned:
        """The facts, after the stage was marked as done; the recipe that it followed is now the
        run's, and its source.
        """
        plain = facts.model_dump(mode="json") if isinstance(facts, BaseModel) else facts
        self.run.finish_stage(stage, fields, plain)
        if "reals" in self.__dict__:
            self.run.record(source=self.source_facts())
        self.write_recipe()
        return facts

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Adds the seconds within to the stage's in run.json, so that resumed runs add up; those
        of a stage timed within are its own.
        """
        start, outer, self._within = time.monotonic(), self._within, 0.0
        try:
            yield
        finally:
            spent = time.monotonic() - start
            with self.run.changing() as known:
                seconds = known.get("seconds", {})
                total = seconds.get(stage, 0.0) + spent - self._within
                known["seconds"] = {**seconds, stage: round(total, 2)}
            self._within = outer + spent

    def write_recipe(self) -> None:
        """Writes the resolved recipe, as run."""
        with self.run.one_at_a_time():
            write_bytes(self.run.path / "recipe.yaml", recipe_yaml(self.recipe).encode())

    def end_workers(self) -> None:
        """Ends the worker processes that were kept, so that their memory is free, and known."""
        if self._kept is not None:
            self._kept.end()
            self._kept = None

    def map(
        self,
        function: Callable[[Any], Any],
        jobs: Sequence[Any],
        name: str,
        sizes: Sequence[int] | None = None,
        *,
        small: bool = False,
    ) -> list[Any]:
        """A function's results over jobs, in their order, on worker processes of one thread each.

        `sizes` says what the progress line counts of each job: its samples, say. `small` jobs are
        done in this process, until they have taken longer than a worker takes to start.
        """
        sizes = sizes or [1] * len(jobs)
        with self.console.task(name) as progress:
            finished = 0

            def on_done(index: int, _result: Any) -> None:
                nonlocal finished
                finished += sizes[index]
                progress(finished, sum(sizes), {})

            progress(0, sum(sizes), {})
            done: list[Any] = []
            start = time.process_time()
            if small and self.backend == "processes":
                while len(done) < len(jobs) and time.process_time() - start < PATIENCE:
                    one = jobs[len(done) : len(done) + 1]
                    done += map_jobs(function, one, backend="serial")
                    on_done(len(done) - 1, done[-1])
            # One job holder a GPU: Ray gives each job one of its own, processes would share one.
            on_gpu = self.device.type == "cuda"
            # Idle ones would hold the GPU's memory.
            keeps = self.backend == "processes" and not on_gpu
            if keeps and (self._kept is None or not self._kept.usable):
                self._kept = Workers(self.workers)
            return done + map_jobs(
                function,
                jobs[len(done) :],
                workers=1 if on_gpu and self.backend == "processes" else self.workers,
                backend=self.backend,
                gpus=1.0 if on_gpu else 0.0,
                kept=self._kept,
                on_done=lambda index, result: on_done(len(done) + index, result),
            )

    def few_pixels(self, samples: int) -> bool:
        """Whether images of the run's shape are so few that `map` takes them for `small` jobs."""
        channels, size = self.image_shape[:2]
        return samples * channels * size**2 <= FEW_PIXELS


def save_array(path: Path, array: np.ndarray) -> None:
    """Writes a NumPy file atomically."""
    with atomic_path(path) as partial, open(partial, "wb") as file:
        np.save(file, array, allow_pickle=False)


def write_metrics(folder: Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Writes `metrics.jsonl`, one line a row."""
    lines = "".join(json.dumps(dict(row), sort_keys=True) + "\n" for row in rows)
    write_bytes(folder / "metrics.jsonl", lines.encode())


def open_device(name: str) -> torch.device:
    """The device of `auto`, `cpu` or `cuda`; `BadInput` where it is not there."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise BadInput("--device cuda: this machine has no CUDA device; use --device cpu")
    if name not in ("cpu", "cuda"):
        raise BadInput(f"--device {name}: expected auto, cpu or cuda")
    return torch.device(name)


def resolve_precision(
    asked: Literal["auto", "float32", "bfloat16"], device: torch.device, size: int
) -> Precision:
    """`auto` is bfloat16 where the device computes in it and images are over 16 px."""
    if asked != "auto":
        return asked
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    # Tiny images are bound by overhead, not arithmetic: casting only adds to it.
    return "bfloat16" if size > 16 and torch.ops.mkldnn._is_mkldnn_bf16_supported() else "float32"
