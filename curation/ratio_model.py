"""A fitted density ratio: images and labels in, ratios out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from curation.feature_nets import (
    FeatureConfig,
    FeatureNet,
    build_feature_net,
    channels_last,
    padded_images,
    precise,
)
from curation.ratio_net import DensityRatioNet, log_ratio
from shardset.errors import BadInput, CheckpointError
from shardset.weights import load_weights

FORMAT_VERSION = 1


class Projection(nn.Module):
    """Features to the coordinates that ratio nets see.

    These are the leading directions of variation inside labels, on one common scale: whitening
    would blow up the least directions, where generated images give themselves away by traits that
    neither eye nor student minds, and the ratio would be about those.
    """

    centre: Tensor
    directions: Tensor

    def __init__(self, dim: int, components: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(dim))
        self.register_buffer("directions", torch.eye(dim, components))

    @classmethod
    def fitted(cls, features: np.ndarray, labels: np.ndarray, components: int) -> Self:
        """The projection on the `components` leading directions of features `[n, dim]`."""
        features = features.astype(np.float64)
        inside = features.copy()
        for label in np.unique(labels):
            inside[labels == label] -= features[labels == label].mean(0)
        variances, vectors = np.linalg.eigh(inside.T @ inside / len(inside))
        components = min(components, features.shape[1])
        scale = np.sqrt(max(variances[-components:].mean(), 1e-12))
        found = cls(features.shape[1], components)
        found.centre.copy_(torch.from_numpy(features.mean(0)))
        found.directions.copy_(torch.from_numpy(vectors[:, ::-1][:, :components].copy() / scale))
        return found

    def forward(self, features: Tensor) -> Tensor:
        """Coordinates `[n, components]` of features `[n, dim]`."""
        return (features - self.centre) @ self.directions


class RatioModel(nn.Module):
    """The geometric mean of several ratio nets, raised to a power and scaled per label.

    r(x|y) = exp(strength · mean_k log ψ_k(h(x)|y) − log_scale[y]).
    """

    net: FeatureNet
    log_scale: Tensor
    projection: nn.Module

    def __init__(self, shape: Mapping[str, Any]) -> None:
        super().__init__()
        self.shape = dict(shape)
        self.net = build_feature_net(
            FeatureConfig(**shape["features"]),
            classes=shape["classes"],
            channels=shape["channels"],
            size=shape["size"],
        )
        dim, components = shape["features"]["dim"], shape["components"]
        self.projection = nn.Identity() if components is None else Projection(dim, components)
        self.members = nn.ModuleList(
            DensityRatioNet(
                shape["network"], feature_dim=components or dim, classes=shape["classes"]
            )
            for _ in range(shape["members"])
        )
        self.register_buffer("log_scale", torch.zeros(shape["classes"], dtype=torch.float64))

    @torch.inference_mode()
    def log_members(self, images: Tensor, labels: Tensor) -> Tensor:
        """Log ψ_k float64 `[members, n]` of images `[n, c, h, w]` in [−1, 1]; −∞ where ψ is 0."""
        with precise(images.device, self.shape["precision"]):
            features = self.net.features(channels_last(images))
        coordinates = self.projection(features.float())
        logs = [log_ratio(member, coordinates, labels) for member in self.members]
        return torch.stack(logs).double()

    def ratios(self, images: Tensor, labels: Tensor) -> Tensor:
        """The float32 ratios `[n]`, ≥ 0, of images `[n, c, h, w]` in [−1, 1]; labels int64 `[n]`.

        Their mean over generated samples of each label is 1. NaN only where a network gives NaN.
        """
        if self.shape["strength"] == 0:  # 0 · log 0 is no number, but this is the constant ratio
            return torch.ones(len(labels), device=images.device)
        log_ratio = self.shape["strength"] * self.log_members(images, labels).mean(0)
        return (log_ratio - self.log_scale[labels]).exp().float()

    def score(self, pixels: np.ndarray, labels: np.ndarray, batch: int = 500) -> np.ndarray:
        """`ratios` of uint8 pixels `[n, c, h, w]`, in batches padded to one size."""
        expected = (self.shape["channels"], self.shape["size"], self.shape["size"])
        if pixels.shape[1:] != expected or pixels.shape[:1] != labels.shape:
            raise BadInput(
                f"density ratio: pixels {list(pixels.shape)} with labels {list(labels.shape)}, "
                f"expected [n, {', '.join(map(str, expected))}] and [n]"
            )
        device = self.log_scale.device
        found = np.empty(len(labels), dtype=np.float32)
        for start in range(0, len(labels), batch):
            images, count = padded_images(pixels[start : start + batch], batch)
            padded = torch.zeros(batch, dtype=torch.int64)
            padded[:count] = torch.from_numpy(labels[start : start + count])
            ratios = self.ratios(images.to(device), padded.to(device))
            found[start : start + count] = ratios[:count].cpu().numpy()
        return found


def load_ratio(folder: Path, device: torch.device) -> RatioModel:
    """The density ratio that `fit_ratio` wrote to `folder`, ready for use."""
    state, shape = load_weights(folder)
    if shape.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{folder} holds a density ratio of format {shape.get('format_version')}, expected "
            f"{FORMAT_VERSION}; fit it again"
        )
    with torch.device("meta"):
        model = RatioModel(shape)
    model.load_state_dict(state, assign=True)
    return model.eval().to(device=device)
