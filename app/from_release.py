"""Trains a student from a release alone, or from a release and real images; evaluates networks."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from pydantic import TypeAdapter

from app.console import Console
from app.context import Facts, open_device, resolve_precision, write_metrics
from app.recipe import Recipe, recipe_of, with_overrides
from shardset.errors import BadInput, ReleaseError
from shardset.files import derive_seed, sha256_file
from shardset.images import decode_png
from shardset.labels import ContinuousLabels, LabelSettings, LabelSpace
from shardset.manifest import MANIFEST, Manifest, read_manifest, salted_hashes
from shardset.sources import SourceColumns, read_source
from shardset.splits import Budget, RealData, split_reals
from shardset.verify import verify_release
from student.batches import TrainingData
from student.evaluate import measures, outputs_of
from student.networks import load_network, save_network
from student.train import train_network

REAL_NONE = "none"


def train(
    release: Path,
    student: str,
    out: Path,
    *,
    console: Console,
    real: str,
    method: str,
    overrides: Sequence[str],
    seed: int,
    device: str,
) -> Facts:
    """Facts of one student trained on a release's accepted images, as its recipe trains students.

    The release is verified first. `real` adds the same split of a source's training images; a
    source whose training part holds the release's test images is refused. `method` is `labels`,
    or `hinton` from the teacher logits that the release carries.
    """
    if (out / "model.safetensors").exists():
        raise BadInput(f"{out} already holds a student; give another --out")
    if problems := verify_release(release):
        raise ReleaseError(f"{release}: {problems[0]}; not trained on")
    manifest = read_manifest(release)
    recipe = _recipe(manifest, student, overrides)
    training = recipe.student.training
    space = manifest.space
    methods = ("labels", "hinton") if space.task == "classification" else ("labels",)
    if method not in methods:
        raise BadInput(
            f"--method {method}: a release for {space.task} takes {' or '.join(methods)}"
        )
    if method == "labels":
        training = training.model_copy(update={"distillation": None})
    elif real != REAL_NONE:
        raise BadInput("--method hinton needs --real none: a release has no logits of real images")
    else:
        # Stored logits are of the image as it was produced.
        training = training.model_copy(update={"augment": "none"})
    training = training.model_copy(
        update={"steps": max(recipe.student.steps), "lr": recipe.student.learning_rates[0]}
    )
    pixels, labels, logits = read_accepted(release)
    if real == REAL_NONE:
        data = TrainingData(real_pixels=pixels, real_labels=labels, real_logits=logits)
    else:
        split = _reals_for(manifest, recipe, real, pixels.shape[1:])
        data = TrainingData(
            real_pixels=split.train_pixels,
            real_labels=split.train_labels,
            generated_pixels=pixels,
            generated_labels=labels,
        )
    chosen = open_device(device)
    with console.task(student) as progress:
        module, history = train_network(
            data,
            training,
            space=space,
            seed=derive_seed(recipe.seed, "student", seed),
            device=chosen,
            precision=resolve_precision(recipe.precision, chosen, pixels.shape[-1]),
            progress=progress,
        )
    facts = {
        "dataset": manifest.version,
        "manifest_sha256": sha256_file(release / MANIFEST),
        "label_space": space.model_dump(mode="json"),
        "input_range": [-1, 1],
        "training": training.model_dump(mode="json"),
        "real": real.partition(":")[0],
        "seed": seed,
    }
    channels, size = pixels.shape[1:3]
    sha256 = save_network(
        out,
        module,
        name=student,
        outputs=space.outputs,
        channels=channels,
        size=size,
        facts=facts,
    )
    write_metrics(out, history)
    console.note(f"{out / 'model.safetensors'}: {student}, {training.steps:,} steps")
    return {"folder": str(out), "sha256": sha256, **facts}


def read_accepted(release: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Pixels uint8 `[n, c, h, w]`, labels `[n]` and, of classes, teacher logits `[n, C]`."""
    pixels, labels, logits = [], [], []
    for path in sorted((release / "data" / "accepted").glob("*.parquet")):
        table = pq.read_table(path)
        pixels += [decode_png(image["bytes"]) for image in table["image"].to_pylist()]
        labels.append(table["label"].to_numpy())
        if "teacher_logits" in table.column_names:
            flat = table["teacher_logits"].combine_chunks().flatten().to_numpy()
            logits.append(flat.astype(np.float32).reshape(len(table), -1))
    return np.stack(pixels), np.concatenate(labels), np.concatenate(logits) if logits else None


def evaluate(
    model: Path, source: str, *, console: Console, overrides: Sequence[str], device: str
) -> Facts:
    """A trained network's accuracy in percent, or mean error, on the test images of a source.

    They are the source's own test split, else those that the recipe field `budget` and seed set
    apart; `overrides` are `path=value` of such fields.
    """
    network, config = load_network(model)
    settings = with_overrides({"columns": {}, "budget": {}, "seed": 0}, overrides)
    own = TypeAdapter[LabelSpace](LabelSpace).validate_python(config["label_space"])
    label = LabelSettings()
    if isinstance(own, ContinuousLabels):
        label = LabelSettings(unit=own.unit, range=(own.low, own.high), groups=own.groups)
    reals = read_source(
        source,
        size=config["size"],
        channels=config["channels"],
        columns=SourceColumns(**settings["columns"]),
        task=own.task,
        label=label,
    )
    if reals.space.outputs != config["outputs"]:
        raise BadInput(
            f"{source} has {reals.space.outputs} classes, {model} was trained for "
            f"{config['outputs']}"
        )
    split = split_reals(reals, Budget(**settings["budget"]), settings["seed"])
    chosen = open_device(device)
    outputs = outputs_of(network.to(chosen), reals.pixels[split.test], device=chosen)
    found = measures(outputs, reals.labels[split.test], own)
    words = ", ".join(f"{name} {value:.4g}" for name, value in found.items())
    console.note(f"{model} on {len(split.test):,} test images of {source}: {words}")
    return {**found, "images": len(split.test)}


def _recipe(manifest: Manifest, student: str, overrides: Sequence[str]) -> Recipe:
    data = manifest.facts.get("recipe")
    if not isinstance(data, dict):
        raise ReleaseError("the release's manifest holds no recipe to train students by")
    data = with_overrides(data, [f"student.training.network={student}", *overrides])
    return recipe_of(data, "of the release")


def _reals_for(manifest: Manifest, recipe: Recipe, source: str, shape: tuple[int, ...]) -> RealData:
    channels, size, _ = shape
    reals = read_source(
        source,
        size=size,
        channels=channels,
        columns=recipe.columns,
        task=recipe.task,
        label=recipe.label,
    )
    if reals.space != manifest.space:
        raise BadInput(
            f"{source} has the labels {_in_short(reals.space)}, the release "
            f"{_in_short(manifest.space)}"
        )
    data = RealData(reals, split_reals(reals, recipe.budget, seed=recipe.seed))
    real = manifest.facts["real"]
    used = salted_hashes([reals.pixel_hashes[i] for i in data.split.train], real["salt"])
    leaked = set(used) & set(real["hashes"]["test"])
    if leaked:
        raise BadInput(
            f"{source}: {len(leaked)} of its training images are test images of this release; "
            "train with the source and split that the release was made from"
        )
    return data


def _in_short(space: LabelSpace) -> str:
    if isinstance(space, ContinuousLabels):
        return f"{space.low!r} to {space.high!r} {space.unit} in {space.groups} parts"
    return f"{', '.join(space.names[:5])}{', …' if len(space.names) > 5 else ''}"
