"""Self-attention between the places of a feature map.

Zhang et al. 2019 (arXiv 1805.08318), with the halved keys and values of BigGAN's code.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generator.spectral import SpectralConv2d


class SelfAttention(nn.Module):
    """x + γ · (what every place sees in all others), `[n, channels, h, w]` each; γ starts at 0."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.theta = SpectralConv2d(channels, channels // 8, kernel=1)
        self.phi = SpectralConv2d(channels, channels // 8, kernel=1)
        self.g = SpectralConv2d(channels, channels // 2, kernel=1)
        self.o = SpectralConv2d(channels // 2, channels, kernel=1)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        count, _, height, width = x.shape
        queries = self.theta(x).flatten(2)
        keys = F.max_pool2d(self.phi(x), 2).flatten(2)
        values = F.max_pool2d(self.g(x), 2).flatten(2)
        shares = torch.softmax(queries.transpose(1, 2) @ keys, 2)
        seen = (values @ shares.transpose(1, 2)).view(count, -1, height, width)
        seen = seen.contiguous(memory_format=torch.channels_last)
        return x + self.gamma.to(x.dtype) * self.o(seen)
