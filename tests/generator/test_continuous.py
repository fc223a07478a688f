"""A generator of continuous labels: trained, resumed, and put to work."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter

from cgankd.generator import BigGAN, GeneratorKind, load_generator
from cgankd.generator.config import EmbeddingTraining, GeneratorTraining, Vicinity
from cgankd.generator.produce import ProduceJob, made_again, produce_shard
from cgankd.generator.train import train_generator
from cgankd.shardset.errors import BadInput
from cgankd.shardset.files import read_json, sha256_file
from cgankd.shardset.identity import latents
from cgankd.shardset.images import decode_png, to_pixels
from cgankd.shardset.labels import ContinuousLabels
from cgankd.shardset.pool.plan import make_plan, write_plan
from cgankd.shardset.pool.shards import read_shard

CPU = torch.device("cpu")
SPACE = ContinuousLabels(unit="bar", low=-1, high=3, groups=4)
CONFIG = BigGAN(width=8, latent_dim=4)
TRAINING = GeneratorTraining(
    iterations=12, batch=8, d_steps=2, ema_start=4, log_every=4, grid_every=12, checkpoint_every=4,
    embedding=EmbeddingTraining(image_steps=60, label_steps=150, batch=16),
)  # fmt: skip


def bars(count: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """8 × 8 images, the brighter the higher the label, with some noise."""
    draws = np.random.default_rng(0)
    labels = draws.uniform(-1, 3, count)
    levels = (labels + 1) / 4 * 200 + 20
    noise = draws.integers(-20, 20, (count, 1, 8, 8))
    return (levels[:, None, None, None] + noise).astype(np.uint8), labels


def train(
    folder: Path,
    training: GeneratorTraining = TRAINING,
    config: GeneratorKind = CONFIG,
    **options: Any,
) -> dict[str, Any]:
    pixels, labels = bars()
    return train_generator(
        pixels, labels, SPACE, config, training, folder=folder, seed=3, device=CPU, **options
    )


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): sha256_file(path)
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("undisturbed")
    train(folder)
    return folder


def test_the_generator_holds_its_embedding_and_its_space(undisturbed: Path) -> None:
    """Loaded from its folder alone, it makes images of scaled labels."""
    generator, config = load_generator(undisturbed, CPU), read_json(undisturbed / "config.json")

    images = generator.sample(torch.randn(3, 4), torch.tensor([0.0, 0.5, 1.0]))
    grid = decode_png((undisturbed / "samples" / "0000012.png").read_bytes())

    assert config["space"] == SPACE.model_dump()
    assert generator.space == SPACE
    assert images.shape == (3, 1, 8, 8)
    assert grid.shape == (1, 9 * 9 - 1, 8 * 9 - 1)


@pytest.mark.parametrize("step", [0, 6])
def test_an_interrupted_run_ends_with_the_same_bytes(
    tmp_path: Path, undisturbed: Path, step: int
) -> None:
    """Before the first checkpoint the embedding is trained again, later it is in the checkpoint."""
    train(tmp_path, stop_after=step)
    facts = train(tmp_path)

    assert hashes(tmp_path) == hashes(undisturbed)
    assert 0 < facts["label_reconstruction_error"] < 0.05
    assert 0 < facts["image_label_error"] < 0.3


@pytest.mark.parametrize("vicinity", ["hard", "soft"])
def test_the_labels_are_learnt(tmp_path: Path, vicinity: Vicinity) -> None:
    """Samples of higher labels are brighter, almost without exception."""
    training = TRAINING.model_copy(
        update={
            "iterations": 300, "batch": 16, "d_steps": 1, "lr_g": 1e-3, "lr_d": 2e-3,
            "augment": ("translation",), "ema_decay": 0.98, "vicinity": vicinity, "log_every": 100,
            "grid_every": 300, "checkpoint_every": 300,
        }
    )  # fmt: skip
    train(tmp_path, training)
    generator = load_generator(tmp_path, CPU)
    targets = torch.linspace(0, 1, 64)

    with torch.no_grad():
        brightness = generator.sample(torch.randn(64, 4), targets).mean((1, 2, 3))

    assert np.corrcoef(brightness, targets)[0, 1] > 0.9


@pytest.mark.parametrize("network", ["biggan-cifar", "sngan", "sagan"])
def test_every_body_trains_with_either_loss(tmp_path: Path, network: str) -> None:
    """A few steps of vanilla loss, in bfloat16."""
    config = TypeAdapter(GeneratorKind).validate_python(
        {"kind": network, "width": 8, "latent_dim": 4}
    )
    training = TRAINING.model_copy(update={"iterations": 2, "loss": "vanilla"})

    facts = train(tmp_path, training, config, precision="bfloat16")

    assert facts["steps"] == 2
    assert np.isfinite([facts["loss_d"], facts["loss_g"]]).all()


def test_shards_keep_the_labels_as_they_are(undisturbed: Path, tmp_path: Path) -> None:
    """Float labels in their unit go into the rows; the network sees them scaled."""
    values = [-1.0, 0.30000000000000004, 3.0]
    plan = make_plan(
        seed=5, pool_id="0" * 16, shard_size=40, batch=16, threads=1, precision="float32",
        per_label=dict.fromkeys(values, 4),
    )  # fmt: skip
    write_plan(tmp_path / "plan.json", plan)
    network = load_generator(undisturbed, CPU)
    labels = np.repeat(values, 4)

    produce_shard(ProduceJob(undisturbed, tmp_path, 0, "settings"))
    pixels, rows = read_shard(tmp_path, 0)
    with torch.no_grad():
        scaled = torch.tensor((labels + 1) / 4, dtype=torch.float32)
        expected = to_pixels(network.sample(torch.from_numpy(latents(5, 0, 12, 4)), scaled))

    assert rows["label"].to_pylist() == labels.tolist()
    assert rows["condition"].to_pylist() == labels.tolist()
    assert np.abs(pixels.astype(int) - expected.astype(int)).max() <= 1
    again = [part for _, part in made_again(undisturbed, plan, [11, 0], CPU)]
    assert np.array_equal(np.concatenate(again), pixels[[0, 11]])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([0.0, 1, 2, 3.5]), r"label 3\.5 of sample 3 is not within -1 … 3 bar"),
        (np.array([0.0, np.nan, 2, 3]), "label nan of sample 1"),
        (np.array([2.0, 2, 2, 2]), "fewer than 2 different labels"),
        (np.array([0, 1, 2, 3]), "int64, expected float64"),
        (np.zeros((4, 2)), "one continuous label is supported"),
        (np.array([0.0, 1, 2]), "label for each of 4 images"),
    ],
)
def test_labels_that_cannot_be_learnt_are_refused(
    tmp_path: Path, labels: np.ndarray, message: str
) -> None:
    """Named, before anything is written."""
    pixels = np.zeros((4, 1, 8, 8), np.uint8)

    with pytest.raises(BadInput, match=message):
        train_generator(
            pixels, labels, SPACE, CONFIG, TRAINING, folder=tmp_path / "g", seed=0, device=CPU
        )

    assert not (tmp_path / "g").exists()


def test_the_embedding_s_progress_is_seen_before_the_generator_s(tmp_path: Path) -> None:
    """A console shows both as phases of one task: the count begins again."""
    seen: list[tuple[int, int]] = []

    train(tmp_path, stop_after=2, progress=lambda done, total, _: seen.append((done, total)))

    assert seen == [(step, 210) for step in range(1, 211)] + [(1, 12), (2, 12)]


def test_a_rehearsal_takes_a_few_steps_of_the_embedding_alone(tmp_path: Path) -> None:
    """As a dry run times them: ten of each of its networks, then those of the generator."""
    endless = EmbeddingTraining(image_steps=10**6, label_steps=10**6, batch=16)
    training = TRAINING.model_copy(update={"embedding": endless})
    seen: list[int] = []

    facts = train(
        tmp_path,
        training,
        stop_after=1,
        embedding_steps=10,
        progress=lambda done, total, _: seen.append(total),
    )

    assert facts == {"steps": 1}
    assert len(seen) == 21
