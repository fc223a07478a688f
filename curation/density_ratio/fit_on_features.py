"""Fits a conditional density ratio to samples given by their features, and judges it.

Each of several ratio nets leaves out a part of the real samples; how long they learn and how
strongly their answer counts is chosen by the loss on what they left out, among candidates that
are calibrated.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from cgankd.curation.density_ratio.config import RatioConfig
from cgankd.curation.density_ratio.diagnostics import Diagnostics, diagnose, judge_ratio
from cgankd.curation.density_ratio.model import FeatureRatio, Projection
from cgankd.curation.density_ratio.search import (
    Candidate,
    HeldOut,
    choose,
    log_means,
    scaled_by_other_half,
)
from cgankd.curation.density_ratio.training import Coordinates, Material, train_members


@dataclass(frozen=True)
class Described:
    """Samples as their features, aligned by row."""

    features: np.ndarray  # float32 [n, d]
    labels: np.ndarray  # [n], raw
    groups: np.ndarray  # int64 [n], −1 for generated ones of labels that no real image is near
    told: np.ndarray | None = None  # float32 [n], scaled labels read off the images, if looked at


def fit_on_features(
    model: FeatureRatio,
    real: Described,
    fold: np.ndarray,
    fitted: Described,
    held_out: Described,
    config: RatioConfig,
    *,
    seed: int,
    device: torch.device,
    progress: Callable[[int, float], None] = lambda done, loss: None,
) -> dict[str, Any]:
    """Facts of the ratio that was fitted and put into `model`: `problems` (one line each; empty
    where it may be used), `per_label` and `overall` diagnostics on held-out samples, what was
    chosen. `fold` int64 `[n]` tells which member leaves a real sample out. Generated samples of
    group −1 shape the projection only: the ratio is neither fitted to nor judged by them.
    """
    space = model.space
    if config.components is not None:
        model.projection = Projection.fitted(
            fitted.features, fitted.labels, config.components, space
        )

    def coordinates(samples: Described) -> Coordinates:
        """Of the samples that belong to a group."""
        targets = torch.from_numpy(space.targets(samples.labels))
        with torch.inference_mode():
            values = model.coordinates(torch.from_numpy(samples.features), targets)
        told = None if samples.told is None else torch.from_numpy(samples.told).to(device)
        groups = torch.from_numpy(samples.groups).to(device)
        everywhere = Coordinates(values.clone().to(device), targets.to(device), groups, told)
        return everywhere.of(groups >= 0)

    material = Material(
        real=coordinates(real),
        fold=torch.from_numpy(fold).to(device),
        fitted=coordinates(fitted),
        held_out=coordinates(held_out),
        space=space,
    )
    states, snapshots = train_members(material, config, seed=seed, progress=progress)
    held = material.held(config.members)
    if config.calibrate:
        chosen = choose(snapshots, config.strengths, held, config.limits)
    else:
        chosen = Candidate(snapshots[-1], 1.0, math.nan)
    diagnostics, log_scale = _measured(chosen, held, scaled=config.calibrate)
    model.shape["strength"] = chosen.strength
    if real.told is not None:
        model.shape["reach"] = material.zeta(config) + config.tolerance
    for member, state in zip(model.members, states[snapshots.index(chosen.snapshot)], strict=True):
        member.load_state_dict(state)
    model.log_scale.copy_(torch.from_numpy(log_scale))
    return {
        "problems": judge_ratio(diagnostics, config.limits, space.group_names),
        "per_label": [_finite(row) for row in diagnostics.per_label],
        "overall": _finite(diagnostics.overall),
        "raw_mean": diagnostics.raw_mean if math.isfinite(diagnostics.raw_mean) else None,
        "steps": chosen.snapshot.step,
        "strength": chosen.strength,
    }


def _measured(chosen: Candidate, held: HeldOut, *, scaled: bool) -> tuple[Diagnostics, np.ndarray]:
    """The diagnostics of what was chosen, and the log of each group's mean ratio, to divide by."""
    strength, snapshot = chosen.strength, chosen.snapshot
    log_scale = np.zeros(held.groups)
    if strength == 0:  # 1 everywhere
        generated, real = np.zeros(len(held.generated_groups)), np.zeros(len(held.real_groups))
    else:
        generated, real = strength * snapshot.generated.mean(0), strength * snapshot.real
        if scaled:
            log_scale = log_means(generated, held.generated_groups, held.groups)
            generated = scaled_by_other_half(generated, held)
            own = log_means(strength * snapshot.generated, held.generated_groups, held.groups)
            real = real - own[held.member, held.real_groups]
    diagnostics = diagnose(
        np.exp(generated),
        held.generated_groups,
        np.exp(real),
        held.real_groups,
        raw_mean=snapshot.raw_mean(held),
    )
    return diagnostics, log_scale


def _finite(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row as JSON can hold it: null for what is no finite number."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }
