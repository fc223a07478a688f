"""The training loop: what it leaves, that it repeats, and that it survives being killed."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from cgankd.generator import BigGAN, GeneratorKind, load_generator
from cgankd.generator.config import GeneratorTraining
from cgankd.generator.train import CHECKPOINT, train_generator
from cgankd.nets.checkpoint import HEADER
from cgankd.shardset.errors import BadInput, StaleStage, TrainingDiverged
from cgankd.shardset.files import PARTIAL, read_json, sha256_file
from cgankd.shardset.images import decode_png
from cgankd.shardset.testing import tiny_space

CPU = torch.device("cpu")
CONFIG = BigGAN(width=8, latent_dim=4)
TRAINING = GeneratorTraining(
    iterations=24, batch=8, d_steps=2, ema_start=4, log_every=4, grid_every=12, checkpoint_every=8
)


def halves(per_class: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """8 × 8 images, white on the left (0) or at the top (1), with some noise."""
    draws = np.random.default_rng(0)
    top = np.repeat([255, 0], 32).reshape(8, 8)
    clean = np.stack([top.T] * per_class + [top] * per_class)[:, None]
    noisy = np.clip(clean + draws.integers(-40, 40, clean.shape), 0, 255).astype(np.uint8)
    return noisy, np.repeat(np.array([0, 1]), per_class)


def train(
    folder: Path,
    training: GeneratorTraining = TRAINING,
    config: GeneratorKind = CONFIG,
    seed: int = 3,
    **options: Any,
) -> dict[str, Any]:
    pixels, labels = halves()
    return train_generator(
        pixels,
        labels,
        tiny_space(2),
        config,
        training,
        folder=folder,
        seed=seed,
        device=CPU,
        **options,
    )


def hashes(folder: Path) -> dict[str, str]:
    """Every file's sha256 by its path."""
    return {
        str(path.relative_to(folder)): sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of a run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("undisturbed")
    train(folder)
    return hashes(folder)


def test_a_run_leaves_weights_metrics_and_grids(tmp_path: Path) -> None:
    """The averaged generator loads and makes images; grids hold a row for each class."""
    seen = []

    facts = train(tmp_path, progress=lambda done, total, values: seen.append((done, total)))
    generator, config = load_generator(tmp_path, CPU), read_json(tmp_path / "config.json")
    images = generator.sample(torch.randn(3, 4), torch.tensor([0, 1, 1]))
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    grids = sorted((tmp_path / "samples").iterdir())

    assert seen == [(step, 24) for step in range(1, 25)]
    assert facts["sha256"] == sha256_file(tmp_path / "model.safetensors")
    assert facts["generator_parameters"] == sum(p.numel() for p in generator.parameters())
    space = {"task": "classification", "names": list(tiny_space(2).names)}
    assert {"image_size": 8, "channels": 1, "space": space}.items() <= config.items()
    assert images.shape == (3, 1, 8, 8)
    assert [json.loads(line)["step"] for line in lines] == [4, 8, 12, 16, 20, 24]
    assert [path.name for path in grids] == ["0000012.png", "0000024.png"]
    assert decode_png(grids[0].read_bytes()).shape == (1, 2 * 9 - 1, 8 * 9 - 1)
    assert checkpointed_step(tmp_path) == 24


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, undisturbed: dict[str, str]) -> None:
    """Whatever state the global random numbers are in, which stays as it was."""
    torch.manual_seed(99)
    before = torch.get_rng_state()

    train(tmp_path)

    assert hashes(tmp_path) == undisturbed
    assert torch.equal(before, torch.get_rng_state())


def test_another_seed_gives_other_weights(tmp_path: Path, undisturbed: dict[str, str]) -> None:
    """The seed reaches the networks."""
    facts = train(tmp_path, seed=4)

    assert facts["sha256"] != undisturbed["model.safetensors"]


@pytest.mark.parametrize("step", [0, 8, 13, 23])
def test_an_interrupted_run_ends_with_the_same_bytes(
    tmp_path: Path, undisturbed: dict[str, str], step: int
) -> None:
    """Metrics written after the last checkpoint, and half a line, are forgotten."""
    train(tmp_path, stop_after=step)
    if step:
        with open(tmp_path / "metrics.jsonl", "a") as file:
            file.write('{"step": 14, "lo')

    train(tmp_path)

    assert hashes(tmp_path) == undisturbed


