"""The training loop: what it learns, what decides its result, and when it gives up."""

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from cgankd.nets.batches import TrainingData
from cgankd.nets.training import StudentTraining, learning_rate, train_network
from cgankd.shardset.errors import BadInput, CheckpointError, TrainingDiverged
from cgankd.shardset.labels import ContinuousLabels
from cgankd.shardset.testing import tiny_space
from cgankd.student.evaluate import accuracy, measures, outputs_of
from cgankd.student.methods import Hinton

CPU = torch.device("cpu")
QUICK = StudentTraining(network="convnet-1k", steps=60, batch=16, lr=0.05)


def stripes(count=48, seed=0):
    """Noisy images whose class is the quarter of the width that is bright."""
    random = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % 4
    pixels = random.integers(0, 120, (count, 1, 8, 8), dtype=np.uint8)
    for index, label in enumerate(labels):
        pixels[index, :, :, 2 * label : 2 * label + 2] += 100
    return pixels, labels


def train(config=QUICK, data=None, **options):
    options = {"space": tiny_space(4), "seed": 0, "device": CPU} | options
    return train_network(data or TrainingData(*stripes()), config, **options)


def changed(**fields):
    return StudentTraining(**(QUICK.model_dump() | fields))


def same(first, second):
    states = first.state_dict(), second.state_dict()
    return all(torch.equal(states[0][name], states[1][name]) for name in states[0])


@pytest.mark.parametrize(
    "config",
    [
        QUICK,
        changed(optimiser="adam", lr=0.01),
        changed(schedule="step", ema_decay=None),
        changed(augment="shift", steps=200),
        changed(network="resnet8", steps=30),
    ],
    ids=["sgd", "adam", "step-schedule", "shift", "batch-norm"],
)
def test_learns_a_simple_task(config):
    """New images of the same kind are told apart almost always."""
    network, _ = train(config)
    pixels, labels = stripes(400, seed=1)
    assert accuracy(outputs_of(network, pixels), labels) > 95


POSITIONS = ContinuousLabels(unit="mm", low=-3.0, high=3.0)


def bumps(count=64, seed=0):
    """Noisy images whose label is where a bright bump stands."""
    random = np.random.default_rng(seed)
    labels = np.linspace(-3, 3, count)
    heights = 120 * np.exp(-((np.arange(8) - 3.5 - labels[:, None]) ** 2) / 2)
    noise = random.uniform(0, 60, (count, 1, 8, 8))
    return (noise + heights[:, None, None, :]).astype(np.uint8), labels


@pytest.mark.parametrize(
    "config",
    [changed(regression_loss=kind, steps=300, ema_decay=0.9) for kind in ("mse", "l1", "huber")]
    + [changed(network="resnet8", steps=150, lr=0.05)],
    ids=["mse", "l1", "huber", "batch-norm"],
)
def test_learns_a_continuous_label(config):
    """Guessing the middle is 1.5 mm off; new images are told to a fraction of that."""
    network, history = train(config, TrainingData(*bumps()), space=POSITIONS)
    pixels, labels = bumps(100, seed=1)
    assert measures(outputs_of(network, pixels), labels, POSITIONS)["mae"] < 0.4
    assert history[-1]["loss"] < history[0]["loss"]


def test_seed_alone_decides_a_regression():
    """Equal seeds give equal bytes for continuous labels too, and their loss makes a difference."""
    options = {"data": TrainingData(*bumps()), "space": POSITIONS}
    assert same(train(**options)[0], train(**options)[0])
    assert not same(train(**options)[0], train(**options, seed=1)[0])
    assert not same(train(**options)[0], train(changed(regression_loss="l1"), **options)[0])


def test_continuous_labels_are_not_distilled():
    """Refused before the first step."""
    with pytest.raises(BadInput, match="distillation needs a teacher's logits"):
        train(QUICK, TrainingData(*bumps()), space=POSITIONS, method=Hinton())


def test_learns_in_bfloat16():
    """The result is near that of float32, and the weights are float32."""
    network, _ = train(precision="bfloat16")
    pixels, labels = stripes(400, seed=1)
    assert accuracy(outputs_of(network, pixels, precision="bfloat16"), labels) > 95
    assert {tensor.dtype for tensor in network.parameters()} == {torch.float32}


