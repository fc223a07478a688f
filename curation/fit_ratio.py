"""Fits a conditional density ratio to few real images, and finds out whether it is any good.

As published (cDR-RS, arXiv 2103.11166), the feature net learns from the real images that the
ratio is then fitted to, and the fit runs for a fixed time: on small data real and generated
samples come apart and the ratio says nothing. Here the feature net learns from generated samples,
so that every real image is new to it; each of several ratio nets leaves out a part of the real
images; and how long they learn and how strongly their answer counts is chosen by the loss on what
they left out, among candidates that are calibrated.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from curation.feature_nets import Precision, Progress, features_of, train_feature_net
from curation.ratio_config import RatioConfig
from curation.ratio_diagnostics import Diagnostics, diagnose, judge_ratio
from curation.ratio_model import FORMAT_VERSION, Projection, RatioModel
from curation.ratio_search import Candidate, HeldOut, choose, log_means, scaled_by_other_half
from curation.ratio_training import Coordinates, Material, train_members
from shardset.errors import BadInput
from shardset.files import derive_seed
from shardset.weights import save_weights

LEAST_GENERATED = 10  # of a label: 4 for the feature net, 4 to fit to, 2 held out


def fit_ratio(
    real_pixels: np.ndarray,
    real_labels: np.ndarray,
    fake_pixels: np.ndarray,
    fake_labels: np.ndarray,
    config: RatioConfig,
    *,
    classes: int,
    folder: Path,
    seed: int,
    device: torch.device,
    precision: Precision,
    progress: Progress = lambda done, total, values: None,
) -> dict[str, Any]:
    """Facts of the ratio written to `folder`: `sha256`, `problems` (one line each; empty where it
    may be used), `per_label` and `overall` diagnostics on held-out samples, and what was chosen.

    Pixels uint8 `[n, c, h, w]`, labels int64 `[n]`. Real images are taken as they are: they must
    not be augmented. `BadInput` for a class with too few images of either kind.
    """
    _check_counts(real_labels, fake_labels, classes)
    for_features, for_fit, held_out = split_generated(fake_labels, config.most_generated, seed)
    fold = folds_of(real_labels, config.folds, seed)
    steps = config.features.steps + config.members * config.steps
    if config.features_from == "generated":
        lesson = fake_pixels[for_features], fake_labels[for_features]
    else:
        lesson = real_pixels[fold >= config.members], real_labels[fold >= config.members]
    net = train_feature_net(
        *lesson,
        config.features,
        classes=classes,
        seed=seed,
        device=device,
        precision=precision,
        progress=lambda done, _, values: progress(done, steps, values),
    )

    def features(pixels: np.ndarray) -> np.ndarray:
        return features_of(net, pixels, device=device, precision=precision, batch=500)

    seen = features(fake_pixels[for_fit])
    projection: nn.Module = nn.Identity()
    if config.components is not None:
        projection = Projection.fitted(seen, fake_labels[for_fit], config.components)

    def coordinates(values: np.ndarray, labels: np.ndarray) -> Coordinates:
        return Coordinates(
            projection(torch.from_numpy(values)).to(device), torch.from_numpy(labels).to(device)
        )

    material = Material(
        real=coordinates(features(real_pixels), real_labels),
        fold=torch.from_numpy(fold).to(device),
        fitted=coordinates(seen, fake_labels[for_fit]),
        held_out=coordinates(features(fake_pixels[held_out]), fake_labels[held_out]),
        classes=classes,
    )
    states, snapshots = train_members(
        material,
        config,
        seed=seed,
        progress=lambda done, loss: progress(config.features.steps + done, steps, {"loss": loss}),
    )
    held = material.held(config.members)
    if config.calibrate:
        chosen = choose(snapshots, config.strengths, held, config.limits)
    else:
        chosen = Candidate(snapshots[-1], 1.0, math.nan)
    diagnostics, log_scale = _measured(chosen, held, scaled=config.calibrate)
    model = RatioModel(
        {
            "format_version": FORMAT_VERSION,
            "features": config.features.model_dump(mode="json"),
            "classes": classes,
            "channels": real_pixels.shape[1],
            "size": real_pixels.shape[2],
            "precision": precision,
            "network": config.network,
            "components": config.components and min(config.components, config.features.dim),
            "members": config.members,
            "strength": chosen.strength,
        }
    )
    model.net, model.projection = net, projection
    for member, state in zip(model.members, states[snapshots.index(chosen.snapshot)], strict=True):
        member.load_state_dict(state)
    model.log_scale.copy_(torch.from_numpy(log_scale))
    return {
        "sha256": save_weights(folder, model, model.shape),
        "problems": judge_ratio(diagnostics, config.limits),
        "per_label": [_finite(row) for row in diagnostics.per_label],
        "overall": _finite(diagnostics.overall),
        "raw_mean": diagnostics.raw_mean if math.isfinite(diagnostics.raw_mean) else None,
        "steps": chosen.snapshot.step,
        "strength": chosen.strength,
    }


def split_generated(
    labels: np.ndarray, most: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of generated samples for the feature net, for the fit and held out of both, sorted:
    of every label 40, 40 and 20 percent, at most `most` samples in all, in equal shares.
    """
    parts: tuple[list[np.ndarray], ...] = ([], [], [])
    values = np.unique(labels)
    for label in values.tolist():
        random = np.random.default_rng(derive_seed(seed, "generated", label))
        rows = random.permutation(np.flatnonzero(labels == label))
        rows = rows[: max(most // len(values), LEAST_GENERATED)]
        part = int(0.4 * len(rows))
        for found, some in zip(parts, np.split(rows, [part, 2 * part]), strict=True):
            found.append(some)
    first, second, third = (np.sort(np.concatenate(found)) for found in parts)
    return first, second, third


def folds_of(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold int64 `[n]` of each real image: every label spread over them, all of one size."""
    fold = np.empty(len(labels), dtype=np.int64)
    dealt = 0
    for label in np.unique(labels).tolist():
        random = np.random.default_rng(derive_seed(seed, "folds", label))
        rows = random.permutation(np.flatnonzero(labels == label))
        fold[rows] = (dealt + np.arange(len(rows))) % folds
        dealt += len(rows)
    return fold


def _measured(chosen: Candidate, held: HeldOut, *, scaled: bool) -> tuple[Diagnostics, np.ndarray]:
    """The diagnostics of what was chosen, and the log of each label's mean ratio, to divide by."""
    strength, snapshot = chosen.strength, chosen.snapshot
    log_scale = np.zeros(held.classes)
    if strength == 0:  # 1 everywhere
        generated, real = np.zeros(len(held.generated_labels)), np.zeros(len(held.real_labels))
    else:
        generated, real = strength * snapshot.generated.mean(0), strength * snapshot.real
        if scaled:
            log_scale = log_means(generated, held.generated_labels, held.classes)
            generated = scaled_by_other_half(generated, held)
            own = log_means(strength * snapshot.generated, held.generated_labels, held.classes)
            real = real - own[held.member, held.real_labels]
    diagnostics = diagnose(
        np.exp(generated),
        held.generated_labels,
        np.exp(real),
        held.real_labels,
        raw_mean=snapshot.raw_mean(held),
    )
    return diagnostics, log_scale


def _check_counts(real_labels: np.ndarray, fake_labels: np.ndarray, classes: int) -> None:
    reals = np.bincount(real_labels, minlength=classes)
    generated = np.bincount(fake_labels, minlength=classes)
    if len(reals) > classes or len(generated) > classes:
        raise BadInput(f"density ratio: a label is not one of the {classes} classes")
    for label in range(classes):
        if reals[label] < 2:
            raise BadInput(
                f"density ratio: label {label} has {reals[label]} real images, at least 2 are "
                "needed; raise the label budget"
            )
        if generated[label] < LEAST_GENERATED:
            raise BadInput(
                f"density ratio: label {label} has {generated[label]} generated images, at least "
                f"{LEAST_GENERATED} are needed; raise pool.per_label"
            )


def _finite(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row as JSON can hold it: null for what is no finite number."""
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in row.items()
    }
