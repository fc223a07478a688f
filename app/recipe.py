"""A recipe: every setting of a run in one strict, frozen record."""

import copy
import difflib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cgankd import generator
from cgankd.curation.density_ratio import RatioConfig
from cgankd.curation.neighbours.find import NeighbourConfig
from cgankd.curation.policies import Policy, current_names
from cgankd.generator import GeneratorKind
from cgankd.generator.config import GeneratorTraining
from cgankd.nets import feature_nets
from cgankd.nets.training import StudentTraining
from cgankd.shardset.errors import RecipeError
from cgankd.shardset.labels import LabelSettings
from cgankd.shardset.sources.read import SourceColumns
from cgankd.shardset.splits import Budget
from cgankd.student.arms import ARMS, Arm, arms_of
from cgankd.student.methods import Methods, current_methods, method_kinds

NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._+-]*"
# Selections that every run has, each the recipe's policy with parts left out.
BUILT_IN_SELECTIONS = ("raw", "subsampled", "filtered", "relabelled", "cgan-kd")
# Settings whose kind was called `network` until 0.1, and what reads them.
KINDS_ONCE_NETWORKS: Mapping[str, Callable[[Any], Any]] = {
    "generator.network": generator.with_kind,
    "ratio.features": feature_nets.with_kind,
}
# Fields of a student's training that the search sets.
DECIDED_BY = {
    "student.training.steps": "student.steps",
    "student.training.lr": "student.learning_rates",
}


class Record(BaseModel):
    """Unknown keys, wrong types and changes after reading are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ImageShape(Record):
    """Size and channels of every image; what is not given is taken from the source."""

    size: int | None = Field(None, ge=8, description="pixels a side")
    channels: Literal[1, 3] | None = Field(None, description="1 grey, 3 colour")


class TeacherRecipe(Record):
    """The strong network: trained here, or loaded."""

    data: Literal["budget", "all"] = Field(
        "budget",
        description="`budget`: trained on the labelled budget; `all`: on every training image "
        "(a strong network exists, the images at hand are few)",
    )
    weights: str | None = Field(
        None, description="a teacher of your own: a checkpoint, a .pt2 file or module:function"
    )
    mean: tuple[float, ...] | None = Field(
        None, description="channel means your teacher's inputs were normalised with, on [0, 1]"
    )
    std: tuple[float, ...] | None = Field(None, description="the standard deviations beside them")
    training: StudentTraining


class GeneratorRecipe(Record):
    """The conditional GAN: trained here, or taken from ajbrock/BigGAN-PyTorch's checkpoint."""

    weights: str | None = Field(
        None, description="a G_ema.pth of your own, of the form that `network` describes"
    )
    network: GeneratorKind
    training: GeneratorTraining


class PoolRecipe(Record):
    """How many samples are produced, and in what portions."""

    per_label: int = Field(gt=0, description="samples of each label in the first round")
    labels: int | None = Field(
        None, ge=2, description="continuous labels: how many, evenly spaced over their range"
    )
    shard_size: int = Field(1000, gt=0, description="samples in a shard")
    batch: int = Field(250, gt=0, description="the one recorded batch size; batches are padded")
    max_factor: float = Field(
        3.0, ge=1, description="a starving label is topped up to at most this many per_label"
    )


class StudentRecipe(Record):
    """The small network, and the settings every arm shares."""

    training: StudentTraining
    methods: Methods = Field(
        {}, description="settings of distillation methods by the name that an arm gives"
    )
    init: Literal["scratch", "no-kd"] = Field(
        "scratch",
        description="arms with generated images start anew (the paper's first version) or from "
        "the no-kd student (its final one)",
    )
    steps: tuple[int, ...] = Field(
        min_length=1, description="candidates; no-kd's validation chooses, then all arms share it"
    )
    learning_rates: tuple[float, ...] = Field(
        min_length=1, description="candidates; each arm's own validation chooses"
    )
    search_seeds: int = Field(2, ge=1, description="seeds averaged in both choices")


