"""Fits a conditional density ratio to few real images.

As published (cDR-RS, arXiv 2103.11166), the feature net learns from the real images that the
ratio is then fitted to, and the fit runs for a fixed time: on small data real and generated
samples come apart and the ratio says nothing. Here the feature net learns from generated samples,
so that every real image is new to it; `fit_on_features` does the rest: each
of several ratio nets leaves out a part of the real images; how long they learn and how strongly
their answer counts is chosen by the loss on what they left out, among candidates that are
calibrated.
"""

import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cgankd.curation.density_ratio import RatioConfig
from cgankd.curation.density_ratio.judge import (
    Candidate,
    Diagnostics,
    HeldOut,
    Snapshot,
    choose,
    diagnose,
    judge_ratio,
    log_means,
    scaled_by_other_half,
)
from cgankd.curation.density_ratio.model import FORMAT_VERSION, FeatureRatio, Projection, RatioModel
from cgankd.curation.density_ratio.training import Coordinates, Material, train_members, zeta_of
from cgankd.nets.device import Precision, Progress
from cgankd.nets.feature_nets import features_of, train_feature_net
from cgankd.shardset.errors import BadInput
from cgankd.shardset.files import derive_seed
from cgankd.shardset.labels import LabelSpace
from cgankd.shardset.records import FittedRatio, RatioFacts, finite
from cgankd.shardset.weights import save_weights

LEAST_REAL = 2  # of a group of labels
LEAST_GENERATED = 10  # of a group: 4 for the feature net, 4 to fit to, 2 held out


