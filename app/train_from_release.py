"""Trains a student from a release, by folder or Hub id, alone or with real images."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cgankd.app.console import Console
from cgankd.app.context import Facts, open_device, resolve_precision, write_metrics
from cgankd.app.recipe import Recipe, recipe_of, with_overrides
from cgankd.nets.batches import TrainingData
from cgankd.nets.checkpoint import EVERY_SECONDS, Checkpoint
from cgankd.nets.networks import save_network
from cgankd.nets.training import StudentTraining, train_network
from cgankd.shardset.errors import BadInput, ReleaseError
from cgankd.shardset.files import derive_seed, sha256_file
from cgankd.shardset.hub.client import Hub
from cgankd.shardset.hub.ids import release_at
from cgankd.shardset.hub.read import Opened, opened
from cgankd.shardset.labels import ContinuousLabels, LabelSpace
from cgankd.shardset.release.decoded import accepted_files, decoded_pixels, read_rows
from cgankd.shardset.release.manifest import MANIFEST, Manifest, salted_hashes
from cgankd.shardset.release.streamed import WINDOW_FILES, Stream, from_folder, from_hub
from cgankd.shardset.release.tables import ACCEPTED
from cgankd.shardset.sources.read import read_source
from cgankd.shardset.splits import RealData, split_reals
from cgankd.student.methods import Method, method_kinds, method_named

REAL_NONE = "none"
CHECKPOINT = "checkpoint.safetensors"
METADATA = "metadata/*"


@dataclass(frozen=True)
class Reading:
    """How a release is read.

    `offline` takes nothing but the cached copy of the pinned commit; `streaming` keeps a few files
    at a time, and none on disk; else the decoded images lie in `cache`, by default
    `HF_HOME/cgankd/decoded`.
    """

    offline: bool = False
    streaming: bool = False
    cache: Path | None = None


def train(
    dataset: str,
    student: str,
    out: Path,
    *,
    console: Console,
    real: str,
    method: str,
    overrides: Sequence[str],
    seed: int,
    device: str,
    reading: Reading = Reading(),
    checkpoint_seconds: float = EVERY_SECONDS,
) -> Facts:
    """Facts of one student trained on a release's accepted images, as its recipe trains students.

    `dataset` is a release folder or `user/name[@v1.2.0]`; it is pinned to a commit and verified
    first. `real` adds the same split of a source's training images; a source whose training part
    holds the release's test images is refused. `method` is `labels`, or a distillation method
    from the teacher logits that the release carries: a kind, or one the recipe sets. Killed and
    run again, it continues from its checkpoint.
    """
    if (out / "model.safetensors").exists():
        raise BadInput(f"{out} already holds a student; give another --out")
    torch_device = open_device(device)
    if reading.offline and reading.streaming and not isinstance(release_at(dataset), Path):
        raise BadInput("--streaming reads from the Hub and --offline forbids it; leave out one")
    # What cannot be is refused before any image is fetched.
    listed = opened(dataset, offline=reading.offline, only=[METADATA])
    _settings(listed.manifest, student, overrides, method, real)
    release = _opened(dataset, reading)
    manifest, space = release.manifest, release.manifest.space
    recipe, training, distillation = _settings(manifest, student, overrides, method, real)
    with ExitStack() as stack:
        data = _images(release, reading, console, stack, seed=seed, logits=distillation is not None)
        reals = None
        if real != REAL_NONE:
            split = _reals_for(manifest, recipe, real, data.image_shape)
            reals = split.reals.fingerprint
            data = replace(data, real_pixels=split.train_pixels, real_labels=split.train_labels)
        facts: Facts = {
            "dataset": {
                "id": release.repo_id,
                "version": release.version,
                "commit": release.commit,
                "manifest_sha256": sha256_file(release.folder / MANIFEST),
                "streamed": reading.streaming,
            },
            "label_space": space.model_dump(mode="json"),
            "input_range": [-1, 1],
            "training": training.model_dump(mode="json"),
            "method": distillation.model_dump(mode="json") if distillation else None,
            "real": real.partition(":")[0],
            "split": {
                "seed": recipe.seed,
                "budget": {"test_fraction": recipe.budget.test_fraction},
            },
            "seed": seed,
        }
        channels, size = data.image_shape[:2]
        precision = resolve_precision(recipe.precision, torch_device, size)
        fields = {**facts, "reals": reals, "precision": precision, "device": torch_device.type}
        checkpoint = Checkpoint(out / CHECKPOINT, fields, checkpoint_seconds)
        with console.task(student) as progress:
            module, history = train_network(
                data,
                training,
                space=space,
                seed=derive_seed(recipe.seed, "student", seed),
                device=torch_device,
                precision=precision,
                progress=progress,
                method=distillation,
                checkpoint=checkpoint,
            )
    write_metrics(out, history)
    sha256 = save_network(
        out,
        module,
        name=student,
        outputs=space.outputs,
        channels=channels,
        size=size,
        facts=facts,
    )
    checkpoint.remove()
    console.note(f"{out / 'model.safetensors'}: {student}, {training.steps:,} steps")
    return {"folder": str(out), "sha256": sha256, **facts}


def _opened(dataset: str, reading: Reading) -> Opened:
    """The release, verified: a folder whole, of a Hub id the files that are read."""
    if isinstance(release_at(dataset), Path):
        return opened(dataset)
    wanted = [] if reading.streaming else [f"{ACCEPTED}/*"]
    return opened(dataset, offline=reading.offline, only=[METADATA, *wanted])


def _settings(
    manifest: Manifest, student: str, overrides: Sequence[str], method: str, real: str
) -> tuple[Recipe, StudentTraining, Method | None]:
    """The release's recipe, how the student is trained by it, and the method (None: labels)."""
    recipe, space = _recipe(manifest, student, overrides), manifest.space
    methods = ["labels"]
    if space.task == "classification":
        methods += dict.fromkeys([*recipe.student.methods, *method_kinds()])
    for override in overrides:
        _require_use(override.partition("=")[0], space, method, real)
    if method not in methods:
        raise BadInput(
            f"--method {method}: a release for {space.task} takes {' or '.join(methods)}"
        )
    distillation = None
    settings: dict[str, Any] = {
        "steps": max(recipe.student.steps),
        "lr": recipe.student.learning_rates[0],
    }
    if method != "labels":
        if real != REAL_NONE:
            raise BadInput(
                f"--method {method} needs --real none: a release has no logits of real images"
            )
        distillation = method_named(method, recipe.student.methods)
        settings["augment"] = "none"  # stored logits are of the image as it was produced
    return recipe, recipe.student.training.model_copy(update=settings), distillation