class CheckRecipe(Record):
    """What `cgankd check` lets pass, null: not checked; and how long its nets train."""

    memorised: float | None = Field(
        0.01, ge=0, le=1, description="largest share kept of copies of training images"
    )
    duplicates: float | None = Field(
        None, ge=0, le=1, description="largest share kept of near-duplicates beyond the first"
    )
    agreement: float | None = Field(
        None, ge=0, le=1, description="classes: least share kept whose label the judge tells"
    )
    label_score: float | None = Field(
        None, ge=0, description="continuous labels: largest mean |judge − label| in their unit"
    )
    auc: float | None = Field(
        None,
        ge=0.5,
        le=1,
        description="largest AUC of telling kept images from real ones, mean over labels",
    )
    judge_steps: int = Field(
        400, ge=1, description="training steps of the judge, which check and report ask"
    )
    learner_steps: int = Field(
        1000, ge=1, description="most training steps of the student that learns from kept images"
    )

    @property
    def limits(self) -> dict[str, float | None]:
        """The limits by name."""
        return self.model_dump(exclude={"judge_steps", "learner_steps"})


class CardRecipe(Record):
    """What the publisher states of the real set; the card of a release says what is not stated."""

    license: str | None = Field(
        None, description="of the real set: the Hub's identifier, such as cc-by-4.0, or text"
    )
    citation: str | None = Field(None, description="how the real set is cited: BibTeX or text")
    homepage: str | None = Field(None, description="where the real set is described")


class ReleaseRecipe(Record):
    """What a release says of where else its parts are."""

    generator_repo: str | None = Field(
        None, description="the model repository that holds the generator, so others can regenerate"
    )


class Recipe(Record):
    """Everything a run does; `cgankd run` writes the resolved one to `recipe.yaml`."""

    format_version: Literal[2] = 2
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    task: Literal["classification", "regression"]
    source: str = Field(
        description="digits, rotated-digits, idx:FOLDER, imagefolder:FOLDER, h5:FILE or "
        "hf:ID[@revision]"
    )
    label: LabelSettings = LabelSettings()
    columns: SourceColumns = SourceColumns()
    image: ImageShape = ImageShape()
    budget: Budget
    seed: int = Field(0, ge=0, description="split, teacher, generator, pool and ratio draw from it")
    seeds: tuple[int, ...] = Field((0,), min_length=1, description="one student per seed and arm")
    threads: int | None = Field(
        None,
        ge=1,
        description="threads of the training stages; if not given 1, for images above 32 px 2",
    )
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    teacher: TeacherRecipe
    generator: GeneratorRecipe
    pool: PoolRecipe
    ratio: RatioConfig = RatioConfig()
    neighbours: NeighbourConfig = NeighbourConfig()
    policy: Policy = Policy()
    check: CheckRecipe = CheckRecipe()
    card: CardRecipe = CardRecipe()
    release: ReleaseRecipe = ReleaseRecipe()
    student: StudentRecipe
    selections: dict[str, Policy] = Field(
        {}, description="policies by a name of your own, for arms to train from"
    )
    arms: dict[str, Arm] = Field(
        dict(ARMS), description="ways of training to compare, by name; a list picks built-in ones"
    )

    @field_validator("arms", mode="before")
    @classmethod
    def _built_in(cls, given: Any) -> Any:
        if not isinstance(given, list | tuple):
            return given
        for name in given:
            if name not in ARMS:
                raise ValueError(f"unknown arm {name!r}{nearest(str(name), ARMS)}")
        return {name: ARMS[name] for name in given}

    @model_validator(mode="after")
    def _arms_are_whole(self) -> "Recipe":
        if self.arms.get("no-kd") != ARMS["no-kd"]:
            raise ValueError(
                "arms must contain no-kd, as it is: its validation chooses everyone's steps"
            )
        for name in (*self.arms, *self.selections):
            if not re.fullmatch(NAME_PATTERN, name):
                raise ValueError(
                    f"{name!r} cannot name a folder: letters, digits and . _ + - alone"
                )
        for name in self.selections:
            if name in BUILT_IN_SELECTIONS:
                raise ValueError(f"selections.{name} is built in; give yours another name")
        selections = (*BUILT_IN_SELECTIONS, *self.selections)
        methods = (*self.student.methods, *method_kinds())
        for name, arm in self.arms.items():
            if arm.selection not in (None, *selections):
                raise ValueError(
                    f"arms.{name}.selection: there is no selection {arm.selection!r}"
                    f"{nearest(str(arm.selection), selections)}"
                )
            if arm.method not in (None, *methods):
                raise ValueError(
                    f"arms.{name}.method: there is no method {arm.method!r}"
                    f"{nearest(str(arm.method), methods)}"
                )
            if arm.method and arm.reals == "all" and self.student.training.augment == "none":
                raise ValueError(
                    f"arms.{name}: the teacher's logits are kept for the budget's images alone; "
                    "take reals: budget, or augment the students' images"
                )
        return self

    @model_validator(mode="after")
    def _task_is_kept_to(self) -> "Recipe":
        continuous = self.task == "regression"
        if continuous and (wrong := sorted(n for n, arm in self.arms.items() if arm.method)):
            raise ValueError(
                f"arm {wrong[0]!r} distils logits, and task regression has none; "
                f"valid: {', '.join(arms_of(self.task))}"
            )
        if continuous != (self.pool.labels is not None):
            given = "must be given for" if continuous else "is of no use to"
            raise ValueError(f"pool.labels {given} task {self.task}")
        if not continuous and self.label != LabelSettings():
            raise ValueError("label is of no use to task classification; set task: regression")
        useless, instead = ("agreement", "label_score")[:: 1 if continuous else -1]
        if getattr(self.check, useless) is not None:
            raise ValueError(
                f"check.{useless} is of no use to task {self.task}; set check.{instead}"
            )
        return self


