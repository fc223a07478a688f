"""The family of distillation methods: one class in one file each, told apart by `kind`.

A method's fields are its settings; `needs` says what it asks of a training, `build(shapes)` makes
what is trained along with the student, and `loss(step)` returns the loss of each sample
(`nets.training.Method`). To add one, write its file, name it in `Method`, and test it.
"""

from collections.abc import Mapping
from typing import Annotated, Any, get_args, get_origin

from pydantic import BeforeValidator

from cgankd.shardset.errors import BadInput
from cgankd.student.methods.hinton import Hinton

# With a second method: Annotated[Hinton | Other, Field(discriminator="kind")].
Method = Hinton


def with_kinds(methods: Any) -> Any:
    """A recipe's methods, each with its `kind`: where it has none, its name is that.

    >>> with_kinds({"hinton": {"alpha": 0.5}})
    {'hinton': {'kind': 'hinton', 'alpha': 0.5}}
    """
    if not isinstance(methods, Mapping):
        return methods
    return {
        name: {"kind": name, **settings} if isinstance(settings, Mapping) else settings
        for name, settings in methods.items()
    }


Methods = Annotated[dict[str, Method], BeforeValidator(with_kinds)]


def method_kinds() -> tuple[str, ...]:
    """The kinds of method that there are.

    >>> "hinton" in method_kinds()
    True
    """
    return tuple(_classes())


def method_named(name: str, methods: Mapping[str, Method]) -> Method:
    """The method called `name` among a recipe's `methods`, else that kind with default settings.

    `BadInput` for a name that is neither.

    >>> method_named("hinton", {}).temperature
    4.0
    """
    if name in methods:
        return methods[name]
    classes = _classes()
    if name not in classes:
        valid = ", ".join(dict.fromkeys([*methods, *classes]))
        raise BadInput(f"there is no distillation method {name!r}; valid: {valid}")
    return classes[name]()


def current_methods(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's data with its methods under `student.methods`, where they stand today.

    Older recipes have one alone, `student.training.distillation` without a kind; null leaves it
    to its defaults. What they say goes over the method called hinton.

    >>> current_methods({"student": {"training": {"distillation": {"alpha": 0.5}}}})
    {'student': {'training': {}, 'methods': {'hinton': {'kind': 'hinton', 'alpha': 0.5}}}}
    """
    current = dict(recipe)
    for part in ("teacher", "student"):
        section = recipe.get(part)
        if not isinstance(section, Mapping):
            continue
        training = section.get("training")
        if not isinstance(training, Mapping) or "distillation" not in training:
            continue
        old = training["distillation"]
        if part == "teacher" and old is not None:
            continue  # a teacher is not distilled: refused as an unknown key
        rest = {name: value for name, value in training.items() if name != "distillation"}
        current[part] = {**section, "training": rest}
        if isinstance(old, Mapping):
            methods = dict(section.get("methods") or {})
            methods["hinton"] = {"kind": "hinton", **methods.get("hinton", {}), **old}
            current[part]["methods"] = methods
    return current


def _classes() -> dict[str, type[Method]]:
    union = get_args(Method)[0] if get_origin(Method) is Annotated else Method
    return {one.model_fields["kind"].default: one for one in get_args(union) or (union,)}