def test_seed_alone_decides_the_result():
    """Equal seeds give equal bytes whatever the global generator does, which stays as it was."""
    torch.manual_seed(1)
    first, history = train()
    state = torch.get_rng_state()
    torch.manual_seed(2)
    again, again_history = train()
    other, _ = train(seed=1)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)
    assert same(first, again)
    assert history == again_history
    assert not same(first, other)


def test_evaluation_does_not_change_the_training():
    """Looking on is free of consequences."""
    with_eval, _ = train(eval=lambda network: {"accuracy": 1.0})
    assert same(train()[0], with_eval)


def test_history_tells_loss_rate_images_and_ten_evaluations():
    """One row for each of at most a hundred points, the last one at the last step."""
    asked = []

    def evaluate(network):
        asked.append(network.training)
        return {"accuracy": 7.0}

    seen = []
    config = changed(steps=250)
    _, history = train(config, eval=evaluate, progress=lambda *facts: seen.append(facts))
    assert len(history) == 100
    assert history[-1]["step"] == 250
    assert history[-1]["images_seen"] == 250 * 16
    assert history[0]["loss"] > history[-1]["loss"]
    assert asked == [False] * 10
    assert [row["step"] for row in history if "accuracy" in row] == list(range(25, 251, 25))
    assert [facts[:2] for facts in seen] == [(row["step"], 250) for row in history]


def test_short_training_has_a_row_for_every_step():
    """Fewer steps than rows."""
    _, history = train(changed(steps=3), eval=lambda network: {"accuracy": 1.0})
    assert [row["step"] for row in history] == [1, 2, 3]
    assert all("accuracy" in row for row in history)


def test_average_lags_behind_the_last_weights():
    """Without averaging the last weights come back; with it, a mean over the steps before."""
    last, _ = train(changed(steps=40, ema_decay=None))
    averaged, _ = train(changed(steps=40, ema_decay=0.99))
    barely, _ = train(changed(steps=40, ema_decay=0.001))
    assert not same(last, averaged)
    for name, tensor in last.state_dict().items():
        torch.testing.assert_close(barely.state_dict()[name], tensor, rtol=1e-3, atol=1e-3)


def test_averaged_statistics_are_used_with_averaged_weights():
    """Batch-norm statistics move with the weights and count every step."""
    network, _ = train(changed(network="resnet8", steps=20))
    state = network.state_dict()
    assert state["bn1.num_batches_tracked"] == 20
    assert not torch.equal(state["bn1.running_mean"], torch.zeros(16))


def test_fine_tuning_starts_from_the_given_weights():
    """With a rate of almost nothing they hardly move; otherwise the seed's weights are replaced."""
    start, _ = train()
    tuned, _ = train(changed(lr=1e-9, steps=5), init=start.state_dict(), seed=9)
    for name, tensor in start.state_dict().items():
        torch.testing.assert_close(tuned.state_dict()[name], tensor, rtol=1e-4, atol=1e-4)


def test_fine_tuning_leaves_the_given_weights_alone():
    """They may be needed for the next arm."""
    start, _ = train()
    state = start.state_dict()
    before = {name: tensor.clone() for name, tensor in state.items()}
    train(init=state)
    assert all(torch.equal(state[name], before[name]) for name in before)


def test_distillation_follows_the_teacher_instead_of_the_labels():
    """Stored logits that name another class teach that class when alpha is 1."""
    pixels, labels = stripes()
    wrong = (labels + 1) % 4
    logits = np.where(np.arange(4) == wrong[:, None], 8, -8).astype(np.float16)
    network, _ = train(
        changed(steps=150),
        TrainingData(pixels, labels, real_logits=logits),
        method=Hinton(temperature=2.0, alpha=1.0),
    )
    fresh, expected = stripes(400, seed=1)
    assert accuracy(outputs_of(network, fresh), (expected + 1) % 4) > 95


