"""A fitted density ratio: images and labels in, ratios out.

cDR-RS (Ding et al., arXiv 2103.11166): r(h|y) = p_r(h|y) / p_g(h|y), the density of real features
over that of generated ones, is estimated by a non-negative ψ(h|y).
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from pydantic import TypeAdapter
from torch import Tensor, nn

from cgankd.nets.device import channels_last, placed, precise
from cgankd.nets.feature_nets import FeatureConfig, FeatureKind, FeatureNet, padded_images
from cgankd.nets.network import WithoutValues
from cgankd.shardset.errors import BadInput, CheckpointError
from cgankd.shardset.labels import LabelSpace
from cgankd.shardset.weights import load_weights

FORMAT_VERSION = 2
RatioNetwork = Literal["small", "MLP3", "MLP5", "MLP7", "MLP9", "regression-MLP5"]

# Hidden widths. MLP3, 5 and 7 are published; of MLP9 only the depth is.
WIDTHS: dict[RatioNetwork, tuple[int, ...]] = {
    "small": (128,),
    "MLP3": (512, 256, 128),
    "MLP5": (2048, 1024, 512, 256, 128),
    "MLP7": (2048, 2048, 1024, 1024, 512, 256, 128),
    "MLP9": (2048, 2048, 1024, 1024, 512, 512, 256, 256, 128),
    "regression-MLP5": (1024, 512, 256, 128, 64),
}
BUMPS = 128  # as long as the label embedding of the published ratio for continuous labels
BUMP_WIDTH = 0.08  # of the range: what is learnt at one label holds for labels about so near
SMALLEST = 1e-12  # a ratio below this is 0 to all that follows


class Projection(nn.Module):
    """Features to the coordinates that ratio nets see.

    These are the leading directions of variation inside labels, on one common scale: whitening
    would blow up the least directions, where generated images give themselves away by traits that
    neither eye nor student minds, and the ratio would be about those. For continuous labels what
    features do along the label is taken off first: p_r / p_g given the label stays the same, and
    what is learnt at one label holds for its neighbours.
    """

    centre: Tensor
    directions: Tensor

    def __init__(self, dim: int, components: int, space: LabelSpace) -> None:
        super().__init__()
        self.bumps = LabelBumps() if space.task == "regression" else None
        centre = torch.zeros(dim) if self.bumps is None else torch.zeros(BUMPS, dim)
        self.register_buffer("centre", centre)
        # Not eye, which on the meta device imports SymPy.
        self.register_buffer("directions", torch.zeros(dim, components).fill_diagonal_(1))

    @classmethod
    def fitted(
        cls, features: np.ndarray, labels: np.ndarray, components: int, space: LabelSpace
    ) -> "Projection":
        """The projection on the `components` leading directions of features `[n, dim]`."""
        features = features.astype(np.float64)
        components = min(components, features.shape[1])
        projection = cls(features.shape[1], components, space)
        if projection.bumps is None:
            projection.centre.copy_(torch.from_numpy(features.mean(0)))
            inside = features.copy()
            for label in np.unique(labels):
                inside[labels == label] -= features[labels == label].mean(0)
        else:
            targets = torch.from_numpy(space.targets(labels))
            projection.centre.copy_(
                torch.from_numpy(_along(projection.weights(targets).numpy(), features))
            )
            inside = features - projection.centres(targets).numpy()
        # V Λ Vᵀ = mean of (h − centre)(h − centre)ᵀ inside labels, Λ ascending: directions are the
        # last `components` columns of V, all divided by the root of their mean variance.
        variances, vectors = np.linalg.eigh(inside.T @ inside / len(inside))
        scale = np.sqrt(max(variances[-components:].mean(), 1e-12))
        projection.directions.copy_(
            torch.from_numpy(vectors[:, ::-1][:, :components].copy() / scale)
        )
        return projection

    def weights(self, targets: Tensor) -> Tensor:
        """How much each bump counts at scaled labels `[n]`: float32 `[n, BUMPS]`, sum 1."""
        assert self.bumps is not None
        return F.normalize(self.bumps(targets), p=1)

    def centres(self, targets: Tensor) -> Tensor:
        """What is taken off features: `[dim]` for classes, `[n, dim]` for scaled labels `[n]`."""
        return self.centre if self.bumps is None else self.weights(targets) @ self.centre

    def forward(self, features: Tensor, targets: Tensor) -> Tensor:
        """Coordinates `[n, components]` of features `[n, dim]` with targets `[n]`."""
        return (features - self.centres(targets)) @ self.directions


def _along(weights: np.ndarray, features: np.ndarray) -> np.ndarray:
    """The table float64 `[BUMPS, dim]` whose weighted sums follow features (ridge regression)."""
    weights, mean = weights.astype(np.float64), features.mean(0)
    ridge = 1e-6 * len(weights) / BUMPS * np.eye(BUMPS)
    return mean + np.linalg.solve(weights.T @ weights + ridge, weights.T @ (features - mean))


class FeatureRatio(nn.Module):
    """The geometric mean of several ratio nets, raised to a power and scaled per group of labels.

    r(h|y) = exp(strength · mean_k log ψ_k(h|y) − log_scale[group of y]) of features h.
    """

    log_scale: Tensor

    def __init__(self, shape: Mapping[str, Any]) -> None:
        super().__init__()
        self.shape = dict(shape)
        self.space = TypeAdapter[LabelSpace](LabelSpace).validate_python(shape["space"])
        dim, components = shape["features"]["dim"], shape["components"]
        self.projection = None
        if components is not None:
            self.projection = Projection(dim, components, self.space)
        self.members = nn.ModuleList(
            DensityRatioNet(shape["network"], feature_dim=components or dim, space=self.space)
            for _ in range(shape["members"])
        )
        scale = torch.zeros(len(self.space.group_names), dtype=torch.float64)
        self.register_buffer("log_scale", scale)

    def coordinates(self, features: Tensor, targets: Tensor) -> Tensor:
        """What ratio nets see of features float32 `[n, dim]` with targets `[n]`."""
        return features if self.projection is None else self.projection(features, targets)

    @torch.inference_mode()
    def ratios_of(
        self, features: Tensor, labels: Tensor, predicted: Tensor | None = None
    ) -> Tensor:
        """The float32 ratios `[n]`, ≥ 0, of features `[n, dim]` with raw labels `[n]`.

        predicted: the scaled labels `[n]` that the feature net reads off the images.
        """
        if self.shape["strength"] == 0:  # 0 · log 0 is no number, but this is the constant ratio
            return torch.ones(len(labels), device=features.device)
        raw = labels.cpu().numpy()
        targets = torch.from_numpy(self.space.targets(raw)).to(features.device)
        groups = torch.from_numpy(self.space.group_of(raw)).to(features.device)
        coordinates = self.coordinates(features, targets)
        logs = torch.stack([log_ratio(net, coordinates, targets) for net in self.members])
        logs = ruled_out(logs.double(), targets, predicted, self.shape["reach"] or 0.0)
        log_mean = self.shape["strength"] * logs.mean(0)
        return (log_mean - self.log_scale[groups]).exp().float()


class RatioModel(FeatureRatio):
    """The ratio of features with the net that makes them: r(x|y) of images."""

    net: FeatureNet

    def __init__(self, shape: Mapping[str, Any]) -> None:
        super().__init__(shape)
        kind: FeatureConfig = TypeAdapter(FeatureKind).validate_python(shape["features"])
        self.net = kind.net(self.space.outputs, shape["channels"], shape["size"])

    @torch.inference_mode()
    def ratios(self, images: Tensor, labels: Tensor) -> Tensor:
        """The float32 ratios `[n]`, ≥ 0, of images `[n, c, h, w]` in [−1, 1]; labels are raw.

        Where the fit was calibrated their mean over generated samples of a class, or of a part of a
        range with enough real images, is about 1. A part joined to its neighbours for the fit has
        their scale, and any mean. NaN only where a network gives NaN.
        """
        with precise(images.device, self.shape["precision"]):
            features = self.net.features(channels_last(images))
            predicted = (
                None if self.shape["reach"] is None else self.net.head(features).float()[:, 0]
            )
        return self.ratios_of(features.float(), labels, predicted)

    def score(self, pixels: np.ndarray, labels: np.ndarray, batch: int = 500) -> np.ndarray:
        """`ratios` of uint8 pixels `[n, c, h, w]` and raw labels, in batches padded to one size."""
        expected = (self.shape["channels"], self.shape["size"], self.shape["size"])
        if pixels.shape[1:] != expected or pixels.shape[:1] != labels.shape:
            raise BadInput(
                f"density ratio: pixels {list(pixels.shape)} with labels {list(labels.shape)}, "
                f"expected [n, {', '.join(map(str, expected))}] and [n]"
            )
        device = self.log_scale.device
        ratios = np.empty(len(labels), dtype=np.float32)
        for start in range(0, len(labels), batch):
            images, count = padded_images(pixels[start : start + batch], batch)
            padded = np.zeros(batch, labels.dtype)
            padded[:count] = labels[start : start + count]
            of_batch = self.ratios(images.to(device), torch.from_numpy(padded))
            ratios[start : start + count] = of_batch[:count].cpu().numpy()
        return ratios


def load_ratio(folder: Path, device: torch.device) -> RatioModel:
    """The density ratio that `fit_ratio` wrote to `folder`, ready for use."""
    state, shape = load_weights(folder)
    if shape.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{folder} holds a density ratio of format {shape.get('format_version')}, expected "
            f"{FORMAT_VERSION}; fit it again"
        )
    with WithoutValues():
        model = RatioModel(shape)
    model.load_state_dict(state, assign=True)
    return placed(model.eval(), device)


class LabelBumps(nn.Module):
    """A smooth code of scaled labels, evenly spaced Gaussian bumps; it has nothing to learn."""

    def forward(self, targets: Tensor) -> Tensor:
        """Codes float32 `[n, BUMPS]` in [0, 1] of scaled labels `[n]`."""
        centres = torch.linspace(0, 1, BUMPS, device=targets.device)
        return torch.exp(-(((targets.float()[:, None] - centres) / BUMP_WIDTH) ** 2) / 2)


class DensityRatioNet(nn.Module):
    """ψ(h|y): an MLP on a label embedding and a feature vector.

    The published ones (`MLP…`) have GroupNorm, ReLU, dropout ½ and a last ReLU, which may leave
    all ratios at 0. `small` has no GroupNorm, since how far out a feature lies is what it must
    see, and a last softplus; it starts at ψ = 1, the ratio of equal densities. Classes have a
    learnt embedding, continuous labels a fixed smooth code.
    """

    def __init__(
        self, network: RatioNetwork, *, feature_dim: int, space: LabelSpace, dropout: float = 0.5
    ) -> None:
        super().__init__()
        continuous = space.task == "regression"
        label_dim = BUMPS if continuous else space.outputs
        self.label_emb = LabelBumps() if continuous else nn.Embedding(label_dim, label_dim)
        layers: list[nn.Module] = []
        last = feature_dim + label_dim
        for width in WIDTHS[network]:
            norm = [] if network == "small" else [nn.GroupNorm(8, width)]
            layers += [nn.Linear(last, width), *norm, nn.ReLU(), nn.Dropout(dropout)]
            last = width
        layers += [nn.Linear(last, 1), nn.Softplus() if network == "small" else nn.ReLU()]
        self.main = nn.Sequential(*layers)
        if network == "small":
            output = layers[-2]
            assert isinstance(output, nn.Linear)
            nn.init.zeros_(output.weight)
            nn.init.constant_(output.bias, math.log(math.e - 1))  # softplus of this is 1

    def forward(self, features: Tensor, targets: Tensor) -> Tensor:
        """Ratios `[n]`, ≥ 0, of features `[n, feature_dim]` and targets `[n]`."""
        return self.main(torch.cat([self.label_emb(targets), features], 1)).squeeze(1)


def log_ratio(
    net: nn.Module, features: Float[Tensor, "n d"], targets: Shaped[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """The log `[n]` of a ratio net's answer, −∞ where it is 0 to within `SMALLEST`."""
    ratio = net(features, targets)
    return torch.where(ratio < SMALLEST, -math.inf, ratio.clamp(min=SMALLEST).log())


def ruled_out(
    logs: Float[Tensor, "*nets n"],
    targets: Shaped[Tensor, " n"],
    predicted: Float[Tensor, " n"] | None,
    reach: float,
) -> Float[Tensor, "*nets n"]:
    """Log ratios `[…, n]`, −∞ where the label that an image tells is more than `reach` off its own.

    Such images are not among those that the ratio is fitted to, so it says nothing of them.
    """
    if predicted is None:
        return logs
    return torch.where((predicted - targets).abs() > reach, -math.inf, logs)


def softplus_loss(
    generated: Float[Tensor, " n"], real: Float[Tensor, " m"], penalty: float
) -> Float[Tensor, ""]:
    """The conditional softplus (cSP) loss of cDR-RS, a scalar, of ψ on a generated batch `[n]` and
    on a real one `[m]` with the same labels.

    mean[σ(ψ_g)·ψ_g − softplus(ψ_g)] − mean[σ(ψ_r)] + λ·(mean[ψ_g] − 1)²; ψ = r minimises it.
    """
    fit = (torch.sigmoid(generated) * generated - F.softplus(generated)).mean()
    return fit - torch.sigmoid(real).mean() + penalty * (generated.mean() - 1) ** 2
