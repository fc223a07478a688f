"""Trains the nets of a density ratio, each on what the others' judge may not see."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from curation.ratio_config import RatioConfig
from curation.ratio_net import DensityRatioNet, log_ratio, softplus_loss
from curation.ratio_search import HeldOut, Snapshot
from shardset.errors import TrainingDiverged
from shardset.files import derive_seed

State = dict[str, Tensor]


@dataclass(frozen=True)
class Coordinates:
    """Where samples lie in feature space, with their labels, on the device."""

    values: Tensor  # float32 [n, k]
    labels: Tensor  # int64 [n]

    def of(self, rows: Tensor) -> "Coordinates":
        """Some of the samples."""
        return Coordinates(self.values[rows], self.labels[rows])


@dataclass(frozen=True)
class Material:
    """All that ratio nets learn from and are judged by."""

    real: Coordinates
    fold: Tensor  # int64 [n] of `real`: member k leaves fold k out
    fitted: Coordinates  # generated samples to fit to
    held_out: Coordinates  # generated samples that no net sees
    classes: int

    def is_held_out(self, members: int) -> Tensor:
        """Bool `[n]`: the real samples that one of the members leaves out."""
        return self.fold < members

    def held(self, members: int) -> HeldOut:
        """What is held out, for judging."""
        judged = self.is_held_out(members)
        return HeldOut(
            generated_labels=self.held_out.labels.cpu().numpy(),
            real_labels=self.real.labels[judged].cpu().numpy(),
            member=self.fold[judged].cpu().numpy(),
            classes=self.classes,
        )


def train_members(
    material: Material,
    config: RatioConfig,
    *,
    seed: int,
    progress: Callable[[int, float], None],
) -> tuple[list[list[State]], list[Snapshot]]:
    """The members' weights at each checkpoint, `[checkpoints][members]`, and what they said of
    held-out samples there.
    """
    runs = []
    for member in range(config.members):

        def report(step: int, loss: float, before: int = member * config.steps) -> None:
            progress(before + step, loss)

        own_seed = derive_seed(seed, "ratio net", member)
        runs.append(_train_member(material, member, config, own_seed, report))
    fold = material.fold[material.is_held_out(config.members)].cpu().numpy()
    states, snapshots = [], []
    for step, parts in zip(checkpoint_steps(config), zip(*runs, strict=True), strict=True):
        states.append([state for state, _, _ in parts])
        real = np.empty(len(fold))
        for member, (_, _, own) in enumerate(parts):
            real[fold == member] = own
        snapshots.append(Snapshot(step, np.stack([log for _, log, _ in parts]), real))
    return states, snapshots


def checkpoint_steps(config: RatioConfig) -> list[int]:
    """After which steps to look, ever further apart: nearly all is learnt early."""
    if not config.calibrate:
        return [config.steps]
    first = max(1, config.steps // 50)
    return sorted({round(s) for s in np.geomspace(first, config.steps, config.checkpoints)})


def _train_member(
    material: Material,
    member: int,
    config: RatioConfig,
    seed: int,
    progress: Callable[[int, float], None],
) -> list[tuple[State, np.ndarray, np.ndarray]]:
    """At each checkpoint: weights, log ratios of held-out generated samples, and of own reals."""
    real, fitted = material.real.of(material.fold != member), material.fitted
    own = material.real.of(material.fold == member)
    by_label = torch.argsort(fitted.labels, stable=True)
    count = torch.bincount(fitted.labels, minlength=material.classes)
    start = torch.cumsum(count, 0) - count
    device = fitted.values.device
    draws = torch.Generator().manual_seed(derive_seed(seed, "batches"))
    marks = checkpoint_steps(config)
    decays = [round(share * config.steps) for share in config.decay_at]
    found = []
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "weights"))
        net = DensityRatioNet(
            config.network, feature_dim=fitted.values.shape[1], classes=material.classes
        ).to(device)
        optimiser = torch.optim.Adam(
            net.parameters(),
            config.learning_rate,
            betas=(0.5, 0.999),
            weight_decay=config.weight_decay,
            fused=True,
        )
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, decays)
        for step in range(1, config.steps + 1):
            batch = real.of(_indices(len(real.labels), config.batch, draws).to(device))
            # Generated samples have the batch's own labels: the prior is the reals'.
            place = torch.rand(config.batch, generator=draws, dtype=torch.float64).to(device)
            rows = by_label[start[batch.labels] + (place * count[batch.labels]).long()]
            values = torch.cat([fitted.values[rows], batch.values])
            of_generated, of_real = net(values, batch.labels.repeat(2)).chunk(2)
            loss = softplus_loss(of_generated, of_real, config.penalty)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            if step in marks:
                net.eval()
                found.append(
                    (
                        {name: value.clone() for name, value in net.state_dict().items()},
                        _log_ratios(net, material.held_out),
                        _log_ratios(net, own),
                    )
                )
                net.train()
            if step % 100 == 0 or step == config.steps:
                value = loss.item()
                if not math.isfinite(value):
                    raise TrainingDiverged(
                        f"density ratio: the loss of net {member} is {value} at step {step}; "
                        f"lower ratio.learning_rate ({config.learning_rate:g})"
                    )
                progress(step, value)
    return found


def _indices(count: int, batch: int, draws: torch.Generator) -> Tensor:
    return torch.randint(count, (batch,), generator=draws)


def _log_ratios(net: DensityRatioNet, samples: Coordinates) -> np.ndarray:
    """Log ψ float64 `[n]`."""
    with torch.inference_mode():
        return log_ratio(net, samples.values, samples.labels).double().cpu().numpy()
