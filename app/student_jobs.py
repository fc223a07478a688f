"""One student to train, alone or in a pack, and what it leaves in its folder.

`done.json` is the marker of a training that ended, with its validation figures, null where it
diverged. A training that stopped on the way leaves its checkpoint, and its history as far as it
went in `metrics.jsonl`.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cgankd.app.context import Facts, write_metrics
from cgankd.app.student_arrays import array
from cgankd.nets.batches import TrainingData
from cgankd.nets.checkpoint import Checkpoint
from cgankd.nets.device import Precision
from cgankd.nets.network import Network
from cgankd.nets.networks import save_network
from cgankd.nets.pack import MEMBERS
from cgankd.nets.pack_training import Member, train_pack
from cgankd.nets.training import EVALUATIONS, StudentTraining, train_network
from cgankd.shardset.errors import TrainingDiverged
from cgankd.shardset.files import fingerprint, read_json, write_json
from cgankd.shardset.labels import LabelSpace
from cgankd.shardset.tables import read_table
from cgankd.shardset.weights import load_weights
from cgankd.student.evaluate import measures, outputs_of
from cgankd.student.methods import Method
from cgankd.student.teacher import Teacher

CHECKPOINT = "checkpoint.safetensors"
HISTORY = ("step", "loss", "learning_rate", "images_seen")  # of a row, before its figures


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

    @property
    def checkpoint(self) -> Checkpoint:
        """Where its training stands that stopped on the way, and nowhere else."""
        return Checkpoint(self.folder / CHECKPOINT, self.fields, every_seconds=math.inf)

    @property
    def packed(self) -> bool:
        """Whether it is trained in a pack."""
        return self.fields["pack"] is not None

    @property
    def is_done(self) -> bool:
        """Whether its training ended."""
        marker = self.folder / "done.json"
        return marker.is_file() and read_json(marker)["fingerprint"] == fingerprint(self.fields)

    def figures(self, tenths: int = EVALUATIONS) -> Facts | None:
        """Its validation figures after so many tenths of the steps, as far as it was trained at
        least; None where it had diverged by then.
        """
        if tenths == EVALUATIONS:
            return read_json(self.folder / "done.json")["figures"]
        # Also of a job that diverged later: what is dropped must not depend on what came after.
        row = self._rows().get(self.step_at(tenths))
        return None if row is None else {name: row[name] for name in row if name not in HISTORY}

    def reached(self, tenths: int) -> bool:
        """Whether it is trained as far."""
        return self.is_done or (tenths < EVALUATIONS and self.step_at(tenths) in self._rows())

    def step_at(self, tenths: int) -> int:
        """The step after which so many tenths of them are done, and its figures are measured."""
        return -(-self.training.steps * tenths // EVALUATIONS)

    def _rows(self) -> dict[int, dict[str, float]]:
        path = self.folder / "metrics.jsonl"
        lines = path.read_text("utf-8").splitlines() if path.is_file() else []
        return {row["step"]: row for row in map(json.loads, lines)}


@dataclass(frozen=True)
class Portion:
    """What a worker trains at a time, up to so many tenths of the steps."""

    jobs: tuple[StudentJob, ...]
    tenths: int


def portions_of(jobs: Iterable[StudentJob], tenths: int = EVALUATIONS) -> list[Portion]:
    """The portions in which jobs are trained so far, the longest first; none that are already.

    Of a network that trains in packs, those whose settings differ in learning rate, images and
    seed alone share a pack.
    """
    alike: dict[str, list[StudentJob]] = {}
    for job in {job.folder: job for job in jobs if not job.reached(tenths)}.values():
        own = str(job.folder)
        if job.packed:
            training = job.training.model_copy(update={"lr": 1.0}).model_dump()
            shared = {**training, "method": job.fields["method"], "from": job.checkpoint.step}
            own = json.dumps(shared, sort_keys=True)
        alike.setdefault(own, []).append(job)
    found = [
        Portion(tuple(group[start : start + MEMBERS]), tenths)
        for group in alike.values()
        for start in range(0, len(group), MEMBERS)
    ]
    return sorted(found, key=lambda portion: -portion.jobs[0].training.steps)


def train_portion(portion: Portion) -> None:
    """Trains students as far as asked and leaves each one's figures in its folder."""
    jobs, first = portion.jobs, portion.jobs[0]
    until = first.step_at(portion.tenths)
    options: dict[str, Any] = {
        "space": first.space,
        "device": torch.device(first.device),
        "precision": first.precision,
        "eval": partial(_figures, first),  # of one run: the validation images are everyone's
        "method": first.method,
        "teacher": first.teacher() if first.teacher else None,
        "until": until,
    }
    ended: Sequence[tuple[Network, list[dict[str, float]]] | TrainingDiverged]
    if first.packed:
        images = {(job.selection, job.reals): job for job in jobs}
        data = {which: _training_data(job) for which, job in images.items()}
        members = [
            Member(
                data[job.selection, job.reals],
                job.training,
                job.seed,
                load_weights(job.init)[0] if job.init else None,
                job.checkpoint,
            )
            for job in jobs
        ]
        ended = train_pack(members, **options)
    else:
        ended = [_alone(first, options)]
    for job, result in zip(jobs, ended, strict=True):
        _leave(job, result, until)


