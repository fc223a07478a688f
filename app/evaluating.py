"""Measures a trained network on test images, and keeps the figures beside it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from cgankd.app.console import Console
from cgankd.app.context import Facts, open_device
from cgankd.app.recipe import with_overrides, without_place
from cgankd.nets.networks import load_network
from cgankd.shardset.errors import BadInput, CorruptShard
from cgankd.shardset.files import write_json
from cgankd.shardset.labels import ContinuousLabels, LabelSettings, LabelSpace
from cgankd.shardset.sources.read import SourceColumns, read_source
from cgankd.shardset.splits import Budget, split_reals
from cgankd.shardset.weights import weights_sha256
from cgankd.student.evaluate import measures, outputs_of

EVALUATION = "evaluation.json"


class Result(BaseModel):
    """A network's figures on the test images of one source."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    revision: str | None
    fingerprint: str = Field(description="of all the source's images")
    split: dict[str, object] = Field(description="budget and seed that set the test images apart")
    images: int
    figures: dict[str, float]


class Evaluation(BaseModel):
    """`evaluation.json`: what `evaluate` found of the weights with this hash."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = 1
    weights_sha256: str
    results: tuple[Result, ...]


def evaluate(
    model: Path, source: str, *, console: Console, overrides: Sequence[str], device: str
) -> Facts:
    """A trained network's accuracy in percent, or mean error, on the test images of a source.

    They are the source's own test split, else those that the recipe fields `budget` and `seed` set
    apart, as the release a student was trained from did; `overrides` are `path=value` of such
    fields. The figures are written to
    `evaluation.json` in the network's folder, in place of those found before on the same source.
    """
    network, config = load_network(model)
    settings = {"columns": {}, "budget": {}, "seed": 0, **config.get("split", {})}
    settings = with_overrides(settings, overrides)
    space = TypeAdapter[LabelSpace](LabelSpace).validate_python(config["label_space"])
    label = LabelSettings()
    if isinstance(space, ContinuousLabels):
        label = LabelSettings(unit=space.unit, range=(space.low, space.high), groups=space.groups)
    reals = read_source(
        source,
        size=config["size"],
        channels=config["channels"],
        columns=SourceColumns(**settings["columns"]),
        task=space.task,
        label=label,
    )
    if reals.space.outputs != config["outputs"]:
        raise BadInput(
            f"{source} has {reals.space.outputs} classes, {model} was trained for "
            f"{config['outputs']}"
        )
    split = split_reals(reals, Budget(**settings["budget"]), settings["seed"])
    torch_device = open_device(device)
    outputs = outputs_of(network.to(torch_device), reals.pixels[split.test], device=torch_device)
    figures = measures(outputs, reals.labels[split.test], space)
    words = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
    console.note(f"{model} on {len(split.test):,} test images of {source}: {words}")
    result = Result(
        source=without_place(source),
        revision=reals.revision,
        fingerprint=reals.fingerprint,
        split={"budget": settings["budget"], "seed": settings["seed"]},
        images=len(split.test),
        figures=figures,
    )
    _record(model, result)
    return {**figures, "images": len(split.test)}


def read_evaluation(model: Path) -> Evaluation | None:
    """What `evaluate` found of the weights that a folder holds now; None if nothing.

    `CorruptShard` for a file that is no evaluation.
    """
    path = model / EVALUATION
    if not path.is_file():
        return None
    try:
        evaluation = Evaluation.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise CorruptShard(f"{path} is not an evaluation; remove it and evaluate again") from error
    return evaluation if evaluation.weights_sha256 == weights_sha256(model) else None


def _record(model: Path, result: Result) -> None:
    before = read_evaluation(model)
    same = (result.source, result.split)
    others = [r for r in before.results if (r.source, r.split) != same] if before else []
    evaluation = Evaluation(weights_sha256=weights_sha256(model), results=(*others, result))
    write_json(model / EVALUATION, evaluation.model_dump(mode="json"))
