"""Layers whose weight is divided by its largest singular value (spectral normalisation).

The parameters and buffers are those of ajbrock/BigGAN-PyTorch: `weight` as learnt, `u0` the left
singular vector, `sv0` the last singular value. σ is worked out anew in every forward pass by one
power iteration from `u0`; `u0` and `sv0` move in training only.
"""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 1e-8

Weighted = nn.Conv2d | nn.Linear | nn.Embedding


class _DivideBySigma(torch.autograd.Function):
    """W/σ and its gradient (g − ⟨g, W/σ⟩ u vᵀ)/σ, u and v held fixed.

    One node in place of twenty: what small networks cost is nodes.
    """

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, left: Tensor, value: Tensor, move: bool, dtype: torch.dtype
    ) -> Tensor:
        matrix = weight.flatten(1)
        right = torch.mv(matrix.t(), left[0])
        right /= right.norm().clamp_min_(EPSILON)
        product = torch.mv(matrix, right)
        sigma = product.norm()
        moved = product / sigma.clamp_min(EPSILON)
        if move:
            left.copy_(moved)
            value.copy_(sigma)
        normalised = weight / sigma
        ctx.save_for_backward(normalised, moved, right, sigma)
        return normalised.to(dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        normalised, left, right, sigma = ctx.saved_tensors
        gradient = gradient.float().contiguous()
        along = -torch.dot(gradient.flatten(), normalised.flatten())
        outer = torch.outer(left * along, right).view_as(gradient)
        return outer.add_(gradient).div_(sigma), None, None, None, None


class Conv2d(nn.Conv2d):
    """A convolution in its input's dtype, spectrally normalised or plain; padding keeps the size.

    `enlarged` and `reduced` fuse it with nearest-neighbour doubling before it or 2×2 averaging
    after it: a 3×3 kernel on doubled pixels is a 4×4 kernel at stride ½ (2 for averaging), with
    the same result for 4/9 of the work.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 3, *, spectral: bool = True
    ) -> None:
        super().__init__(inputs, outputs, kernel, padding=kernel // 2)
        if spectral:
            _add_singular_vector(self)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, _weight(self, x.dtype), _bias(self, x.dtype), padding=self.padding)

    def enlarged(self, x: Tensor) -> Tensor:
        """The convolution of `x` after each pixel became 2×2; a 3×3 kernel."""
        kernel = _spread(_weight(self, x.dtype).flip(2, 3)).transpose(0, 1)
        return F.conv_transpose2d(x, kernel, _bias(self, x.dtype), stride=2, padding=1)

    def reduced(self, x: Tensor) -> Tensor:
        """The 2×2 averages of the convolution; a 3×3 kernel."""
        kernel = _spread(_weight(self, x.dtype)) / 4
        return F.conv2d(x, kernel, _bias(self, x.dtype), stride=2, padding=1)


class Linear(nn.Linear):
    """A linear layer in its input's dtype, spectrally normalised or plain."""

    def __init__(
        self, inputs: int, outputs: int, bias: bool = True, *, spectral: bool = True
    ) -> None:
        super().__init__(inputs, outputs, bias=bias)
        if spectral:
            _add_singular_vector(self)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, _weight(self, x.dtype), _bias(self, x.dtype))


class SpectralEmbedding(nn.Embedding):
    """A vector for each class, spectrally normalised."""

    def __init__(self, count: int, size: int) -> None:
        super().__init__(count, size)
        _add_singular_vector(self)

    def forward(self, index: Tensor) -> Tensor:
        return F.embedding(index, _weight(self, torch.float32))


def _add_singular_vector(layer: Weighted) -> None:
    layer.register_buffer("u0", torch.randn(1, layer.weight.shape[0]))
    layer.register_buffer("sv0", torch.ones(1))


def _weight(layer: Weighted, dtype: torch.dtype) -> Tensor:
    """The weight in `dtype`, over its largest singular value where the layer keeps a vector for it;
    float32 inside.
    """
    if not hasattr(layer, "u0"):
        return layer.weight.to(dtype)
    return _DivideBySigma.apply(layer.weight, layer.u0, layer.sv0, layer.training, dtype)


def _bias(layer: Conv2d | Linear, dtype: torch.dtype) -> Tensor | None:
    return None if layer.bias is None else layer.bias.to(dtype)


def _spread(kernel: Tensor) -> Tensor:
    """The sum of a kernel's four copies shifted by one: `[o, i, 3, 3]` to `[o, i, 4, 4]`."""
    rows = F.pad(kernel, (0, 0, 0, 1)) + F.pad(kernel, (0, 0, 1, 0))
    return F.pad(rows, (0, 1, 0, 0)) + F.pad(rows, (1, 0, 0, 0))


def initialise(network: nn.Module, initial: Literal["normal", "orthogonal"]) -> None:
    """Sets weights to N(0, 0.02²) or to orthogonal rows, embeddings to N(0, 0.02²), biases to 0."""
    for module in network.modules():
        if isinstance(module, Weighted):
            if initial == "normal" or isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            else:
                nn.init.orthogonal_(module.weight)
            if not isinstance(module, nn.Embedding) and module.bias is not None:
                nn.init.zeros_(module.bias)


class SelfAttention(nn.Module):
    """x + γ · (what every place sees in all others), `[n, channels, h, w]` each; γ starts at 0."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.theta = Conv2d(channels, channels // 8, kernel=1)
        self.phi = Conv2d(channels, channels // 8, kernel=1)
        self.g = Conv2d(channels, channels // 2, kernel=1)
        self.o = Conv2d(channels // 2, channels, kernel=1)
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
