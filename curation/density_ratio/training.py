"""Trains the nets of a density ratio, each on what the others' judge may not see."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from cgankd.curation.density_ratio import RatioConfig
from cgankd.curation.density_ratio.judge import HeldOut, Snapshot
from cgankd.curation.density_ratio.model import (
    DensityRatioNet,
    log_ratio,
    ruled_out,
    softplus_loss,
)
from cgankd.nets.minimise import minimise, require_finite
from cgankd.shardset.files import derive_seed
from cgankd.shardset.labels import LabelSpace

State = dict[str, Tensor]
READ_EVERY = 100  # steps between readings of the loss


@dataclass(frozen=True)
class Coordinates:
    """Where samples lie in feature space, with their labels, on the device."""

    values: Tensor  # float32 [n, k]
    targets: Tensor  # [n], int64 classes or float32 scaled labels
    groups: Tensor  # int64 [n]
    predicted: Tensor | None  # float32 [n], scaled, by the feature net, where it is looked at

    def of(self, rows: Tensor) -> "Coordinates":
        """Some of the samples."""
        predicted = None if self.predicted is None else self.predicted[rows]
        return Coordinates(self.values[rows], self.targets[rows], self.groups[rows], predicted)


@dataclass(frozen=True)
class Material:
    """All that ratio nets learn from and are judged by."""

    real: Coordinates
    fold: Tensor  # int64 [n] of `real`: member k leaves fold k out
    fitted: Coordinates  # generated samples to fit to
    held_out: Coordinates  # generated samples that no net sees
    space: LabelSpace

    def held(self, members: int) -> HeldOut:
        """What is held out, for judging: the real samples that one of the members leaves out."""
        judged = self.fold < members
        return HeldOut(
            generated_groups=self.held_out.groups.cpu().numpy(),
            real_groups=self.real.groups[judged].cpu().numpy(),
            member=self.fold[judged].cpu().numpy(),
            groups=len(self.space.group_names),
        )


def zeta_of(targets: Tensor, config: RatioConfig, space: LabelSpace) -> float:
    """ζ for real samples with these targets `[n]`, as a part of the range; 0 for classes."""
    if space.task == "classification":
        return 0.0
    gaps = torch.unique(targets).diff()
    return config.vicinity * float(gaps.max()) if len(gaps) else 0.0


@dataclass(frozen=True)
class Vicinity:
    """The generated samples that each real one is compared with."""

    order: Tensor  # int64 [m]: generated samples by their targets
    first: Tensor  # int64 [n]: where in `order` the ones for a real sample begin
    count: Tensor  # int64 [n], ≥ 1

    @classmethod
    def around(cls, real: Tensor, generated: Tensor, zeta: float) -> Self:
        """Generated targets within ζ of each real one, or those of the nearest; both `[n]`."""
        order = torch.argsort(generated, stable=True)
        ordered, real = generated[order].double(), real.double()
        first = torch.searchsorted(ordered, real - zeta)
        stop = torch.searchsorted(ordered, real + zeta, right=True)
        below = ordered[(first - 1).clamp(min=0)]
        above = ordered[first.clamp(max=len(ordered) - 1)]
        nearest = torch.where((real - below).abs() <= (above - real).abs(), below, above)
        none = first == stop
        first = torch.where(none, torch.searchsorted(ordered, nearest), first)
        stop = torch.where(none, torch.searchsorted(ordered, nearest, right=True), stop)
        return cls(order, first, stop - first)

    def draw(self, real: Tensor, draws: torch.Generator) -> Tensor:
        """One generated sample int64 `[n]` for each of the real ones, given by their rows."""
        place = torch.rand(len(real), generator=draws, dtype=torch.float64).to(real.device)
        return self.order[self.first[real] + (place * self.count[real]).long()]


def train_members(
    material: Material,
    held: HeldOut,
    config: RatioConfig,
    *,
    seed: int,
    progress: Callable[[int, float], None],
) -> tuple[list[list[State]], list[Snapshot]]:
    """The members' weights at each checkpoint, `[checkpoints][members]`, and what they said of
    held-out samples there.
    """
    runs = [
        _train_member(material, member, config, seed, progress) for member in range(config.members)
    ]
    states, snapshots = [], []
    for step, parts in zip(checkpoint_steps(config), zip(*runs, strict=True), strict=True):
        states.append([state for state, _, _ in parts])
        real = np.empty(len(held.member))
        for member, (_, _, of_left_out) in enumerate(parts):
            real[held.member == member] = of_left_out
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
    """At each checkpoint: weights, log ratios of held-out generated samples, and of the reals that
    this member leaves out.
    """
    seed = derive_seed(seed, "ratio net", member)
    real, fitted = material.real.of(material.fold != member), material.fitted
    left_out = material.real.of(material.fold == member)
    zeta = zeta_of(material.real.targets, config, material.space)
    reach = zeta + config.tolerance
    vicinity = Vicinity.around(real.targets, fitted.targets, zeta)
    shares = _shares(real.targets.cpu()) if config.balance else None
    device = fitted.values.device
    draws = torch.Generator().manual_seed(derive_seed(seed, "batches"))
    marks = checkpoint_steps(config)
    decays = [round(share * config.steps) for share in config.decay_at]
    checkpoints = []
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "weights"))
        net = DensityRatioNet(
            config.network, feature_dim=fitted.values.shape[1], space=material.space
        ).to(device)
        optimiser = torch.optim.Adam(
            net.parameters(),
            config.learning_rate,
            betas=(0.5, 0.999),
            weight_decay=config.weight_decay,
            fused=True,
        )
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, decays)

        def loss(step: int) -> Tensor:
            if shares is None:
                picked = torch.randint(len(real.targets), (config.batch,), generator=draws)
            else:
                picked = torch.multinomial(shares, config.batch, True, generator=draws)
            picked = picked.to(device)
            batch = real.of(picked)
            # Generated samples have the batch's own labels: the prior is the reals'.
            rows = vicinity.draw(picked, draws)
            if fitted.predicted is not None:
                for _ in range(config.rounds):
                    wrong = (fitted.predicted[rows] - batch.targets).abs() > reach
                    if not wrong.any():
                        break
                    rows = torch.where(wrong, vicinity.draw(picked, draws), rows)
            values = torch.cat([fitted.values[rows], batch.values])
            of_generated, of_real = net(values, batch.targets.repeat(2)).chunk(2)
            return softplus_loss(of_generated, of_real, config.penalty)

        def after(step: int, value: Tensor) -> None:
            if step in marks:
                net.eval()
                checkpoints.append(
                    (
                        {name: value.clone() for name, value in net.state_dict().items()},
                        _log_ratios(net, material.held_out, reach),
                        _log_ratios(net, left_out, reach),
                    )
                )
                net.train()
            if step % READ_EVERY == 0 or step == config.steps:
                finite = require_finite(
                    value.item(),
                    f"density ratio: the loss of net {member} at step {step}",
                    f"lower ratio.learning_rate ({config.learning_rate:g})",
                )
                progress(member * config.steps + step, finite)

        minimise(loss, optimiser, config.steps, schedule=schedule, after=after)
    return checkpoints


def _shares(targets: Tensor) -> Tensor:
    """How often each real sample is drawn where labels are drawn evenly, float `[n]`."""
    _, label, counts = torch.unique(targets, return_inverse=True, return_counts=True)
    return 1 / counts[label]


def _log_ratios(net: DensityRatioNet, samples: Coordinates, reach: float) -> np.ndarray:
    """Log ψ float64 `[n]`."""
    with torch.inference_mode():
        logs = log_ratio(net, samples.values, samples.targets)
        return ruled_out(logs, samples.targets, samples.predicted, reach).double().cpu().numpy()
