"""Networks for a conditional density ratio in feature space, and the loss that fits them.

cDR-RS (Ding et al., arXiv 2103.11166): r(h|y) = p_r(h|y) / p_g(h|y), the density of real features
over that of generated ones, is estimated by a non-negative ψ(h|y).
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cgankd.shardset.labels import LabelSpace

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


def log_ratio(net: nn.Module, features: Tensor, targets: Tensor) -> Tensor:
    """The log `[n]` of a ratio net's answer, −∞ where it is 0 to within `SMALLEST`."""
    ratio = net(features, targets)
    return torch.where(ratio < SMALLEST, -math.inf, ratio.clamp(min=SMALLEST).log())


def ruled_out(logs: Tensor, targets: Tensor, told: Tensor | None, reach: float) -> Tensor:
    """Log ratios `[n]`, −∞ where the label that an image tells is more than `reach` off its own.

    Such images are not among those that the ratio is fitted to, so it says nothing of them.
    """
    if told is None:
        return logs
    return torch.where((told - targets).abs() > reach, -math.inf, logs)


def softplus_loss(generated: Tensor, real: Tensor, penalty: float) -> Tensor:
    """The conditional softplus (cSP) loss of cDR-RS, a scalar, of ψ on a generated batch `[n]` and
    on a real one `[m]` with the same labels.

    mean[σ(ψ_g)·ψ_g − softplus(ψ_g)] − mean[σ(ψ_r)] + λ·(mean[ψ_g] − 1)²; ψ = r minimises it.
    """
    fit = (torch.sigmoid(generated) * generated - F.softplus(generated)).mean()
    return fit - torch.sigmoid(real).mean() + penalty * (generated.mean() - 1) ** 2
