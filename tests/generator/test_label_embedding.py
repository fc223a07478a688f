"""The label embedding: its published size, and that labels come back from it."""

from collections.abc import Mapping

import pytest
import torch

from cgankd.generator.config import EmbeddingTraining
from cgankd.generator.label_embedding import ImageToLabel, LabelEmbedding, train_label_embedding
from cgankd.shardset.errors import TrainingDiverged


def bars(count: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """8 × 8 images as bright as their label says."""
    targets = torch.linspace(0, 1, count)
    pixels = (targets * 255).round().to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    return pixels.contiguous(), targets


def test_y2h_has_the_published_size() -> None:
    """67,328 parameters under 18 names, as counted on the published code."""
    embedding = LabelEmbedding()

    assert sum(parameter.numel() for parameter in embedding.parameters()) == 67_328
    assert len(embedding.state_dict()) == 18
    assert embedding(torch.tensor([0.0, 0.5])).shape == (2, 128)


def test_x2y_in_its_published_form_is_a_resnet34_with_two_more_layers() -> None:
    """ResNet-34 has 21,284,672 below its classifier; here its stem is 3 × 3 (−7,680)."""
    net = ImageToLabel(16, 3, EmbeddingTraining(network="resnet34"))
    extra = (512 * 512 + 512 + 2 * 512) + (512 * 128 + 128 + 2 * 128) + (128 + 1)

    assert sum(p.numel() for p in net.parameters()) == 21_284_672 - 7_680 + extra
    assert net.eval()(torch.zeros(2, 3, 16, 16)).shape == (2,)


def test_labels_come_back_from_their_embedding() -> None:
    """Both errors are small after some hundred steps, and the same seed gives the same net."""
    config = EmbeddingTraining(image_steps=150, label_steps=300, batch=32)

    first, errors = train_label_embedding(*bars(), config, seed=1)
    second, _ = train_label_embedding(*bars(), config, seed=1)

    assert errors["label_reconstruction_error"] < 0.02
    assert errors["image_label_error"] < 0.05
    assert all(torch.equal(a, second.state_dict()[name]) for name, a in first.state_dict().items())


def test_an_embedding_that_loses_the_label_is_called_off() -> None:
    """With the error and the settings to change."""
    config = EmbeddingTraining(image_steps=1, label_steps=1, batch=8)

    with pytest.raises(
        TrainingDiverged, match=r"expected at most 0\.05; raise embedding\.label_st"
    ):
        train_label_embedding(*bars(), config, seed=1)


def test_the_embedding_reports_every_step_and_the_same_net_comes_out() -> None:
    """Both networks' steps in one count, with the loss; watching changes nothing."""
    config = EmbeddingTraining(image_steps=150, label_steps=300, batch=32)
    seen: list[tuple[int, int]] = []
    values: list[Mapping[str, float]] = []

    def progress(done: int, total: int, latest: Mapping[str, float]) -> None:
        seen.append((done, total))
        values.append(latest)

    watched, _ = train_label_embedding(*bars(), config, seed=1, progress=progress)
    unwatched, _ = train_label_embedding(*bars(), config, seed=1)

    assert seen == [(step, 450) for step in range(1, 451)]
    assert 0 <= values[-1]["label embedding loss"] < values[0]["label embedding loss"]
    for name, tensor in watched.state_dict().items():
        assert torch.equal(tensor, unwatched.state_dict()[name])


def test_a_timed_embedding_is_not_trained_to_its_end() -> None:
    """Ten steps of either network, whatever the recipe's numbers; no error is measured."""
    config = EmbeddingTraining(image_steps=10**6, label_steps=10**6, batch=8)
    counts: list[int] = []

    _, errors = train_label_embedding(
        *bars(), config, seed=1, stop_after=10, progress=lambda done, total, _: counts.append(done)
    )

    assert errors == {}
    assert counts == [*range(1, 11), *range(10**6 + 1, 10**6 + 11)]
