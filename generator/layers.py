"""Layers whose weight is divided by its largest singular value (spectral normalisation).

The parameters and buffers are those of ajbrock/BigGAN-PyTorch: `weight` as learnt, `u0` the left
singular vector, `sv0` the last singular value. σ is worked out anew in every forward pass by one
power iteration from `u0`; `u0` and `sv0` move in training only.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPSILON = 1e-8

Weighted = nn.Conv2d | nn.Linear | nn.Embedding


class _DivideBySigmas(torch.autograd.Function):
    """W/σ of many weights and their gradients (g − ⟨g, W/σ⟩ u vᵀ)/σ, u and v held fixed.

    One node for a whole network: what small networks cost is nodes and calls.
    """

    @staticmethod
    def forward(
        ctx: Any, move: bool, lefts: list[Tensor], values: list[Tensor], *weights: Tensor
    ) -> tuple[Tensor, ...]:
        matrices = [_matrix(weight) for weight in weights]
        rights = [torch.mv(m.t(), left[0]) for m, left in zip(matrices, lefts, strict=True)]
        lengths = torch._foreach_norm(rights)
        torch._foreach_clamp_min_(lengths, EPSILON)
        torch._foreach_div_(rights, lengths)
        products = [torch.mv(m, right) for m, right in zip(matrices, rights, strict=True)]
        sigmas = torch._foreach_norm(products)
        moved = torch._foreach_div(products, torch._foreach_clamp_min(sigmas, EPSILON))
        if move:
            torch._foreach_copy_(lefts, moved)
            torch._foreach_copy_(values, sigmas)
        normalised = torch._foreach_div(weights, sigmas)
        ctx.save_for_backward(*normalised, *moved, *rights, *sigmas)
        return tuple(normalised)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        saved, count = ctx.saved_tensors, len(gradients)
        normalised, lefts, rights, sigmas = (saved[i * count : (i + 1) * count] for i in range(4))
        results = []
        for gradient, weight, left, right in zip(gradients, normalised, lefts, rights, strict=True):
            matrix = _matrix(gradient)
            along = torch.dot(matrix.flatten(), _matrix(weight).flatten())
            matrix = torch.addr(matrix, left * along, right, alpha=-1)
            results.append(_shaped(matrix, weight))
        torch._foreach_div_(results, sigmas)
        return None, None, None, *results


def _matrix(weight: Tensor) -> Tensor:
    """A weight `[o, i, …]` as a matrix `[o, ·]`, its columns in the order of channels_last.

    σ and its left vector do not depend on that order; weights lie so, and nothing is copied.
    """
    return (weight.permute(0, 2, 3, 1) if weight.dim() == 4 else weight).flatten(1)


def _shaped(matrix: Tensor, weight: Tensor) -> Tensor:
    """A matrix of `_matrix` in the shape of its weight."""
    if weight.dim() != 4:
        return matrix
    outputs, inputs, height, width = weight.shape
    return matrix.view(outputs, height, width, inputs).permute(0, 3, 1, 2)


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
        weight = _weight(self, torch.float32).transpose(0, 1)
        kernel = _spread(weight, flipped=True).to(x.dtype)
        return F.conv_transpose2d(x, kernel, _bias(self, x.dtype), stride=2, padding=1)

    def reduced(self, x: Tensor) -> Tensor:
        """The 2×2 averages of the convolution; a 3×3 kernel."""
        kernel = _spread(_weight(self, torch.float32), share=0.25).to(x.dtype)
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


def spectral_layers(network: nn.Module) -> list[Weighted]:
    """The layers of a network that are spectrally normalised."""
    return [m for m in network.modules() if isinstance(m, Weighted) and hasattr(m, "u0")]


def normalise(layers: Sequence[Weighted]) -> None:
    """Works out all layers' normalised weights at once, for the next pass through each."""
    if layers:
        weights = [layer.weight for layer in layers]
        lefts, values = [layer.u0 for layer in layers], [layer.sv0 for layer in layers]
        normalised = _DivideBySigmas.apply(layers[0].training, lefts, values, *weights)
        for layer, weight in zip(layers, normalised, strict=True):
            layer.__dict__["normalised"] = weight


def _weight(layer: Weighted, dtype: torch.dtype) -> Tensor:
    """The weight in `dtype`, over its largest singular value where the layer keeps a vector for it;
    float32 inside.
    """
    if not hasattr(layer, "u0"):
        return layer.weight.to(dtype)
    if "normalised" not in layer.__dict__:
        normalise([layer])
    # Taken once: the next pass makes another power iteration.
    return layer.__dict__.pop("normalised").to(dtype)


def _bias(layer: Conv2d | Linear, dtype: torch.dtype) -> Tensor | None:
    return None if layer.bias is None else layer.bias.to(dtype)


def _spread(kernel: Tensor, *, share: float = 1.0, flipped: bool = False) -> Tensor:
    """`share` times the sum of a kernel's four copies shifted by one: `[o, i, 3, 3]`, which may be
    flipped first, to `[o, i, 4, 4]`.
    """
    matrices = kernel.flatten(2).transpose(1, 2)
    spread = _spreading(share, flipped, kernel.device) @ matrices
    return spread.unflatten(1, (4, 4)).permute(0, 3, 1, 2)


@cache
@torch.inference_mode(False)
def _spreading(share: float, flipped: bool, device: torch.device) -> Tensor:
    """The matrix `[16, 9]` that `_spread` is."""
    line = torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]])
    line = line.flip(1) if flipped else line
    return (share * torch.kron(line, line)).to(device)


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
