"""Fits a conditional density ratio to few real images.

As published (cDR-RS, arXiv 2103.11166), the feature net learns from the real images that the
ratio is then fitted to, and the fit runs for a fixed time: on small data real and generated
samples come apart and the ratio says nothing. Here the feature net learns from generated samples,
so that every real image is new to it; `fit_on_features` does the rest.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from curation.feature_nets import Precision, Progress, features_of, train_feature_net
from curation.fit_on_features import Described, fit_on_features
from curation.ratio_config import RatioConfig
from curation.ratio_model import FORMAT_VERSION, RatioModel
from shardset.errors import BadInput
from shardset.files import derive_seed
from shardset.labels import LabelSpace
from shardset.weights import save_weights

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
    progress: Progress = lambda done, total, values: None,
) -> dict[str, Any]:
    """Facts of the ratio written to `folder`: `sha256`, `problems` (one line each; empty where it
    may be used), `per_label` and `overall` diagnostics on held-out samples, and what was chosen.

    Pixels uint8 `[n, c, h, w]`, labels `[n]` raw: int64 classes or float64 in their unit. Real
    images are taken as they are: they must not be augmented. `BadInput` for a class with too few
    images of either kind; a part of a range with too few is fitted with the nearest one.
    """
    joined = joined_groups(real_labels, fake_labels, space)
    real_groups = joined[space.group_of(real_labels)]
    fake_groups = joined[space.group_of(fake_labels)]
    for_features, for_fit, held_out = split_generated(fake_groups, config.most_generated, seed)
    fold = folds_of(real_groups, config.folds, seed)
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
        told = None
        if space.task == "regression" and config.rounds > 0:
            with torch.inference_mode():
                told = net.head(torch.from_numpy(features).to(device)).cpu().numpy()[:, 0]
        return Described(features, labels, groups, told)

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
    facts = fit_on_features(
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
    return {"sha256": save_weights(folder, model, model.shape), **facts}


def joined_groups(
    real_labels: np.ndarray, fake_labels: np.ndarray, space: LabelSpace
) -> np.ndarray:
    """For each group int64 `[groups]` the one that it is fitted with: itself, or where a part of a
    range has too few samples, the nearest one with enough. `BadInput` for such a class.
    """
    for labels in (real_labels, fake_labels):
        space.check(labels, "density ratio")
    names = space.group_names
    reals = np.bincount(space.group_of(real_labels), minlength=len(names))
    generated = np.bincount(space.group_of(fake_labels), minlength=len(names))
    enough = np.flatnonzero((reals >= LEAST_REAL) & (generated >= LEAST_GENERATED))
    if len(enough) == len(names) or (space.task == "regression" and enough.size):
        distance = np.abs(np.arange(len(names))[:, None] - enough)
        return enough[distance.argmin(1)]
    group = np.setdiff1d(np.arange(len(names)), enough)[0]
    few = f"density ratio: label {names[group]} has"
    if reals[group] < LEAST_REAL:
        raise BadInput(
            f"{few} {reals[group]} real images, at least {LEAST_REAL} are needed; raise the label "
            "budget"
        )
    raise BadInput(
        f"{few} {generated[group]} generated images, at least {LEAST_GENERATED} are needed; raise "
        "pool.per_label"
    )


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
        for found, some in zip(parts, np.split(rows, [part, 2 * part]), strict=True):
            found.append(some)
    first, second, third = (np.sort(np.concatenate(found)) for found in parts)
    return first, second, third


def folds_of(groups: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold int64 `[n]` of each real image: every group spread over them, all of one size."""
    fold = np.empty(len(groups), dtype=np.int64)
    dealt = 0
    for group in np.unique(groups).tolist():
        random = np.random.default_rng(derive_seed(seed, "folds", group))
        rows = random.permutation(np.flatnonzero(groups == group))
        fold[rows] = (dealt + np.arange(len(rows))) % folds
        dealt += len(rows)
    return fold
