"""Trains a conditional generator against a projection discriminator, resumable to the byte.

The random numbers of step t come from (seed, t) alone, so a run that was killed and started again
writes the same weights, metrics and grids as one that was not.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cgankd.generator import GeneratorKind, saved_form
from cgankd.generator.config import GeneratorTraining, KeepBest
from cgankd.generator.flat_adam import FlatAdam
from cgankd.generator.game import LOSSES, UNIFORMS, augment, conditions
from cgankd.generator.interface import AdversarialGenerator, Discriminator, ImageSpace
from cgankd.generator.keep_best import BestAverage, Score, best_row
from cgankd.generator.label_embedding import train_label_embedding
from cgankd.generator.layers import initialise
from cgankd.generator.watch import check_health, check_images, grid_png, spread, variety
from cgankd.nets.checkpoint import Checkpoint
from cgankd.nets.device import Precision, Progress, as_images, placed
from cgankd.nets.device import threads as torch_threads
from cgankd.nets.network import MovingAverage
from cgankd.shardset.files import (
    derive_seed,
    naming_full_disk,
    read_json,
    sync_file,
    write_bytes,
    write_json,
)
from cgankd.shardset.labels import ContinuousLabels, LabelSpace
from cgankd.shardset.weights import save_weights

GRID_COLUMNS = 8
CHECKPOINT = "checkpoint.safetensors"
FIGURES = ("loss_d", "loss_g", "variety", "kid")  # of the step kept


def train_generator(
    pixels: np.ndarray,
    labels: np.ndarray,
    space: LabelSpace,
    kind: GeneratorKind,
    training: GeneratorTraining,
    *,
    folder: Path,
    seed: int,
    device: torch.device,
    precision: Precision = "float32",
    threads: int | None = None,
    stop_after: int | None = None,
    embedding_steps: int | None = None,
    score: Score | None = None,
    progress: Progress = lambda done, total, values: None,
) -> dict[str, Any]:
    """Facts about the averaged generator that now lies in `folder`, trained on real images.

    pixels uint8 `[n, c, s, s]`, labels `[n]` as the space has them: int64 classes or float64 in
    their unit. Run again after an interruption, it continues from the last checkpoint;
    `stop_after` interrupts it after that many steps, and `embedding_steps` cuts the label
    embedding short, which is good for timing alone. `training.keep_best` goes by `score`; without
    one the last step is kept. A kind that needs no training is saved as it is, with 0 steps.
    `TrainingDiverged` names the step and what to change, `StaleStage` a checkpoint made with other
    settings.
    """
    check_images(pixels, labels, space)
    images = ImageSpace(pixels.shape[2], pixels.shape[1], space)
    form = saved_form(kind, images)
    with torch_threads(threads or torch.get_num_threads()):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "generator", "initial"))
            generator = kind.generator(images)
            if not isinstance(generator, AdversarialGenerator):
                return {"steps": 0, "sha256": save_weights(folder, generator, form)}
            discriminator = generator.discriminator()
            for network in (generator, discriminator):
                initialise(network, training.initial)
        fields = {
            "network": form,
            "training": training.model_dump(mode="json"),
            "seed": seed,
            "precision": precision,
            "device": device.type,
            "threads": torch.get_num_threads(),
            "pixels": _sha256(pixels),
            "labels": _sha256(labels),
        }
        run = Training(generator, discriminator, training, folder, fields, device)
        run.take_images(pixels, labels)
        if training.keep_best and score:
            run.keep_best(training.keep_best, score)
        run.resume(embedding_steps, progress)
        while not run.is_over:
            if run.step == stop_after:
                return {"steps": run.step}
            run.advance()
            progress(run.step, training.iterations, run.latest())
        return run.finish()


class Training:
    """The state of one training run: networks, average, optimisers, step and metrics so far."""

    def __init__(
        self,
        generator: AdversarialGenerator,
        discriminator: Discriminator,
        training: GeneratorTraining,
        folder: Path,
        fields: dict[str, Any],
        device: torch.device,
    ) -> None:
        # Kernels in the layout of their images, so that no layer copies them there and back.
        self.generator = placed(generator, device)
        self.discriminator = placed(discriminator, device)
        self.training, self.folder, self.fields, self.device = training, folder, fields, device
        self.dtype = torch.bfloat16 if fields["precision"] == "bfloat16" else torch.float32
        self.metrics, self.errors = folder / "metrics.jsonl", folder / "label_embedding.json"
        self.networks = {"generator": generator, "discriminator": discriminator}
        self.optimisers = {
            "generator": FlatAdam(generator, training.lr_g, training.betas),
            "discriminator": FlatAdam(discriminator, training.lr_d, training.betas),
        }
        self.average = MovingAverage(generator)
        self.best: BestAverage | None = None
        self.parts: dict[str, nn.Module | torch.optim.Optimizer] = {
            **self.networks,
            "average": self.average.module,
            **{f"optimiser_{name}": optimiser for name, optimiser in self.optimisers.items()},
        }
        self.checkpoint = Checkpoint(
            folder / CHECKPOINT, fields, anew="start anew with --redo generator"
        )
        self.loss = LOSSES[training.loss]
        self.draws = torch.Generator()
        self.step = 0
        self.rows: list[dict[str, float]] = []
        self.sums = torch.zeros(3, device=device)
        self.summed = 0

    def take_images(self, pixels: np.ndarray, labels: np.ndarray) -> None:
        """Puts the real images on the device and draws the latents of the sample grids."""
        space, device = self.generator.space, self.device
        self.pixels = torch.from_numpy(pixels).to(device)
        self.targets = torch.from_numpy(space.targets(labels)).to(device)
        self.conditions = conditions(labels, space, self.training, device)
        shown = self.conditions.shown
        self.grid_targets = shown.repeat_interleave(GRID_COLUMNS)
        self.grid_rows = torch.arange(len(shown), device=device).repeat_interleave(GRID_COLUMNS)
        self.draws.manual_seed(derive_seed(self.fields["seed"], "generator", "grid"))
        self.grid_z = self._latents(len(self.grid_targets))
        groups = torch.from_numpy(space.group_of(labels[:4096])).to(device)
        self.real_spread = spread(as_images(self.pixels[:4096]), groups)

    def keep_best(self, keep: KeepBest, score: Score) -> None:
        """From now on scores candidates, of which the best is kept."""
        self.draws.manual_seed(derive_seed(self.fields["seed"], "generator", "candidates"))
        z = self._latents(len(score.labels))
        targets = torch.from_numpy(self.generator.space.targets(score.labels)).to(self.device)
        self.best = BestAverage(keep, self.training.iterations, score, z, targets)
        self.parts["best"] = self.best.follow(self.average.module)

    @property
    def is_over(self) -> bool:
        """Whether all steps were made, or enough to expect no better one."""
        if self.best and self.best.is_final(self.rows):
            return True
        return self.step == self.training.iterations

    def advance(self) -> None:
        """One generator step with its discriminator steps, and what is due after it."""
        self.sums += self._optimise()
        self.summed += 1
        self.step += 1
        training = self.training
        decay = training.ema_decay if self.step > training.ema_start else 0.0
        self.average.update(decay)
        if self.step % training.log_every == 0 or self.step == training.iterations:
            self._log()
        last = self.is_over
        if self.step % training.grid_every == 0 or last:
            self._write_grid()
        if self.step % training.checkpoint_every == 0 or last:
            sync_file(self.metrics)
            self.checkpoint.save(self.step, self.parts, [])

    def finish(self) -> dict[str, Any]:
        """Writes the averaged generator, the best where they were scored, and says what it is."""
        kept = self.best.module if self.best else self.average.module
        row = best_row(self.rows) if self.best else self.rows[-1]
        sha256 = save_weights(self.folder, kept, self.fields["network"])
        sizes = {
            f"{name}_parameters": sum(parameter.numel() for parameter in network.parameters())
            for name, network in self.networks.items()
        }
        continuous = isinstance(self.generator.space, ContinuousLabels)
        errors = read_json(self.errors) if continuous else {}
        figures = {name: row[name] for name in FIGURES if name in row}
        steps = {"steps": self.step, "kept_step": int(row["step"])}
        return {**steps, "sha256": sha256, **sizes, **errors, **figures}

    def latest(self) -> dict[str, float]:
        """The latest metrics that are worth a glance."""
        row = self.rows[-1] if self.rows else {}
        return {name: row[name] for name in ("loss_d", "loss_g", "variety") if row}

    def _optimise(self) -> Tensor:
        """Updates both networks; returns loss_d, loss_g and the mean score of real images."""
        training, batch = self.training, self.training.batch
        self.draws.manual_seed(derive_seed(self.fields["seed"], "generator", self.step))
        z = self._latents(training.d_steps, batch)
        steps = self.conditions.draw(self.draws, training.d_steps, batch)
        uniforms = torch.rand((2 * training.d_steps + 1, batch, UNIFORMS), generator=self.draws)
        places = uniforms.to(self.device, non_blocking=True)
        for index, pairs in enumerate(steps):
            # The last batch of fakes is the one the generator then learns from.
            with torch.set_grad_enabled(index == training.d_steps - 1):
                fakes = self.generator.sample(z[index], pairs.generator_conditions)
            images = torch.cat([as_images(self.pixels[pairs.images]), fakes.detach()])
            images = augment(
                images, places[2 * index : 2 * index + 2].flatten(0, 1), training.augment
            )
            given = torch.cat([pairs.real_conditions, pairs.fake_conditions])
            scores = self.discriminator(images.to(self.dtype), self.generator.embedding(given))
            loss_real = (self.loss.real(scores[:batch]) * pairs.weight_real).mean()
            loss_fake = (self.loss.fake(scores[batch:]) * pairs.weight_fake).mean()
            loss_d = loss_real + loss_fake
            loss_d.backward()
            self.optimisers["discriminator"].update()
        self.discriminator.requires_grad_(False)
        images = augment(fakes, places[-1], training.augment)
        embedded = self.generator.embedding(pairs.generator_conditions)
        loss_g = self.loss.generator(self.discriminator(images.to(self.dtype), embedded)).mean()
        loss_g.backward()
        self.optimisers["generator"].update()
        self.discriminator.requires_grad_(True)
        return torch.stack([loss_d.detach(), loss_g.detach(), scores[:batch].detach().mean()])

    def _latents(self, *shape: int) -> Tensor:
        z = torch.randn((*shape, self.generator.latent_dim), generator=self.draws)
        return z.to(self.device, non_blocking=True).to(self.dtype)

    @torch.no_grad()
    def _log(self) -> None:
        """Appends a row to metrics.jsonl, unless it says that training has failed."""
        means = (self.sums / self.summed).tolist()
        self.sums.zero_()
        self.summed = 0
        samples = self.average.module.sample(self.grid_z, self.grid_targets)
        values = dict(zip(("loss_d", "loss_g", "score_real"), means, strict=True))
        shown = variety(samples, self.grid_rows, self.real_spread)
        self.rows.append({"step": self.step, **values, "variety": shown})
        check_health(self.rows)
        if self.best:
            self.best.consider(self.rows)
        self.folder.mkdir(parents=True, exist_ok=True)
        with naming_full_disk(self.metrics), open(self.metrics, "a") as file:
            file.write(json.dumps(self.rows[-1]) + "\n")

    @torch.no_grad()
    def _write_grid(self) -> None:
        """A row per label, from low to high, a column per latent, always the same latents."""
        samples = self.average.module.sample(self.grid_z, self.grid_targets)
        path = self.folder / "samples" / f"{self.step:07d}.png"
        write_bytes(path, grid_png(samples, GRID_COLUMNS))

    def resume(self, embedding_steps: int | None, progress: Progress) -> None:
        """Takes up the latest checkpoint, where there is one, and forgets the metrics after it."""
        self.step, _ = self.checkpoint.load(self.parts)
        if self.step == 0 and isinstance(self.generator.space, ContinuousLabels):
            # From now on the checkpoints hold the trained embedding.
            embedding, errors = train_label_embedding(
                self.pixels,
                self.targets,
                self.training.embedding,
                derive_seed(self.fields["seed"], "generator", "embedding"),
                stop_after=embedding_steps,
                progress=progress,
            )
            self.generator.embedding.load_state_dict(embedding.state_dict())
            self.average.update(0)
            write_json(self.errors, errors)
        if self.metrics.is_file():
            lines = self.metrics.read_text().splitlines()
            # Only the last line can be cut short, and it lies after every checkpoint.
            rows = [json.loads(line) for line in lines if line.endswith("}")]
            self.rows = [row for row in rows if row["step"] <= self.step]
            text = "".join(json.dumps(row) + "\n" for row in self.rows)
            write_bytes(self.metrics, text.encode())


def _sha256(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
