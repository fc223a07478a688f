"""Training that was cut short goes on and ends as if it had not been."""

import numpy as np
import pytest
import torch

from cgankd.nets.batches import TrainingData
from cgankd.nets.checkpoint import Checkpoint
from cgankd.nets.training import StudentTraining, train_network
from cgankd.shardset.errors import CheckpointError, StaleStage
from cgankd.shardset.testing import tiny_space
from cgankd.student.methods import Hinton

STEPS = 21


class Cut(Exception):
    """Stands for whatever ends a process."""


def images(seed, count):
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, 1, 8, 8), dtype=np.uint8), np.arange(count) % 3


class Translated(Hinton):
    """Learns to say the teacher's logits from the student's, by a layer of its own."""

    def build(self, student, teacher):
        return torch.nn.Linear(*student["logits"], *teacher["logits"])

    def loss(self, step):
        return (step.module(step.outputs) - step.batch.teacher_logits).square().mean(1)


def train(path, *, network="resnet8", optimiser="sgd", cut=None, every=0.0, seed=0, method=None):
    """A training whose progress ends it after step `cut`."""

    def progress(done, total, facts):
        if done == cut:
            raise Cut

    return train_network(
        TrainingData(*images(1, 20), *images(2, 50)),
        StudentTraining(
            network=network, steps=STEPS, batch=8, lr=0.01, optimiser=optimiser,
            augment="shift-flip",
        ),
        space=tiny_space(3),
        seed=seed,
        device=torch.device("cpu"),
        progress=progress,
        method=method,
        teacher=lambda images: images.mean((1, 2))[:, :3],
        checkpoint=Checkpoint(path, {"seed": seed}, every) if path else None,
    )  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        *(
            {"network": network, "optimiser": optimiser}
            for network in ("resnet8", "convnet-80k", "convnet-1k")
            for optimiser in ("sgd", "adam")
        ),
        {"network": "convnet-1k", "optimiser": "adam", "method": Translated()},
    ],
    ids=lambda options: "-".join(getattr(one, "kind", one) for one in options.values()),
)
def test_the_end_is_the_same_wherever_it_was_cut(tmp_path, options):
    """Weights and history, bit for bit; cut twice, between two averagings too, and with what a
    method trains beside the network.
    """
    whole, rows = train(None, **options)
    path = tmp_path / "checkpoint.safetensors"
    for cut in (6, 13):
        with pytest.raises(Cut):
            train(path, **options, cut=cut)
    resumed, resumed_rows = train(path, **options)

    assert resumed_rows == rows
    for name, tensor in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name


def test_what_was_done_is_not_done_again(tmp_path):
    """The first step after going on is the one after the checkpoint's."""
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Cut):
        train(path, cut=10)
    _, rows = train(path, cut=None)
    seen = [row["step"] for row in rows]

    assert seen == list(range(1, STEPS + 1))


def test_no_checkpoint_is_written_before_it_is_due(tmp_path):
    """Writing one takes longer than a step."""
    path = tmp_path / "checkpoint.safetensors"
    train(path, every=3600.0)

    assert not path.exists()


def test_a_checkpoint_of_other_settings_is_refused(tmp_path):
    """With the setting that changed."""
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Cut):
        train(path, cut=10)
    with pytest.raises(StaleStage, match="began with seed 0, now it is 1"):
        train(path, seed=1)


@pytest.mark.parametrize("keep", [0, 8, 100, -1])
def test_a_cut_checkpoint_is_refused(tmp_path, keep):
    """Wherever it was cut, in one line."""
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Cut):
        train(path, cut=10)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="is damaged; remove it to start anew"):
        train(path)


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    """Its tensors do not fit."""
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Cut):
        train(path, cut=10)
    with pytest.raises(CheckpointError, match="do not fit the network"):
        train(path, network="convnet-1k")


def test_a_checkpoint_can_be_removed(tmp_path):
    """Also one that was never written."""
    path = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Cut):
        train(path, cut=10)
    for _ in range(2):
        Checkpoint(path, {}).remove()
    assert not path.exists()