def _alone(
    job: StudentJob, options: Mapping[str, Any]
) -> tuple[Network, list[dict[str, float]]] | TrainingDiverged:
    init = load_weights(job.init)[0] if job.init else None
    try:
        return train_network(
            _training_data(job),
            job.training,
            init=init,
            seed=job.seed,
            checkpoint=job.checkpoint,
            **options,
        )
    except TrainingDiverged as error:
        return error


def _leave(
    job: StudentJob,
    result: tuple[Network, list[dict[str, float]]] | TrainingDiverged,
    until: int,
) -> None:
    """Writes what a training left to its folder: the history, and at its end the student."""
    done = {"fingerprint": fingerprint(job.fields), "fields": job.fields}
    marker = job.folder / "done.json"
    if isinstance(result, TrainingDiverged):
        # A learning rate that is too high for this arm is a result of the search, not its end.
        write_json(marker, {**done, "figures": None, "diverged": str(result)})
        job.checkpoint.remove()
        return
    module, history = result
    write_metrics(job.folder, history)
    if until < job.training.steps:
        return
    channels, size = array(job.arrays, "train_pixels").shape[1:3]
    save_network(
        job.folder,
        module,
        name=job.training.network,
        outputs=job.space.outputs,
        channels=channels,
        size=size,
        facts=job.facts,
    )
    write_json(marker, {**done, "figures": _figures(job, module)})
    job.checkpoint.remove()


def _figures(job: StudentJob, module: torch.nn.Module) -> dict[str, float]:
    labels = array(job.arrays, "validation_labels")
    return measures(validation_outputs(job, module), labels, job.space)


def validation_outputs(job: StudentJob, module: torch.nn.Module) -> np.ndarray:
    """What a network says of the validation images, float32 `[n, outputs]`."""
    pixels = array(job.arrays, "validation_pixels")
    device = torch.device(job.device)
    return outputs_of(module, pixels, 1000, device=device, precision=job.precision)


def _training_data(job: StudentJob) -> TrainingData:
    real = "all" if job.reals == "all" else "train"
    arrays: dict[str, Any] = {
        "real_pixels": array(job.arrays, f"{real}_pixels"),
        "real_labels": array(job.arrays, f"{real}_labels"),
    }
    keys = None
    if job.selection is not None:
        table = read_table(job.selection, ("key", "kept", "label"))
        kept = table["kept"].to_numpy()
        keys = table["key"].to_numpy()[kept]
        arrays["generated_pixels"] = array(job.arrays, "pool_pixels")[keys]
        arrays["generated_labels"] = table["label"].to_numpy()[kept]
    if job.method is not None and job.teacher is None:
        arrays["real_logits"] = array(job.arrays, "train_logits")
        if keys is not None:
            arrays["generated_logits"] = array(job.arrays, "pool_logits")[keys]
    return TrainingData(**arrays)