def test_a_finished_run_is_not_trained_again(tmp_path: Path, undisturbed: dict[str, str]) -> None:
    """Called again, it only writes the same generator from its last checkpoint."""
    train(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    seen = []

    train(tmp_path, progress=lambda done, total, values: seen.append(done))

    assert seen == []
    assert hashes(tmp_path) == undisturbed


def test_a_checkpoint_half_written_is_not_taken_up(
    tmp_path: Path, undisturbed: dict[str, str]
) -> None:
    """The new one takes the place of the one before when it is whole, not earlier."""
    train(tmp_path, stop_after=10)
    whole = (tmp_path / CHECKPOINT).read_bytes()
    (tmp_path / f"{CHECKPOINT}{PARTIAL}").write_bytes(whole[:1000])

    train(tmp_path)

    assert hashes(tmp_path) == undisturbed


def checkpointed_step(folder: Path) -> int:
    """The step of the checkpoint in a generator's folder, 0 where there is none."""
    if not (folder / CHECKPOINT).is_file():
        return 0
    with safe_open(folder / CHECKPOINT, "pt") as file:
        return json.loads(file.metadata()[HEADER])["step"]


def _train_until_killed(folder: Path) -> None:
    torch.set_num_threads(1)
    train(folder, progress=lambda done, total, values: time.sleep(0.05))


def test_kill_9_at_any_moment_changes_nothing(tmp_path: Path, undisturbed: dict[str, str]) -> None:
    """Killed right after its first checkpoint, then again, then left alone."""
    spawn = multiprocessing.get_context("spawn")
    for step in (8, 16):
        process = spawn.Process(target=_train_until_killed, args=(tmp_path,))
        process.start()
        while checkpointed_step(tmp_path) != step:
            assert process.exitcode is None, "training ended before it could be killed"
            time.sleep(0.005)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()

    train(tmp_path, threads=1)

    assert hashes(tmp_path) == undisturbed


def test_other_settings_do_not_continue_a_checkpoint(tmp_path: Path) -> None:
    """The part of the settings that changed is named, and the way out."""
    train(tmp_path, stop_after=8)
    other = TRAINING.model_copy(update={"lr_g": 1e-3})

    with pytest.raises(StaleStage, match=r"training .*0\.001.*--redo generator"):
        train(tmp_path, other)


def test_a_learning_rate_that_explodes_is_called_off(tmp_path: Path) -> None:
    """Within a line of metrics.jsonl, naming the step; no generator is written."""
    wild = TRAINING.model_copy(update={"lr_g": 1e38, "lr_d": 1e38})

    with pytest.raises(TrainingDiverged, match="at step 4; lower lr_g"):
        train(tmp_path, wild)

    assert not (tmp_path / "model.safetensors").exists()


def test_a_class_without_images_is_refused(tmp_path: Path) -> None:
    """By its number, before anything is written."""
    pixels, labels = halves()

    with pytest.raises(BadInput, match="class 2 of 3 has no images"):
        train_generator(
            pixels,
            labels,
            tiny_space(3),
            CONFIG,
            TRAINING,
            folder=tmp_path / "g",
            seed=0,
            device=CPU,
        )

    assert not (tmp_path / "g").exists()


@pytest.mark.parametrize(
    ("pixels", "labels", "message"),
    [
        (np.zeros((4, 1, 8, 9), np.uint8), np.array([0, 1, 0, 1]), "square uint8"),
        (np.zeros((4, 1, 8, 8), np.float32), np.array([0, 1, 0, 1]), "square uint8"),
        (np.zeros((4, 1, 8, 8), np.uint8), np.array([0, 1, 0]), "label for each of 4"),
        (np.zeros((4, 1, 8, 8), np.uint8), np.array([0.0, 1, 0, 1]), "int64"),
    ],
)
def test_wrong_arrays_are_refused(
    tmp_path: Path, pixels: np.ndarray, labels: np.ndarray, message: str
) -> None:
    """Shape and type are named."""
    with pytest.raises(BadInput, match=message):
        train_generator(
            pixels, labels, tiny_space(2), CONFIG, TRAINING, folder=tmp_path, seed=0, device=CPU
        )


def test_one_image_per_class_and_colour_train_too(tmp_path: Path) -> None:
    """The smallest budget there is: no spread to compare with, in bfloat16, in the CIFAR form."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8)).astype(np.uint8)
    config = BigGAN(kind="biggan-cifar", width=8, latent_dim=4)
    training = TRAINING.model_copy(update={"iterations": 4, "prior": "balanced"})

    facts = train_generator(
        pixels,
        np.array([0, 1]),
        tiny_space(2),
        config,
        training,
        folder=tmp_path,
        seed=0,
        device=CPU,
        precision="bfloat16",
    )

    assert facts["variety"] == 1.0


def test_the_labels_are_learnt(tmp_path: Path) -> None:
    """After some hundred steps, samples of a class lie nearer to its images than to the other's."""
    training = GeneratorTraining(
        iterations=300, batch=16, lr_g=1e-3, lr_d=2e-3, augment=("translation",), ema_decay=0.98
    )
    train(tmp_path, training)
    generator = load_generator(tmp_path, CPU)
    labels = torch.tensor([0, 1]).repeat_interleave(32)

    with torch.no_grad():
        samples = generator.sample(torch.randn(64, 4), labels)
    left = samples[:, :, 4:, :4].mean((1, 2, 3))
    right = samples[:, :, :4, 4:].mean((1, 2, 3))

    assert ((left > right) == (labels == 0)).float().mean() > 0.9


@pytest.mark.parametrize(("prior", "share"), [("keep", 0.75), ("balanced", 0.5)])
def test_the_prior_is_kept_or_balanced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prior: str, share: float
) -> None:
    """Labels that the discriminator sees, real and generated, over a short run."""
    from cgankd.generator import residual as module

    seen: list[torch.Tensor] = []

    class Watching(module.ProjectionDiscriminator):
        def forward(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
            seen.append(labels.view(-1, 8))
            return super().forward(images, labels)

    monkeypatch.setattr(module, "ProjectionDiscriminator", Watching)
    pixels, labels = halves()
    pixels, labels = pixels[:8], labels[:8]  # six of class 0, two of class 1
    training = TRAINING.model_copy(update={"iterations": 60, "prior": prior})

    train_generator(
        pixels, labels, tiny_space(2), CONFIG, training, folder=tmp_path, seed=0, device=CPU
    )
    real = torch.cat([batch[0] for batch in seen if len(batch) == 2])
    fake = torch.cat([batch[-1] for batch in seen])

    assert (real == 0).float().mean().item() == pytest.approx(share, abs=0.05)
    assert (fake == 0).float().mean().item() == pytest.approx(share, abs=0.05)