def fit_ratio(
    real_pixels: np.ndarray,
    real_labels: np.ndarray,
    fake_pixels: np.ndarray,
    fake_labels: np.ndarray,
    config: RatioConfig,
    *,
    space: LabelSpace,
    folder: Path,
    seed: int,
    device: torch.device,
    precision: Precision,
    origins: Sequence[str] | None = None,
    progress: Progress = lambda done, total, values: None,
) -> RatioFacts:
    """Facts of the ratio written to `folder`, with its diagnostics on held-out samples.

    Pixels uint8 `[n, c, h, w]`, labels `[n]` raw: int64 classes or float64 in their unit. Real
    images are taken as they are: they must not be augmented. `origins`, one for each real image,
    are equal for images derived from one scan; a ratio net leaves out all of them or none. Parts of
    a range with too few images are joined; generated images of labels that no real image is near
    are neither fitted to nor judged by. `BadInput` for a class, or a whole range, with too few
    images of either kind, and for real images that all have one origin.
    """
    for labels in (real_labels, fake_labels):
        space.check(labels, "density ratio")
    if origins is not None and (len(origins) != len(real_labels) or len(set(origins)) < 2):
        raise BadInput(
            f"density ratio: {len(set(origins))} origins given for {len(origins)} of "
            f"{len(real_labels)} real images, expected one for each and 2 different ones; raise "
            "the label budget"
        )
    near = near_a_real(real_labels, fake_labels, config, space)
    joined = joined_groups(real_labels, fake_labels[near], space)
    real_groups = joined[space.group_of(real_labels)]
    fake_groups = np.where(near, joined[space.group_of(fake_labels)], -1)
    for_features, for_fit, held_out = split_generated(fake_groups, config.most_generated, seed)
    fold = folds_of(real_groups, config.folds, seed, origins)
    steps = config.features.steps + config.members * config.steps
    if config.features_from == "generated":
        lesson = fake_pixels[for_features], fake_labels[for_features]
    else:
        lesson = real_pixels[fold >= config.members], real_labels[fold >= config.members]
    net = train_feature_net(
        *lesson,
        config.features,
        space=space,
        seed=seed,
        device=device,
        precision=precision,
        progress=lambda done, _, values: progress(done, steps, values),
    )

    def described(pixels: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> Described:
        features = features_of(net, pixels, device=device, precision=precision, batch=500)
        predicted = None
        if space.task == "regression" and config.rounds > 0:
            with torch.inference_mode():
                predicted = net.head(torch.from_numpy(features).to(device)).cpu().numpy()[:, 0]
        return Described(features, labels, groups, predicted)

    model = RatioModel(
        {
            "format_version": FORMAT_VERSION,
            "features": config.features.model_dump(mode="json"),
            "space": space.model_dump(mode="json"),
            "channels": real_pixels.shape[1],
            "size": real_pixels.shape[2],
            "precision": precision,
            "network": config.network,
            "components": config.components and min(config.components, config.features.dim),
            "members": config.members,
            "strength": 1.0,
            "reach": None,
        }
    )
    model.net = net
    fit = fit_on_features(
        model,
        described(real_pixels, real_labels, real_groups),
        fold,
        described(fake_pixels[for_fit], fake_labels[for_fit], fake_groups[for_fit]),
        described(fake_pixels[held_out], fake_labels[held_out], fake_groups[held_out]),
        config,
        seed=seed,
        device=device,
        progress=lambda done, loss: progress(config.features.steps + done, steps, {"loss": loss}),
    )
    model.log_scale.copy_(model.log_scale[joined])
    return RatioFacts(sha256=save_weights(folder, model, model.shape), **dict(fit))


def near_a_real(
    real_labels: np.ndarray, fake_labels: np.ndarray, config: RatioConfig, space: LabelSpace
) -> np.ndarray:
    """Whether a real image is near the label of each generated one, bool `[n]`: one of the same
    class or part of the range, or one within the vicinity ζ, at most half a part's width.
    """
    near = np.isin(space.group_of(fake_labels), space.group_of(real_labels))
    if space.task == "classification" or near.all():
        return near
    real, fake = np.unique(space.targets(real_labels)), space.targets(fake_labels)
    # ζ follows the largest gap: across a hole in the labels it would reach everything.
    reach = min(zeta_of(torch.from_numpy(real), config, space), 0.5 / len(space.group_names))
    above = np.searchsorted(real, fake).clip(max=len(real) - 1)
    distance = np.minimum(np.abs(real[above] - fake), np.abs(real[(above - 1).clip(0)] - fake))
    return near | (distance <= reach)


def joined_groups(
    real_labels: np.ndarray, fake_labels: np.ndarray, space: LabelSpace
) -> np.ndarray:
    """For each group int64 `[groups]` the one that it is fitted and scaled with: itself, unless it
    is a part of a range with too few samples.

    Parts without real samples join the nearest with some; of these, neighbours join from the low
    end up until there are enough. `BadInput` for a class, or a whole range, with too few.
    """
    for labels in (real_labels, fake_labels):
        space.check(labels, "density ratio")
    names = space.group_names
    parts = np.arange(len(names))
    reals = np.bincount(space.group_of(real_labels), minlength=len(names))
    generated = np.bincount(space.group_of(fake_labels), minlength=len(names))
    joined = parts
    if space.task == "regression" and reals.any():
        some = np.flatnonzero(reals)
        joined = some[np.abs(parts[:, None] - some).argmin(1)]
        gathered = np.bincount(joined, generated, len(names))
        runs: list[list[int]] = [[]]
        for part in some.tolist():
            if _is_enough(reals[runs[-1]].sum(), gathered[runs[-1]].sum()):
                runs.append([])
            runs[-1].append(part)
        if len(runs) > 1 and not _is_enough(reals[runs[-1]].sum(), gathered[runs[-1]].sum()):
            short = runs.pop()
            runs[-1] += short
        for run in runs:
            most = run[int(reals[run].argmax())]  # it gives the run its name
            joined = np.where(np.isin(joined, run), most, joined)
    reals = np.bincount(joined, reals, len(names)).astype(np.int64)
    generated = np.bincount(joined, generated, len(names)).astype(np.int64)
    for group in np.unique(joined).tolist():
        few = f"density ratio: label {names[group]} has"
        if reals[group] < LEAST_REAL:
            raise BadInput(
                f"{few} {reals[group]} real images, at least {LEAST_REAL} are needed; raise the "
                "label budget"
            )
        if generated[group] < LEAST_GENERATED:
            fewer = " or lower label.groups" if space.task == "regression" else ""
            raise BadInput(
                f"{few} {generated[group]} generated images, at least {LEAST_GENERATED} are "
                f"needed; raise pool.per_label{fewer}"
            )
    return joined


def _is_enough(reals: int, generated: float) -> bool:
    return reals >= LEAST_REAL and generated >= LEAST_GENERATED


def split_generated(
    groups: np.ndarray, most: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of generated samples for the feature net, for the fit and held out of both, sorted:
    of every group 40, 40 and 20 percent, at most `most` samples in all, in equal shares.
    """
    parts: tuple[list[np.ndarray], ...] = ([], [], [])
    values = np.unique(groups)
    for group in values.tolist():
        random = np.random.default_rng(derive_seed(seed, "generated", group))
        rows = random.permutation(np.flatnonzero(groups == group))
        rows = rows[: max(most // len(values), LEAST_GENERATED)]
        part = int(0.4 * len(rows))
        for portion, some in zip(parts, np.split(rows, [part, 2 * part]), strict=True):
            portion.append(some)
    for_features, for_fit, held_out = (np.sort(np.concatenate(portion)) for portion in parts)
    return for_features, for_fit, held_out


def folds_of(
    groups: np.ndarray, folds: int, seed: int, origins: Sequence[str] | None = None
) -> np.ndarray:
    """The fold int64 `[n]` of each real image: every group spread over them, of one size as far as
    images of one origin, which share a fold, allow.
    """
    origin_of: Sequence[Hashable] = range(len(groups)) if origins is None else origins
    images = Counter(origin_of)
    sizes, dealt = np.zeros(folds, np.int64), dict[Hashable, int]()
    for group in np.unique(groups).tolist():
        random = np.random.default_rng(derive_seed(seed, "folds", group))
        for row in random.permutation(np.flatnonzero(groups == group)).tolist():
            origin = origin_of[row]
            if origin not in dealt:
                dealt[origin] = int(sizes.argmin())
                sizes[dealt[origin]] += images[origin]
    return np.array([dealt[origin] for origin in origin_of], np.int64)


@dataclass(frozen=True)
class Described:
    """Samples as their features, aligned by row."""

    features: np.ndarray  # float32 [n, d]
    labels: np.ndarray  # [n], raw
    groups: np.ndarray  # int64 [n], −1 for generated ones of labels that no real image is near
    predicted: np.ndarray | None = None  # float32 [n], scaled labels, where they are looked at


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
) -> FittedRatio:
    """What is known of the ratio that was fitted and put into `model`.

    `fold` int64 `[n]` tells which member leaves a real sample out. Generated samples of group −1
    shape the projection only: the ratio is neither fitted to nor judged by them.
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
        predicted = (
            None if samples.predicted is None else torch.from_numpy(samples.predicted).to(device)
        )
        groups = torch.from_numpy(samples.groups).to(device)
        everywhere = Coordinates(values.clone().to(device), targets.to(device), groups, predicted)
        return everywhere.of(groups >= 0)

    material = Material(
        real=coordinates(real),
        fold=torch.from_numpy(fold).to(device),
        fitted=coordinates(fitted),
        held_out=coordinates(held_out),
        space=space,
    )
    held = material.held(config.members)
    states, snapshots = train_members(material, held, config, seed=seed, progress=progress)
    if config.calibrate:
        candidate = choose(snapshots, config.strengths, held, config.limits)
    else:
        candidate = Candidate(snapshots[-1], 1.0, math.nan)
    snapshot, strength = candidate.snapshot, candidate.strength
    diagnostics, log_scale = _measured(snapshot, strength, held, scaled=config.calibrate)
    model.shape["strength"] = strength
    if real.predicted is not None:
        zeta = zeta_of(material.real.targets, config, space)
        model.shape["reach"] = zeta + config.tolerance
    for member, state in zip(model.members, states[snapshots.index(snapshot)], strict=True):
        member.load_state_dict(state)
    model.log_scale.copy_(torch.from_numpy(log_scale))
    return FittedRatio(
        problems=tuple(judge_ratio(diagnostics, config.limits, space.group_names)),
        per_label=tuple(_finite(row) for row in diagnostics.per_label),
        overall=_finite(diagnostics.overall),
        raw_mean=finite(diagnostics.raw_mean),
        steps=snapshot.step,
        strength=strength,
    )


def _measured(
    snapshot: Snapshot, strength: float, held: HeldOut, *, scaled: bool
) -> tuple[Diagnostics, np.ndarray]:
    """The diagnostics of a candidate, and the log of each group's mean ratio, to divide by."""
    log_scale = np.zeros(held.groups)
    if strength == 0:  # 1 everywhere
        generated, real = np.zeros(len(held.generated_groups)), np.zeros(len(held.real_groups))
    else:
        generated, real = strength * snapshot.generated.mean(0), strength * snapshot.real
        if scaled:
            log_scale = log_means(generated, held.generated_groups, held.groups)
            generated = scaled_by_other_half(generated, held)
            scales = log_means(strength * snapshot.generated, held.generated_groups, held.groups)
            real = real - scales[held.member, held.real_groups]
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
        name: finite(value) if isinstance(value, float) else value for name, value in row.items()
    }
