"""The ratio nets and their loss."""

import math

import numpy as np
import pytest
import torch

from cgankd.curation.density_ratio.model import (
    WIDTHS,
    DensityRatioNet,
    LabelBumps,
    log_ratio,
    ruled_out,
    softplus_loss,
)
from cgankd.shardset.labels import ClassLabels, ContinuousLabels

DEGREES = ContinuousLabels(unit="degrees", low=0, high=90)


def classes(count):
    return ClassLabels(names=tuple(str(label) for label in range(count)))


def test_loss_of_equal_densities_is_its_analytic_value():
    """ψ = 1 everywhere gives σ(1) − softplus(1) − σ(1) = −1.31326 and no penalty."""
    one = torch.ones(7)
    assert float(softplus_loss(one, one, 5.0)) == pytest.approx(-1.3132616875, abs=1e-6)


def test_loss_is_least_at_the_true_ratio():
    """On a grid of ψ, E_g[σψ − softplus ψ] − E_r[σ] is least where ψ = p_r / p_g."""
    grid = torch.linspace(0.01, 6, 600)
    for ratio in (0.3, 1.0, 2.5):
        values = [
            # one generated and `ratio` real samples at the same place
            float(softplus_loss(psi[None], psi[None], 0.0)) - (ratio - 1) * float(psi.sigmoid())
            for psi in grid
        ]
        assert float(grid[int(np.argmin(values))]) == pytest.approx(ratio, abs=0.02)


def test_penalty_counts_the_whole_batch_mean():
    """λ·(mean − 1)² of generated ratios alone is added."""
    generated, real = torch.tensor([0.0, 4.0]), torch.tensor([3.0])
    without = softplus_loss(generated, real, 0.0)
    assert float(softplus_loss(generated, real, 10.0) - without) == pytest.approx(10.0)


def test_published_net_has_the_published_parameters_and_keys():
    """MLP5 on CIFAR-100's 3,072 features: 9,303,569 parameters under 23 names."""
    with torch.device("meta"):
        net = DensityRatioNet("MLP5", feature_dim=3072, space=classes(100))
    state = net.state_dict()
    assert sum(value.numel() for value in state.values()) == 9_303_569
    places = (0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20)
    names = {f"main.{place}.{part}" for place in places for part in ("weight", "bias")}
    assert set(state) == names | {"label_emb.weight"}


@pytest.mark.parametrize("network", list(WIDTHS))
def test_every_net_gives_non_negative_ratios(network):
    """All presets take features and labels, and give one ratio ≥ 0 a sample."""
    net = DensityRatioNet(network, feature_dim=6, space=classes(3)).eval()
    ratios = net(torch.randn(5, 6), torch.tensor([0, 1, 2, 0, 1]))
    assert ratios.shape == (5,)
    assert bool((ratios >= 0).all())


def test_small_net_starts_at_the_constant_ratio():
    """Before training, real and generated are taken to have equal densities."""
    net = DensityRatioNet("small", feature_dim=6, space=classes(3)).eval()
    ratios = net(torch.randn(50, 6), torch.arange(50) % 3)
    assert torch.allclose(ratios, torch.ones(50), atol=1e-6)


def test_log_of_a_zero_ratio_is_minus_infinity():
    """A dead ReLU is a ratio of 0, not of the smallest positive number."""
    net = DensityRatioNet("MLP3", feature_dim=6, space=classes(3)).eval()
    for parameter in net.main[-2].parameters():
        torch.nn.init.constant_(parameter, -1.0)
    logs = log_ratio(net, torch.randn(4, 6), torch.zeros(4, dtype=torch.int64))
    assert logs.tolist() == [-math.inf] * 4


def test_published_net_for_continuous_labels_has_the_published_parameters():
    """12,288 features beside a label code of 128: 13,416,321 parameters under 22 names."""
    with torch.device("meta"):
        net = DensityRatioNet("regression-MLP5", feature_dim=12288, space=DEGREES)
    state = net.state_dict()
    assert (sum(value.numel() for value in state.values()), len(state)) == (13_416_321, 22)


def test_continuous_labels_are_coded_smoothly():
    """Near labels have near codes, far ones codes that share nothing."""
    near, far = (
        float(torch.cosine_similarity(*LabelBumps()(torch.tensor([0.4, other])), dim=0))
        for other in (0.41, 0.9)
    )
    assert near > 0.99
    assert far < 0.01


def test_what_the_feature_net_rules_out_has_no_ratio():
    """−∞ where the told label is further off than allowed; without told labels nothing changes."""
    logs, targets = torch.zeros(3), torch.tensor([0.2, 0.2, 0.9])
    told = torch.tensor([0.25, 0.4, 0.7])
    assert ruled_out(logs, targets, told, 0.1).tolist() == [0, -math.inf, -math.inf]
    assert ruled_out(logs, targets, None, 0.1) is logs
