"""Recipes: presets are valid, mistakes are refused by name, what was resolved reads back."""

import pytest

from cgankd.app.recipe import load_recipe, preset_names, recipe_yaml
from cgankd.shardset.errors import RecipeError


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_is_valid_and_reads_back_from_its_own_yaml(name, tmp_path):
    """A resolved recipe written to a file is the same recipe."""
    recipe = load_recipe(name)
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe_yaml(recipe))

    assert recipe == load_recipe(str(path))


def test_the_four_presets_are_there():
    """What the README promises."""
    assert {"digits", "fashion-mnist", "cifar10", "cifar100"} <= set(preset_names())


def test_an_override_reaches_its_field_and_only_it():
    """`--set policy.rho=0.5` changes ρ alone."""
    before, after = load_recipe("digits"), load_recipe("digits", ["policy.rho=0.5"])

    assert after.policy.rho == 0.5
    assert before == after.model_copy(update={"policy": before.policy})


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("policy.roh=0.5", ["policy.roh", "did you mean rho"]),
        ("polcy.rho=0.5", ["polcy", "did you mean policy"]),
        ("policy.rho=2", ["policy.rho", "2"]),
        ("policy.rho=high", ["policy.rho", "high"]),
        ("seeds=3", ["seeds"]),
        ("arms=[no-kd, cgankd]", ["cgankd", "did you mean cgan-kd"]),
        ("arms=[raw]", ["no-kd"]),
        ("seed.deep.er=1", ["seed"]),
        ("policy.rho", ["path=value"]),
        ("student.training.network=resnet8x5", ["student.training.network", "resnet8x5"]),
        ("task=regresion", ["task"]),
        ("check.label_score=2", ["check.label_score", "classification", "check.agreement"]),
    ],
)
def test_a_mistake_is_refused_in_one_line_that_names_it(override, words):
    """The message holds the key, the value or the nearest valid name."""
    with pytest.raises(RecipeError) as caught:
        load_recipe("digits", [override])

    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_threshold_of_the_other_task_is_refused():
    """A share of right labels is no number of an angle; its like is named."""
    with pytest.raises(RecipeError, match=r"check\.agreement is of no use to task regression; set"):
        load_recipe("rotated-digits", ["check.agreement=0.9"])


def test_an_unknown_recipe_names_the_nearest_preset():
    """`digit` is answered with `digits`."""
    with pytest.raises(RecipeError, match="did you mean digits"):
        load_recipe("digit")


def test_a_file_that_is_no_mapping_is_refused(tmp_path):
    """A list, or text that is not YAML, names the file."""
    for text in ("- 1\n", "a: [\n"):
        path = tmp_path / "r.yaml"
        path.write_text(text)
        with pytest.raises(RecipeError, match=r"r\.yaml"):
            load_recipe(str(path))
