"""Networks for a conditional density ratio in feature space, and the loss that fits them.

cDR-RS (Ding et al., arXiv 2103.11166): r(h|y) = p_r(h|y) / p_g(h|y), the density of real features
over that of generated ones, is estimated by a non-negative ψ(h|y).
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RatioNetwork = Literal["small", "MLP3", "MLP5", "MLP7", "MLP9"]

# Hidden widths. MLP3, 5 and 7 are published; of MLP9 only the depth is.
WIDTHS: dict[RatioNetwork, tuple[int, ...]] = {
    "small": (128,),
    "MLP3": (512, 256, 128),
    "MLP5": (2048, 1024, 512, 256, 128),
    "MLP7": (2048, 2048, 1024, 1024, 512, 256, 128),
    "MLP9": (2048, 2048, 1024, 1024, 512, 512, 256, 256, 128),
}
SMALLEST = 1e-12  # a ratio below this is 0 to all that follows


class DensityRatioNet(nn.Module):
    """ψ(h|y): an MLP on a label embedding and a feature vector.

    The published ones (`MLP…`) have GroupNorm, ReLU, dropout ½ and a last ReLU, which may leave
    all ratios at 0. `small` has no GroupNorm, since how far out a feature lies is what it must
    see, and a last softplus; it starts at ψ = 1, the ratio of equal densities.
    """

    def __init__(
        self, network: RatioNetwork, *, feature_dim: int, classes: int, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.label_emb = nn.Embedding(classes, classes)
        layers: list[nn.Module] = []
        last = feature_dim + classes
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

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Ratios `[n]`, ≥ 0, of features `[n, feature_dim]` and int64 labels `[n]`."""
        return self.main(torch.cat([self.label_emb(labels), features], 1)).squeeze(1)


def log_ratio(net: nn.Module, features: Tensor, labels: Tensor) -> Tensor:
    """The log `[n]` of a ratio net's answer, −∞ where it is 0 to within `SMALLEST`."""
    ratio = net(features, labels)
    return torch.where(ratio < SMALLEST, -math.inf, ratio.clamp(min=SMALLEST).log())


def softplus_loss(generated: Tensor, real: Tensor, penalty: float) -> Tensor:
    """The conditional softplus (cSP) loss of cDR-RS, a scalar, of ψ on a generated batch `[n]` and
    on a real one `[m]` with the same labels.

    mean[σ(ψ_g)·ψ_g − softplus(ψ_g)] − mean[σ(ψ_r)] + λ·(mean[ψ_g] − 1)²; ψ = r minimises it.
    """
    fit = (torch.sigmoid(generated) * generated - F.softplus(generated)).mean()
    return fit - torch.sigmoid(real).mean() + penalty * (generated.mean() - 1) ** 2
