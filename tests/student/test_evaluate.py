"""Outputs of networks, accuracy and cross-entropy."""

import numpy as np
import pytest
import torch

from cgankd.nets.networks import build_network
from cgankd.shardset.errors import BadInput
from cgankd.shardset.labels import ContinuousLabels
from cgankd.shardset.testing import tiny_space
from cgankd.student.evaluate import accuracy, mean_cross_entropy, measures, outputs_of, predictions

PIXELS = np.random.default_rng(0).integers(0, 256, (7, 1, 8, 8), dtype=np.uint8)


def test_outputs_do_not_depend_on_the_batch_size():
    """Running statistics, not those of the batch; the network's mode is put back."""
    network = build_network("resnet8", outputs=3, channels=1, size=8).train()
    whole = outputs_of(network, PIXELS, 7)
    assert whole.shape == (7, 3)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(outputs_of(network, PIXELS, 2), whole, rtol=1e-4, atol=1e-5)
    assert network.training
    network.eval()
    outputs_of(network, PIXELS)
    assert not network.training


def test_outputs_are_those_of_images_from_minus_one_to_one():
    """A callable that is no network is asked the same way; bfloat16 comes back as float32."""
    outputs = outputs_of(lambda images: images.flatten(1)[:, :2], PIXELS)
    np.testing.assert_allclose(outputs, PIXELS[:, 0, 0, :2] / 127.5 - 1, atol=1e-6)
    network = build_network("convnet-80k", outputs=3, channels=1, size=8)
    half = outputs_of(network, PIXELS, precision="bfloat16")
    assert half.dtype == np.float32
    np.testing.assert_allclose(half, outputs_of(network, PIXELS), atol=0.05)


def test_accuracy_is_in_percent():
    """Three of four."""
    outputs = np.eye(4, dtype=np.float32)
    assert accuracy(outputs, np.array([0, 1, 2, 0])) == 75.0


def test_cross_entropy_is_that_of_torch():
    """Also where logits are large."""
    outputs = np.random.default_rng(1).normal(scale=300, size=(20, 5)).astype(np.float32)
    labels = np.arange(20) % 5
    expected = torch.nn.functional.cross_entropy(torch.tensor(outputs), torch.tensor(labels))
    assert mean_cross_entropy(outputs, labels) == pytest.approx(float(expected), rel=1e-5)


def test_classes_are_measured_by_accuracy_and_cross_entropy():
    """The largest logit is the prediction, an int64."""
    outputs, labels = np.eye(4, dtype=np.float32), np.array([0, 1, 2, 0])
    space = tiny_space(4)
    assert predictions(outputs, space).tolist() == [0, 1, 2, 3]
    assert predictions(outputs, space).dtype == np.int64
    # Three right with probability e/(e + 3), one with 1/(e + 3).
    cross_entropy = np.log(np.e + 3) - 0.75
    assert measures(outputs, labels, space) == pytest.approx(
        {"accuracy": 75.0, "cross_entropy": cross_entropy}
    )


def test_continuous_labels_are_measured_in_their_unit():
    """Values beyond the range are predictions of its end; nothing is rounded."""
    space = ContinuousLabels(unit="degrees", low=-60.0, high=60.0)
    outputs = np.array([[0.25], [0.5], [1.5], [-0.1]], dtype=np.float32)
    found = predictions(outputs, space)
    assert found.dtype == np.float64
    assert found.tolist() == [-30.0, 0.0, 60.0, -60.0]
    # Errors of 1, −2, 0 and −4 degrees.
    labels = np.array([-31.0, 2.0, 60.0, -56.0])
    assert measures(outputs, labels, space) == pytest.approx(
        {"mae": 7 / 4, "rmse": np.sqrt(21 / 4)}
    )
    with pytest.raises(BadInput, match=r"outputs \[n, 1\] are needed for these labels"):
        predictions(np.eye(4), space)


def test_input_that_means_nothing_is_refused():
    """No image, floats for pixels, labels of other images."""
    with pytest.raises(BadInput, match=r"uint8 \[0, 1, 8, 8\]"):
        outputs_of(lambda images: images, PIXELS[:0])
    with pytest.raises(BadInput, match="float32"):
        outputs_of(lambda images: images, PIXELS.astype(np.float32))
    for measure in (accuracy, mean_cross_entropy):
        with pytest.raises(BadInput, match=r"\[4, 4\] and \[3\]"):
            measure(np.eye(4), np.zeros(3, np.int64))
