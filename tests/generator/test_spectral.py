"""Spectrally normalised layers and their fused forms."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cgankd.generator.layers import (
    Conv2d,
    Linear,
    SpectralEmbedding,
    normalise,
    spectral_layers,
)


def test_the_largest_singular_value_becomes_one_in_training() -> None:
    """Power iteration, kept from pass to pass, finds the σ that the SVD finds."""
    layer = Conv2d(3, 7)
    torch.nn.init.normal_(layer.weight)

    for _ in range(200):
        layer(torch.zeros(1, 3, 4, 4))

    sigma = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), ord=2)
    torch.testing.assert_close(layer.sv0, sigma[None])


@pytest.mark.parametrize("training", [True, False])
def test_gradients_are_those_of_automatic_differentiation(training: bool) -> None:
    """The hand-written backward pass agrees with the formulas differentiated by torch."""
    layer = Linear(5, 4).train(training)
    x, target = torch.randn(6, 5), torch.randn(6, 4)
    weight = layer.weight.detach().clone().requires_grad_()
    with torch.no_grad():
        v = F.normalize(layer.u0 @ weight)
        u = F.normalize(v @ weight.T)
    sigma = (u @ weight @ v.T).squeeze()
    expected = ((F.linear(x, weight / sigma, layer.bias.detach()) - target) ** 2).sum()

    loss = ((layer(x) - target) ** 2).sum()
    loss.backward()
    expected.backward()

    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(layer.weight.grad, weight.grad)


def test_layers_normalised_together_are_those_normalised_one_by_one() -> None:
    """Outputs, gradients and singular vectors, in the channels-last layout as in the usual one."""
    together = nn.Sequential(Conv2d(3, 5), Conv2d(5, 4, spectral=False), Conv2d(4, 2, kernel=1))
    alone = copy.deepcopy(together).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.randn(2, 3, 6, 6)

    for network, at_once in ((together, True), (alone, False)):
        for _ in range(2):
            network.zero_grad()
            if at_once:
                normalise(spectral_layers(network))
            network(x).square().sum().backward()

    for name, expected in alone.state_dict().items():
        torch.testing.assert_close(together.state_dict()[name], expected)
    for ours, theirs in zip(together.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)


def test_only_training_keeps_the_singular_vector() -> None:
    """In evaluation `u0` and `sv0` stay as they are."""
    layer = SpectralEmbedding(4, 6).eval()
    before = layer.u0.clone()

    layer(torch.tensor([1, 2]))
    kept = torch.equal(before, layer.u0)
    layer.train()(torch.tensor([1, 2]))

    assert kept
    assert not torch.equal(before, layer.u0)


def test_enlarged_is_doubling_followed_by_the_convolution() -> None:
    """One transposed convolution gives what doubling the pixels and convolving gives."""
    layer = Conv2d(3, 5).eval()
    x = torch.randn(2, 3, 6, 6)

    torch.testing.assert_close(
        layer.enlarged(x), layer(F.interpolate(x, scale_factor=2.0)), atol=1e-5, rtol=1e-4
    )


@pytest.mark.parametrize("size", [6, 7])
def test_reduced_is_the_convolution_followed_by_averaging(size: int) -> None:
    """One strided convolution gives what convolving and averaging 2×2 pixels gives."""
    layer = Conv2d(3, 5).eval()
    x = torch.randn(2, 3, size, size)

    torch.testing.assert_close(layer.reduced(x), F.avg_pool2d(layer(x), 2), atol=1e-5, rtol=1e-4)
