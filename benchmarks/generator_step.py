"""Processor time of a generator's training step against the same game played plainly.

`python -m benchmarks.generator_step [--preset …] [--threads …]`. The plain side has torch's own
spectral normalisation (a parametrisation a layer), doubles pixels and averages them in calls of
their own, and updates each weight by torch's Adam. Both sides alternate; the best of each counts.
ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 imitate a processor without AVX-512 and AMX.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from types import MethodType

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from cgankd.app.context import resolve_precision
from cgankd.app.recipe import load_recipe
from cgankd.generator import saved_form
from cgankd.generator.interface import AdversarialGenerator, ImageSpace
from cgankd.generator.layers import Conv2d, initialise, spectral_layers
from cgankd.generator.train import Training
from cgankd.shardset.labels import ClassLabels, ContinuousLabels, LabelSpace

CPU = torch.device("cpu")
SIZES = {"digits": 8, "rotated-digits": 16, "fashion-mnist": 28}
IMAGES = 240
ROUNDS, STEPS = 5, 10


class PlainAdam(torch.optim.Adam):
    """torch's Adam as it comes, a step and its end in one call."""

    def update(self) -> None:
        self.step()
        self.zero_grad()


def game(preset: str, folder: Path, *, plain: bool) -> Training:
    """A training on random images that logs, draws and saves nothing."""
    recipe, size = load_recipe(preset), SIZES[preset]
    space, labels = labels_of(recipe.task)
    pixels = np.random.default_rng(0).integers(0, 256, (IMAGES, 1, size, size), dtype=np.uint8)
    images = ImageSpace(size, 1, space)
    torch.manual_seed(0)
    generator = recipe.generator.network.generator(images)
    assert isinstance(generator, AdversarialGenerator)
    discriminator = generator.discriminator()
    for network in (generator, discriminator):
        initialise(network, "orthogonal")
        if plain:
            make_plain(network)
    never = 10**9
    training = recipe.generator.training.model_copy(
        update=dict.fromkeys(("log_every", "grid_every", "checkpoint_every", "iterations"), never)
    )
    fields = {
        "seed": 0,
        "precision": resolve_precision("auto", CPU, size),
        "network": saved_form(recipe.generator.network, images),
    }
    run = Training(generator, discriminator, training, folder, fields, CPU)
    if plain:
        rates = {"generator": training.lr_g, "discriminator": training.lr_d}
        for name, network in run.networks.items():
            trained = [weight for weight in network.parameters() if weight.requires_grad]
            run.optimisers[name] = PlainAdam(trained, rates[name], training.betas)
    run.take_images(pixels, labels)
    return run


def labels_of(task: str) -> tuple[LabelSpace, np.ndarray]:
    """A label space of the task and a label for each image."""
    if task == "regression":
        space = ContinuousLabels(unit="degrees", low=-60, high=60)
        return space, np.linspace(-60, 60, IMAGES)
    return ClassLabels(names=tuple("0123456789")), np.arange(IMAGES) % 10


def make_plain(network: nn.Module) -> None:
    """Gives a network torch's spectral normalisation in place of ours, and unfused layers."""
    for layer in spectral_layers(network):
        del layer.u0, layer.sv0
        spectral_norm(layer)
    for layer in network.modules():
        if isinstance(layer, Conv2d):
            layer.enlarged = MethodType(enlarged, layer)  # type: ignore[method-assign]
            layer.reduced = MethodType(reduced, layer)  # type: ignore[method-assign]
    network.spectral_layers = []  # type: ignore[assignment]


def enlarged(layer: Conv2d, x: Tensor) -> Tensor:
    """The convolution of `x` after each pixel became 2×2."""
    return layer(F.interpolate(x, scale_factor=2.0))


def reduced(layer: Conv2d, x: Tensor) -> Tensor:
    """The 2×2 averages of the convolution."""
    return F.avg_pool2d(layer(x), 2)


def main() -> None:
    """Prints processor milliseconds a step of both sides and their ratio, a line a preset."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--presets", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    instructions = os.environ.get("ONEDNN_MAX_CPU_ISA", "all that the processor has")
    print(f"instruction set: {instructions}")
    for preset in options.presets:
        for threads in options.threads:
            torch.set_num_threads(threads)
            with tempfile.TemporaryDirectory() as folder:
                sides = {
                    "plain": game(preset, Path(folder), plain=True),
                    "ours": game(preset, Path(folder), plain=False),
                }
                best = dict.fromkeys(sides, float("inf"))
                walls = dict.fromkeys(sides, float("inf"))
                for _ in range(ROUNDS):
                    for name, run in sides.items():
                        start, wall = time.process_time(), time.perf_counter()
                        for _ in range(STEPS):
                            run.advance()
                        best[name] = min(best[name], (time.process_time() - start) / STEPS)
                        walls[name] = min(walls[name], (time.perf_counter() - wall) / STEPS)
            print(
                f"{preset}, {SIZES[preset]} px, {threads} threads: plain {best['plain'] * 1e3:.1f} "
                f"CPU ms a step ({1 / walls['plain']:.1f} steps/s), ours {best['ours'] * 1e3:.1f} "
                f"({1 / walls['ours']:.1f} steps/s), ratio {best['plain'] / best['ours']:.2f}"
            )


if __name__ == "__main__":
    main()