def nearest(name: str, valid: Sequence[str] | Any) -> str:
    """`; did you mean X?` with the closest valid name, or the list of valid ones."""
    close = difflib.get_close_matches(name, list(valid), n=1)
    return f"; did you mean {close[0]}?" if close else f"; valid: {', '.join(valid)}"


def without_place(spec: str) -> str:
    """A source or weights file by its own name, where it is a file or folder of this machine:
    what is published must not say where somebody's images lie.
    """
    kind, separator, where = spec.partition(":")
    if not separator:
        kind, where = "", spec
    path = Path(where).expanduser()
    return f"{kind}{separator}{path.name}" if path.exists() else spec


def preset_names() -> list[str]:
    """The names of the recipes inside the package."""
    folder = resources.files("cgankd.app") / "recipes"
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name != "__init__.py")


def preset_text(name: str) -> str:
    """The YAML text of a recipe inside the package."""
    return (resources.files("cgankd.app") / "recipes" / f"{name}.yaml").read_text("utf-8")


def load_recipe(
    name_or_path: str,
    overrides: Sequence[str] = (),
    note: Callable[[str], None] | None = None,
) -> Recipe:
    """The recipe of a preset or a YAML file with `path=value` overrides applied.

    note: is given one line that names the new paths of fields that were named by old ones.
    Raises `RecipeError` that names the key, what was given and the nearest valid name.
    """
    if name_or_path in preset_names():
        text = preset_text(name_or_path)
    elif Path(name_or_path).is_file():
        text = Path(name_or_path).read_text("utf-8")
    else:
        raise RecipeError(
            f"no recipe {name_or_path!r}: neither a file nor a preset"
            f"{nearest(name_or_path, preset_names())}"
        )
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{name_or_path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(data, dict):
        raise RecipeError(f"{name_or_path} must be a mapping of recipe fields")
    return recipe_of(with_overrides(data, overrides, note), name_or_path)


def with_overrides(
    data: dict[str, Any],
    overrides: Sequence[str],
    note: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """A copy of plain data with `path=value` overrides applied; values are read as YAML.

    Old names of a policy and a generator, there and in overrides, become the current ones, of
    which `note` is given one line.
    """
    data = copy.deepcopy(data)
    renamed: list[str] = []
    if isinstance(data.get("policy"), Mapping):
        data["policy"], renamed = current_names(data["policy"])
    renamed += _name_kinds(data)
    for override in overrides:
        renamed += _apply_override(data, override)
    if renamed and note is not None:
        note("; ".join(dict.fromkeys(renamed)))
    return data


def recipe_of(data: dict[str, Any], where: str) -> Recipe:
    """The checked recipe of plain data; `where` names it in errors. A recipe of format 1 is read
    and becomes one of format 2.
    """
    if data.get("format_version") == 1:
        data = {**data, "format_version": 2}
    try:
        # Strict JSON mode: lists are tuples, but "3" is not 3 and 3.5 is not an integer.
        return Recipe.model_validate_json(json.dumps(current_methods(data), default=str))
    except ValidationError as error:
        raise RecipeError(f"recipe {where}: {_first_problem(error)}") from error


def recipe_yaml(recipe: Recipe) -> str:
    """The resolved recipe as YAML text, in the order of its fields."""
    return yaml.safe_dump(
        recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100
    )


def _apply_override(data: dict[str, Any], override: str) -> list[str]:
    """Sets one field; returns a line for an old name of it."""
    path, separator, text = override.partition("=")
    if not separator or not path:
        raise RecipeError(f"--set {override!r} is not path=value, like policy.filter.rho=0.8")
    if path in DECIDED_BY:
        raise RecipeError(f"--set {path} has no effect: {DECIDED_BY[path]} decides")
    lines = []
    for section in KINDS_ONCE_NETWORKS:
        if path == f"{section}.network":
            path = f"{section}.kind"
            lines.append(_now_kind(section))
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"--set {path}: {text!r} is not a YAML value") from error
    *parents, last = path.split(".")
    if parents[:1] == ["arms"] and not isinstance(data.get("arms"), dict):
        # An arm of one's own adds to those that were picked.
        picked = data.get("arms") or arms_of(data.get("task", "classification"))
        data["arms"] = {name: ARMS[name].model_dump() if name in ARMS else None for name in picked}
    if parents == ["policy"] and isinstance(policy := data.get("policy", {}), Mapping):
        data["policy"], renamed = current_names({last: value}, onto=policy)
        return renamed
    for depth, name in enumerate(parents):
        if data.get(name) is None:  # a slot that is empty is filled by its fields
            data[name] = {}
        data = data[name]
        if not isinstance(data, dict):
            raise RecipeError(f"--set {path}: {'.'.join(parents[: depth + 1])} has no fields")
    if last == "kind" and len(records := _located((*parents, value))[1]) == 1:
        # Another kind leaves behind the settings that it does not have.
        for name in data.keys() - records[0].model_fields.keys():
            del data[name]
    data[last] = value
    return lines


def _name_kinds(data: Mapping[str, Any]) -> list[str]:
    """Renames the fields that once named a kind; returns a line for each that was there."""
    lines = []
    for path, with_kind in KINDS_ONCE_NETWORKS.items():
        part, field = path.split(".")
        section = data.get(part)
        settings = section.get(field) if isinstance(section, dict) else None
        if isinstance(settings, Mapping) and "network" in settings:
            data[part][field] = with_kind(settings)
            lines.append(_now_kind(path))
    return lines


def _now_kind(path: str) -> str:
    return f"{path}.network is now {path}.kind"


def _first_problem(error: ValidationError) -> str:
    """One line: the key, what was wrong with it, and the nearest valid name."""
    problem = error.errors(include_url=False)[0]
    path, records = _located(problem["loc"])
    if problem["type"] == "extra_forbidden":
        valid = _located(problem["loc"][:-1])[1]
        return f"unknown key {path}{nearest(str(problem['loc'][-1]), _fields_of(valid))}"
    if problem["type"] == "union_tag_invalid":
        kind, kinds = problem["ctx"]["tag"], [k for r in records for k in _kinds_of(r)]
        return f"{path}.kind: there is no kind {kind!r}{nearest(str(kind), kinds)}"
    given = "" if problem["type"] == "missing" else f", got {problem['input']!r}"[:80]
    message = problem["msg"].removeprefix("Value error, ")
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{path + ': ' if path else ''}{message}{given if path else ''}{more}"


def _located(location: Sequence[str | int]) -> tuple[str, list[type[BaseModel]]]:
    """The dotted path of a location in `Recipe` as a file has it, and the records that may be
    there: pydantic's location names the kind in a union as well.
    """
    names: list[str] = []
    records: list[type[BaseModel]] = [Recipe]
    names_an_entry = False
    for part in location:
        if names_an_entry:  # of a mapping, such as an arm: any name, over the same records
            names.append(str(part))
            names_an_entry = False
            continue
        of_kind = [r for r in records if "kind" in r.model_fields and part in _kinds_of(r)]
        if of_kind and len(records) > 1:
            records = of_kind
            continue
        names.append(str(part))
        fields = [r.model_fields[part] for r in records if part in r.model_fields]
        records = _records_in(fields[0].annotation) if fields else []
        names_an_entry = bool(fields) and get_origin(fields[0].annotation) in (dict, Mapping)
    return ".".join(names), records


def _kinds_of(record: type[BaseModel]) -> tuple[str, ...]:
    return get_args(record.model_fields["kind"].annotation)


def _fields_of(records: Sequence[type[BaseModel]]) -> list[str]:
    return list(dict.fromkeys(name for record in records for name in record.model_fields))


def _records_in(annotation: Any) -> list[type[BaseModel]]:
    """The records among the members of an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    members = get_args(annotation)
    if get_origin(annotation) is Annotated:
        members = members[:1]
    return [record for member in members for record in _records_in(member)]
