"""Training from a release against training from memory: `python -m benchmarks.train_from_release`.

In each round the same student is trained for one epoch on the same images lying in memory, from
the release as it comes (verifying and decoding it counted), from its decoded images mapped from
the disk as later epochs see them, and from the stream. Ratios are of images per second, within a
round. On a machine that others use too, `--clock processor` counts this process's time alone.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch

from cgankd.app.context import resolve_precision
from cgankd.nets.batches import TrainingData
from cgankd.nets.networks import NetworkName
from cgankd.nets.training import StudentTraining, train_network
from cgankd.shardset.hub.read import opened
from cgankd.shardset.labels import LabelSpace
from cgankd.shardset.release.build import Sources, build_release
from cgankd.shardset.release.decoded import decoded_pixels, read_rows
from cgankd.shardset.release.streamed import Stream, from_folder
from cgankd.shardset.testing import (
    described,
    tiny_facts,
    tiny_plan,
    tiny_space,
    write_tiny_pool,
    write_tiny_scores,
    write_tiny_selection,
)

Clock = Callable[[], float]

CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "processor": time.process_time}
CLASSES = 10
SIZE = 32
BATCH = 128
KEPT = 0.9  # of the samples, by the tiny selection


def main() -> None:
    """Prints the images per second of every round, then the median ratios and what is demanded."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--network", default="convnet-80k")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    options = parser.parse_args()
    device, clock = torch.device(options.device), CLOCKS[options.clock]
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        release = make_release(Path(folder), options.images)
        rounds = []
        # The first epoch of a process is slower, however it is trained.
        one_round(release, Path(folder) / "warm-up", options.network, device, clock)
        for number in range(options.rounds):
            cache = Path(folder) / f"cache-{number}"
            rounds.append(one_round(release, cache, options.network, device, clock))
            print("  ".join(f"{name} {value:,.1f}" for name, value in rounds[-1].items()))
    for name, demanded in (("first epoch", "0.7"), ("later epoch", "0.95"), ("stream", None)):
        ratio = median(found[name] / found["memory"] for found in rounds)
        note = f"  (demanded: at least {demanded})" if demanded else ""
        print(f"{name}: {ratio:.3f} of the speed from memory{note}")


def make_release(folder: Path, images: int) -> Path:
    """A release of about so many 32×32 colour images."""
    run = folder / "run"
    per_label = round(images / KEPT / CLASSES)
    plan = tiny_plan(per_label, CLASSES, shard_size=2000)
    write_tiny_pool(run / "pool", plan, size=SIZE, channels=3)
    write_tiny_scores(run / "scores", plan)
    write_tiny_selection(run / "selection.parquet", run / "scores")
    facts = tiny_facts(CLASSES)
    where = (run / "pool", run / "scores", run / "selection.parquet")
    return build_release(folder, "v1.0.0", Sources(*where, *described(facts), False)).folder


def one_round(
    release: Path, cache: Path, network: NetworkName, device: torch.device, clock: Clock
) -> dict[str, float]:
    """Images per second of one epoch each way, and the seconds before the first step."""
    space: LabelSpace = tiny_space(CLASSES)

    def seconds(work: Callable[[], object]) -> float:
        start = clock()
        work()
        return clock() - start

    def mapped() -> TrainingData:
        found = opened(str(release))
        pixels = decoded_pixels(found.folder, found.manifest, cache)
        rows = read_rows(found.folder, found.manifest, logits=False)
        return TrainingData(generated_pixels=pixels, generated_labels=rows.labels)

    def epoch(data: TrainingData) -> None:
        config = StudentTraining(network=network, batch=BATCH, steps=data.generated // BATCH)
        precision = resolve_precision("auto", device, SIZE)
        train_network(data, config, space=space, seed=0, device=device, precision=precision)

    def first() -> None:
        epoch(mapped())

    def streamed() -> None:
        found = opened(str(release))
        with Stream(found.manifest, from_folder(release), seed=0, logits=False) as stream:
            epoch(TrainingData(generated_stream=stream))

    from_nothing = seconds(first)
    opening = seconds(mapped)
    data = mapped()
    images = data.generated // BATCH * BATCH
    assert data.generated_pixels is not None
    in_memory = TrainingData(
        generated_pixels=np.array(data.generated_pixels), generated_labels=data.generated_labels
    )
    # Each before and after the other, since the machine's pace drifts.
    pairs = [(seconds(lambda: epoch(in_memory)), seconds(lambda: epoch(data))) for _ in range(2)]
    memory, later = (sum(pair[i] for pair in pairs) / len(pairs) for i in range(2))
    return {
        "images": float(data.generated),
        "memory": images / memory,
        "first epoch": images / from_nothing,
        "later epoch": images / later,
        "stream": images / seconds(streamed),
        "seconds to open again": opening,
    }


if __name__ == "__main__":
    main()
