"""Losses of single samples against plain numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cgankd.nets.losses import cross_entropy, regression_loss
from cgankd.shardset.errors import BadInput


def softmax(logits):
    raised = np.exp(logits - logits.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


def some_logits(seed, count=5, classes=4):
    return np.random.default_rng(seed).normal(scale=3, size=(count, classes))


@given(st.integers(0, 1000))
def test_cross_entropy_is_minus_the_log_of_the_labels_probability(seed):
    """Per sample, unreduced."""
    logits, labels = some_logits(seed), np.arange(5) % 4
    expected = -np.log(softmax(logits)[np.arange(5), labels])
    loss = cross_entropy(torch.tensor(logits), torch.tensor(labels))
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("mse", [0.0, 0.0025, 0.25]),
        ("l1", [0.0, 0.05, 0.5]),
        ("huber", [0.0, 0.00125, 0.045]),  # 0.05²/2; 0.1 · (0.5 − 0.1/2)
    ],
)
def test_regression_losses_are_those_of_the_error(kind, expected):
    """Errors of 0, 0.05 and −0.5 of the label range, per sample and in float32."""
    values = torch.tensor([[0.4], [0.45], [-0.1]], dtype=torch.float64)
    loss = regression_loss(values, torch.full((3,), 0.4), kind)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, torch.tensor(expected))


def test_shapes_that_do_not_belong_together_are_refused():
    """Broadcasting would hide them."""
    with pytest.raises(BadInput, match=r"\[5, 4\] and \[5, 1\]"):
        cross_entropy(torch.zeros(5, 4), torch.zeros(5, 1, dtype=torch.int64))
    for values in (torch.zeros(5), torch.zeros(5, 2), torch.zeros(4, 1)):
        with pytest.raises(BadInput, match=r"values \[n, 1\] and targets \[n\]"):
            regression_loss(values, torch.zeros(5), "mse")