def test_what_a_method_builds_is_trained_along():
    """A factor on the outputs moves from 1 towards the 2 that the loss asks for; the student's
    weights are those of the seed, whatever numbers the method draws for its own.
    """
    built = []

    class Scaled(Hinton):
        def build(self, student, teacher):
            built.append(torch.nn.Linear(1, 1, bias=False))
            torch.nn.init.ones_(built[-1].weight)
            return built[-1]

        def loss(self, step):
            fixed = step.outputs.detach()
            wrong = step.module.weight * fixed - 2 * fixed
            return wrong.square().mean(1) + 0 * step.outputs.sum(1)

    pixels, labels = stripes()
    data = TrainingData(pixels, labels, real_logits=np.zeros((48, 4), np.float16))
    options = {"config": changed(steps=100, weight_decay=0.0, ema_decay=None), "data": data}
    network, _ = train(**options, method=Scaled())
    assert 1.3 < built[0].weight.item() < 2.1
    start, _ = train(changed(steps=1, lr=1e-30, weight_decay=0.0, ema_decay=None))
    torch.testing.assert_close(network.state_dict(), start.state_dict())


def test_distillation_of_augmented_images_asks_the_teacher():
    """Stored logits are refused there, the teacher itself is taken."""
    config, method = changed(augment="shift", steps=5), Hinton(alpha=1.0, temperature=1.0)
    with pytest.raises(BadInput, match="stored teacher logits"):
        train(config, method=method)
    train(config, method=method, teacher=lambda images: images.flatten(1)[:, :4])


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_divergence_is_named_with_what_to_change(optimiser):
    """A rate far too large ends in a loss that is no number."""
    with pytest.raises(
        TrainingDiverged, match=r"convnet-1k: the loss .* became .* set lr below 1e\+"
    ):
        train(changed(lr=1e30, optimiser=optimiser))


def test_weights_of_another_network_are_refused():
    """Before any step."""
    other, _ = train(changed(steps=1), space=tiny_space(5))
    with pytest.raises(CheckpointError, match="the weights to start from"):
        train(init=other.state_dict())


def test_cosine_falls_from_the_given_rate_to_almost_nothing():
    """Half of the rate in the middle, always falling."""
    config = changed(steps=100, lr=0.2)
    rates = [learning_rate(config, step) for step in range(100)]
    assert rates[0] == 0.2
    assert math.isclose(rates[50], 0.1)
    assert rates[-1] < 1e-3
    assert rates == sorted(rates, reverse=True)


def test_step_schedule_divides_by_ten_at_the_given_fractions():
    """RepDistiller's 150, 180 and 210 of 240 epochs are the default fractions."""
    config = changed(steps=240, lr=1.0, schedule="step")
    rates = [learning_rate(config, step) for step in (0, 149, 150, 179, 180, 209, 210, 239)]
    np.testing.assert_allclose(rates, [1, 1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_settings_are_strict_and_come_from_yaml():
    """Lists and whole numbers are taken; unknown names and impossible values are not."""
    config = StudentTraining(lr=1, decay_at=[0.5, 0.9], generated_fraction=None, ema_decay=None)
    assert config.decay_at == (0.5, 0.9)
    for fields in (
        {"learning_rate": 1.0},
        {"network": "resnet9"},
        {"steps": 0},
        {"generated_fraction": 1.0},
        {"ema_decay": 1.0},
        {"augment": "rotate"},
        {"regression_loss": "mape"},
        {"steps": "many"},
    ):
        with pytest.raises(ValidationError):
            StudentTraining(**fields)


def test_a_network_for_numbers_starts_in_the_middle_of_the_range():
    """Before its first step it answers ½ whatever it sees, so the first loss is the labels' own."""
    space = ContinuousLabels(unit="bar", low=0, high=10)
    pixels = np.random.default_rng(0).integers(256, size=(8, 1, 16, 16), dtype=np.uint8)
    labels = np.linspace(0, 10, 8)
    _, history = train_network(
        TrainingData(real_pixels=pixels, real_labels=labels),
        StudentTraining(network="convnet-11k", steps=1, batch=8, lr=1e-9),
        space=space,
        seed=0,
        device=torch.device("cpu"),
    )

    assert history[0]["loss"] == pytest.approx(np.mean((labels / 10 - 0.5) ** 2), rel=1e-5)
