"""Which planted faults are found? `python -m benchmarks.planted_faults [SOURCE]`

The pool is made of images that took no part in anything, each a little brighter or darker, in
place of good generated ones; into it faults are planted, each at 2 %. SOURCE names real images
(Fashion-MNIST), of which five labels that a teacher tells apart are taken.
"""

import argparse

import numpy as np
import torch

from cgankd.app.recipe import load_recipe
from cgankd.curation.neighbours.find import NeighbourConfig, RealFeatures, find_neighbours
from cgankd.curation.policies import Policy
from cgankd.curation.policies.neighbour_rules import Copies, Duplicates, Outliers
from cgankd.curation.policies.rule import Scores
from cgankd.curation.policies.selection import REASONS, select
from cgankd.curation.policies.teacher_rules import Agreement
from cgankd.nets.batches import TrainingData
from cgankd.nets.device import as_images
from cgankd.nets.feature_nets import Small, features_of, train_feature_net
from cgankd.nets.training import StudentTraining, train_network
from cgankd.shardset.labels import ClassLabels
from cgankd.shardset.sources.read import SourceColumns, read_source
from cgankd.student.teacher import Teacher

SHARE = 0.02
CPU = torch.device("cpu")
FAULTS = {
    "exact copies": "memorised",
    "copies ± 1": "memorised",
    "copies shifted by 1 px": "memorised",
    "noise": "outlier",
    "one label collapsed": "duplicate",
    "wrong labels": "teacher",
}
# All detectors of neighbours, in the order of a policy; the teacher's opinion apart.
BY_NEIGHBOURS = Policy(
    subsample=None,
    filter=None,
    copies=Copies(),
    outliers=Outliers(),
    duplicates=Duplicates(),
)
BY_TEACHER = Policy(subsample=None, filter=Agreement())
# What a detector is right to drop besides: such a sample is not what its label says.
ALSO_RIGHT = {"outlier": "wrong labels", "teacher": "noise"}


def main() -> None:
    """Prints precision and recall of each detector on each fault as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", nargs="?", default=load_recipe("fashion-mnist").source)
    parser.add_argument("--labels", type=int, nargs="+", default=[1, 2, 5, 8, 9])
    parser.add_argument("--reals", type=int, default=2500)
    parser.add_argument("--pool", type=int, default=10_000)
    parser.add_argument("--teacher-steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    images = read_source(options.source, size=None, channels=None, columns=SourceColumns())
    random = np.random.default_rng(options.seed)
    rows = random.permutation(np.flatnonzero(np.isin(images.labels, options.labels)))
    pixels = images.pixels[rows]
    labels = np.searchsorted(sorted(options.labels), images.labels[rows])
    space = ClassLabels(names=tuple(images.space.group_names[i] for i in sorted(options.labels)))
    reals, stop = options.reals, options.reals + options.pool
    real, real_labels = pixels[:reals], labels[:reals]
    pool, assigned, fault = planted(
        pixels[reals:stop], labels[reals:stop], real, real_labels, random
    )
    teacher = _teacher(pixels[stop:], labels[stop:], space, options.teacher_steps)
    logits = np.concatenate(
        [teacher(as_images(pool[i : i + 500])).numpy() for i in range(0, len(pool), 500)]
    )
    good = fault == ""
    right = (logits.argmax(1) == assigned)[good].mean()
    net = train_feature_net(
        real, real_labels, Small(), space=space, seed=0, device=CPU, precision="float32"
    )
    features, real_features = (
        features_of(net, some, device=CPU, precision="float32", batch=500).astype(np.float16)
        for some in (pool, real)
    )
    key = np.arange(len(pool))
    neighbours = find_neighbours(
        key,
        assigned,
        features,
        RealFeatures(real_features, real_labels, reals),
        NeighbourConfig(),
        space=space,
    )
    shifted = logits - logits.max(1, keepdims=True)
    error = np.log(np.exp(shifted).sum(1)) - shifted[key, assigned]
    everything = np.ones(len(pool), bool)
    scores = Scores(
        key=key,
        label=assigned,
        group=assigned,
        ratio=np.ones(len(pool)),
        teacher_label=logits.argmax(1),
        teacher_error=error.astype(np.float64),
        scored=everything,
    )
    print(
        f"{len(pool):,} samples, {len(real):,} real images, {len(space.names)} labels; the teacher "
        f"is right on {100 * right:.1f} % of good samples (demanded: 97 %)\n"
    )
    print("| fault | found by | recall | precision | good samples dropped |")
    print("|---|---|---|---|---|")
    uniforms = np.full(len(pool), 0.5)
    by_teacher = select(scores, BY_TEACHER, uniforms, everything)
    by_neighbours = select(scores, BY_NEIGHBOURS, uniforms, everything, neighbours)
    for name, detector in FAULTS.items():
        chosen = by_teacher if detector == "teacher" else by_neighbours
        dropped = chosen.reason == REASONS.index(detector)
        meant = [other for other, by in FAULTS.items() if by == detector]
        hits = dropped & np.isin(fault, [*meant, ALSO_RIGHT.get(detector, name)])
        found = (fault == name) & dropped
        # One image of a collapsed label is as good as any: all others are to go.
        wanted = np.count_nonzero(fault == name) - (name == "one label collapsed")
        print(
            f"| {name} | {detector} | {found.sum() / wanted:.3f} "
            f"| {hits.sum() / max(dropped.sum(), 1):.3f} "
            f"| {np.count_nonzero(dropped & good)} of {np.count_nonzero(good):,} |"
        )


def planted(
    pixels: np.ndarray,
    labels: np.ndarray,
    real: np.ndarray,
    real_labels: np.ndarray,
    random: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels and labels of a pool, and the name of each sample's fault, "" for good ones."""
    gain = random.uniform(0.9, 1.1, (len(pixels), 1, 1, 1))
    pool = (pixels * gain).clip(0, 255).round().astype(np.uint8)
    labels, fault = labels.copy(), np.full(len(pool), "", dtype=object)
    each, order = int(SHARE * len(pool)), random.permutation(len(pool))
    copied = random.permutation(len(real))
    for index, name in enumerate(FAULTS):
        rows = order[index * each : (index + 1) * each]
        fault[rows] = name
        origin = copied[(index * each + np.arange(each)) % len(real)]
        copies = real[origin]
        match name:
            case "copies ± 1":
                change = random.integers(-1, 2, copies.shape)
                copies = (copies.astype(int) + change).clip(0, 255).astype(np.uint8)
            case "copies shifted by 1 px":
                copies = np.concatenate([copies[..., :1], copies[..., :-1]], axis=-1)
        if "copies" in name:
            pool[rows], labels[rows] = copies, real_labels[origin]
        elif name == "noise":
            pool[rows] = random.integers(0, 256, copies.shape, dtype=np.uint8)
        elif name == "one label collapsed":
            one = rows[labels[rows] == 0][0]
            pool[rows], labels[rows] = pool[one], 0
        else:
            count = labels.max() + 1
            labels[rows] = (labels[rows] + random.integers(1, count, each)) % count
    return pool, labels, fault.astype(str)


def _teacher(pixels: np.ndarray, labels: np.ndarray, space: ClassLabels, steps: int) -> Teacher:
    network, _ = train_network(
        TrainingData(real_pixels=pixels, real_labels=labels),
        StudentTraining(steps=steps, generated_fraction=None),
        space=space,
        seed=0,
        device=CPU,
    )
    return Teacher(network, mean=None, std=None, device=CPU, precision="float32")


if __name__ == "__main__":
    main()
