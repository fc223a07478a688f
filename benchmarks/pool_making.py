"""Producing and scoring a pool against bare forward passes and against the published loop:
`python -m benchmarks.pool_making RUN [--per-label N]`.

RUN is a run folder of classes whose generator, teacher and ratio are done. All sides use its
networks; counted is the processor time of all processes, start-up included.

- ours: `cgankd produce` and `cgankd score`.
- bare: the forward passes of the same networks on as many images, in padded batches, the spent
  time of these loops alone; and the whole process that does it.
- published: cGAN-KD's way (Ding et al., 2023): float32 NCHW, every batch moved to the CPU, one pass
  a stage; for each class three burn-ins of generated images that are thrown away, rejection, the
  teacher's cross-entropy below its quantile, until as many are kept as our policy keeps of
  N; then one gzip HDF5 file. Stated with its burn-ins and without.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path

from benchmarks.processor_time import spent

PUBLISHED_BURN_IN = 5  # times the images kept of a class: 5,000 for 1,000
BATCH = 250


def networks(run: Path):
    """Generator, teacher and ratio of a run, for the CPU."""
    import torch

    from cgankd.curation.density_ratio.model import load_ratio
    from cgankd.generator import load_generator
    from cgankd.nets.networks import load_network

    torch.set_num_threads(1)
    cpu = torch.device("cpu")
    return (
        load_generator(run / "generator", cpu),
        load_network(run / "teacher")[0],
        load_ratio(run / "ratio", cpu),
    )


def bare(run: Path, per_label: int) -> None:
    """Prints the processor seconds of the forward passes of all images, and nothing else's."""
    import torch

    generator, teacher, ratio = networks(run)
    draws = torch.from_numpy(generator.draws(0, range(BATCH)))
    start = time.process_time()
    with torch.inference_mode():
        for label in range(len(ratio.space.names)):
            labels = torch.full((BATCH,), label)
            for _ in range(-(-per_label // BATCH)):
                images = generator.sample(draws, labels)
                teacher(images)
                ratio.ratios(images, labels)
    print(time.process_time() - start)


def published(run: Path, per_label: int, burn_in: int, keep: int) -> None:
    """Writes `keep` images a class beside the run, made in the published way."""
    import h5py
    import numpy as np
    import torch
    import torch.nn.functional as F

    from cgankd.app.recipe import load_recipe
    from cgankd.curation.policies.subsampling import acceptance_factor

    policy = load_recipe(str(run / "recipe.yaml")).policy
    accept, rho = policy.subsample.accept, policy.filter.rho
    generator, teacher, ratio = networks(run)
    generator.to(memory_format=torch.contiguous_format)
    random = np.random.default_rng(0)

    def generated(label: int) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
        labels = torch.full((BATCH,), label)
        h = generator.linear(torch.randn(BATCH, generator.latent_dim))
        h = h.view(BATCH, -1, generator.bottom, generator.bottom)
        for (block,) in generator.blocks:
            h = block(h, labels)
        images = torch.tanh(generator.output_layer(h))
        edge = (images.shape[2] - generator.image_size) // 2
        end = edge + generator.image_size
        images = images[:, :, edge:end, edge:end].contiguous().cpu()
        return images, labels, ratio.ratios(images, labels).cpu().numpy()

    def subsampled(label: int, count: int) -> torch.Tensor:
        burnt = [generated(label)[2] for _ in range(-(-burn_in // BATCH))] or [np.ones(1)]
        factor = acceptance_factor(np.concatenate(burnt), accept) if burn_in else None
        parts, found = [], 0
        while found < count:
            images, _, ratios = generated(label)
            c = acceptance_factor(ratios, accept) if factor is None else factor
            passed = images[torch.from_numpy(random.random(BATCH) <= np.minimum(1, c * ratios))]
            parts.append(passed)
            found += len(passed)
        return torch.cat(parts)[:count]

    def errors(images: torch.Tensor, label: int) -> torch.Tensor:
        parts = [teacher(part.contiguous()).cpu() for part in images.split(BATCH)]
        return F.cross_entropy(
            torch.cat(parts), torch.full((len(images),), label), reduction="none"
        )

    kept = []
    with torch.inference_mode():
        for label in range(len(ratio.space.names)):
            first = subsampled(label, min(1000, keep))
            cut = errors(first, label).quantile(rho)
            parts: list[torch.Tensor] = []
            while sum(map(len, parts)) < keep:
                images = subsampled(label, -(-keep // 2))
                parts.append(images[errors(images, label) < cut])
            kept.append(torch.cat(parts)[:keep])
    pixels = ((torch.cat(kept) * 0.5 + 0.5) * 255).numpy().astype(np.uint8)
    with h5py.File(run / "fake_images.h5", "w") as file:
        file.create_dataset("fake_images", data=pixels, compression="gzip", compression_opts=6)
        file.create_dataset("fake_labels", data=np.repeat(np.arange(len(kept)), keep))


def main() -> None:
    """Prints the processor seconds of every side and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--per-label", type=int, default=10_000)
    parser.add_argument("--side", default="", help="what a child process does")
    options = parser.parse_args()
    count = options.per_label
    if options.side:
        side, *numbers = options.side.split(",")
        function = {"bare": bare, "published": published}[side]
        function(options.run, count, *map(int, numbers))
        return
    this = "benchmarks.pool_making"
    with tempfile.TemporaryDirectory() as name:
        run = Path(name)
        for part in ("teacher", "generator", "ratio"):
            shutil.copytree(options.run / part, run / part)
        for file in ("recipe.yaml", "run.json"):
            shutil.copy(options.run / file, run / file)
        make = ("-m", "cgankd.app", "produce", name, "--set", f"pool.per_label={count}")
        produced, scored = spent(*make)[0], spent("-m", "cgankd.app", "score", name)[0]
        common = ("-m", this, name, "--per-label", str(count), "--side")
        whole, said = spent(*common, "bare")
        keep = count * 45 // 100  # half pass the ratio, nine tenths of them the teacher
        burnt, _ = spent(*common, f"published,{PUBLISHED_BURN_IN * keep},{keep}")
        thrifty, _ = spent(*common, f"published,0,{keep}")
    ours = produced + scored
    print(f"ours       {ours:8.1f} s (produce {produced:.1f}, score {scored:.1f})")
    print(f"bare       {float(said):8.1f} s, with its process {whole:.1f} s")
    print(f"published  {burnt:8.1f} s, without burn-ins {thrifty:.1f} s")
    print(f"ratio to published     {ours / burnt:6.2f}  (demanded at 28 px: below 0.30)")
    print(f"ratio without burn-ins {ours / thrifty:6.2f}")
    print(f"ratio to the bare process {ours / whole:6.2f}")
    print(f"ratio to bare passes   {ours / float(said):6.2f}  (demanded at 8 px: at most 1.30)")


if __name__ == "__main__":
    main()
