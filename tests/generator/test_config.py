"""The generator's part of a recipe."""

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from cgankd.generator import GeneratorKind
from cgankd.generator.config import GeneratorTraining


def test_yaml_lists_and_whole_numbers_are_taken() -> None:
    """A recipe's lists become tuples and its whole numbers floats."""
    training = GeneratorTraining.model_validate({"augment": ["cutout"], "betas": [0, 1], "lr_g": 1})

    assert training.augment == ("cutout",)
    assert training.betas == (0.0, 1.0)


@pytest.mark.parametrize(
    ("record", "wrong"),
    [
        (GeneratorKind, {"kind": "stylegan"}),
        (GeneratorKind, {"width": 12}),
        (GeneratorKind, {"kind": "sagan", "heads": 2}),
        (GeneratorTraining, {"batch": 1}),
        (GeneratorTraining, {"iterations": "many"}),
        (GeneratorTraining, {"learning_rate": 1e-4}),
        (GeneratorTraining, {"checkpoint_every": 150}),
        (GeneratorTraining, {"kappa": 0.0}),
        (GeneratorTraining, {"vicinity": "medium"}),
        (GeneratorTraining, {"embedding": {"steps": 10}}),
    ],
)
def test_impossible_values_are_refused(record: Any, wrong: dict[str, object]) -> None:
    """Unknown names, wrong types and values out of range."""
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        TypeAdapter(record).validate_python(wrong)


def test_a_kind_is_also_read_by_its_old_name_and_has_a_default() -> None:
    """`network` was the field's name; older recipes may leave it out."""
    adapter = TypeAdapter(GeneratorKind)

    assert adapter.validate_python({"network": "sagan", "width": 8}).kind == "sagan"
    assert adapter.validate_json('{"width": 8}').kind == "biggan-small"
    # An override that uses the old name prevails over the preset's.
    assert adapter.validate_python({"kind": "sngan", "network": "sagan"}).kind == "sagan"
