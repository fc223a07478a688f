"""The generator's part of a recipe."""

import pytest
from pydantic import ValidationError

from cgankd.generator.config import GeneratorConfig, GeneratorTraining


def test_yaml_lists_and_whole_numbers_are_taken() -> None:
    """A recipe's lists become tuples and its whole numbers floats."""
    training = GeneratorTraining.model_validate({"augment": ["cutout"], "betas": [0, 1], "lr_g": 1})

    assert training.augment == ("cutout",)
    assert training.betas == (0.0, 1.0)


@pytest.mark.parametrize(
    ("record", "wrong"),
    [
        (GeneratorConfig, {"network": "stylegan"}),
        (GeneratorConfig, {"width": 12}),
        (GeneratorTraining, {"batch": 1}),
        (GeneratorTraining, {"iterations": "many"}),
        (GeneratorTraining, {"learning_rate": 1e-4}),
        (GeneratorTraining, {"checkpoint_every": 150}),
        (GeneratorTraining, {"kappa": 0.0}),
        (GeneratorTraining, {"vicinity": "medium"}),
        (GeneratorTraining, {"embedding": {"steps": 10}}),
    ],
)
def test_impossible_values_are_refused(
    record: type[GeneratorConfig] | type[GeneratorTraining], wrong: dict[str, object]
) -> None:
    """Unknown names, wrong types and values out of range."""
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        record.model_validate(wrong)