def _require_use(path: str, space: LabelSpace, method: str, real: str) -> None:
    """Raises `BadInput` where a recipe field has no effect on a student trained from a release."""
    if path == "student.training.network":
        raise BadInput(f"--set {path} has no effect here: --student decides")
    only_with = {
        "student.training.distillation": (method == "hinton", "--method hinton"),
        "student.methods": (method != "labels", "--method NAME"),
        "student.training.augment": (method == "labels", "--method labels"),
        "student.training.regression_loss": (space.task == "regression", "labels that are numbers"),
        "student.training.generated_fraction": (real != REAL_NONE, "--real SOURCE"),
        **dict.fromkeys(("budget", "columns", "label"), (real != REAL_NONE, "--real SOURCE")),
    }
    for field, (used, condition) in only_with.items():
        if (path == field or path.startswith(f"{field}.")) and not used:
            raise BadInput(f"--set {path} has no effect here: it is read with {condition} alone")
    read = ("student.training", "student.steps", "student.learning_rates", "precision", "seed")
    if not any(path == field or path.startswith(f"{field}.") for field in (*read, *only_with)):
        raise BadInput(f"--set {path} has no effect here: train-student reads {', '.join(read)}")


def _images(
    release: Opened,
    reading: Reading,
    console: Console,
    stack: ExitStack,
    *,
    seed: int,
    logits: bool,
) -> TrainingData:
    """The accepted images of a release: as a stream that `stack` closes, or decoded."""
    if reading.streaming:
        files = len(accepted_files(release.manifest))
        if files > WINDOW_FILES:
            console.note(
                f"{release.version} has {files} files, and images are mixed within {WINDOW_FILES} "
                "of them at a time: where a file holds few labels, so do the batches"
            )
        fetch = from_folder(release.folder)
        if release.repo_id is not None and release.commit is not None:
            fetch = from_hub(Hub(), release.repo_id, release.commit)
        stream = Stream(release.manifest, fetch, seed=derive_seed("stream", seed), logits=logits)
        return TrainingData(generated_stream=stack.enter_context(stream))
    pixels = decoded_pixels(
        release.folder,
        release.manifest,
        reading.cache or default_cache(),
        note=console.note,
    )
    rows = read_rows(release.folder, release.manifest, logits=logits)
    return TrainingData(
        generated_pixels=pixels, generated_labels=rows.labels, generated_logits=rows.logits
    )


def default_cache() -> Path:
    """Where decoded images lie if nothing else is asked for: beside the Hub client's cache."""
    from huggingface_hub import constants

    return Path(constants.HF_HOME) / "cgankd" / "decoded"


def _recipe(manifest: Manifest, student: str, overrides: Sequence[str]) -> Recipe:
    data = manifest.lineage.recipe
    if data is None:
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
    real = manifest.lineage.real
    if real is None or real.salt is None or "test" not in real.hashes:
        raise ReleaseError(
            "the release does not say which real images are its test images, so none can be mixed "
            "in; train with --real none"
        )
    used = salted_hashes([reals.pixel_hashes[i] for i in data.split.train], real.salt)
    leaked = set(used) & set(real.hashes["test"])
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
