"""Recipes: presets are valid, mistakes are refused by name, what was resolved reads back."""

import re

import pytest
import yaml

from cgankd.app.recipe import load_recipe, preset_names, preset_text, recipe_of, recipe_yaml
from cgankd.curation.policies import Policy
from cgankd.shardset.errors import BadInput, RecipeError
from cgankd.student.arms import Arm


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
    """`--set policy.filter.rho=0.5` changes ρ alone."""
    before, after = load_recipe("digits"), load_recipe("digits", ["policy.filter.rho=0.5"])

    assert after.policy.filter.rho == 0.5
    assert before == after.model_copy(update={"policy": before.policy})


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("policy.filter.roh=0.5", ["unknown key policy.filter.roh", "did you mean rho"]),
        ("policy.filtre=band", ["policy.filtre", "did you mean filter"]),
        ("policy.filter.kind=bands", ["policy.filter.kind", "did you mean band"]),
        ("policy.filter=bands", ["policy.filter.kind", "did you mean band"]),
        ("policy.filter.low=0.2", ["unknown key policy.filter.low"]),
        ("policy.band_low=0.2", ["unknown key policy.filter.low"]),
        ("policy.quota.kind=farthest-first", ["policy.quota.kind", "did you mean farthest"]),
        ("polcy.rho=0.5", ["polcy", "did you mean policy"]),
        ("policy.rho=2", ["policy.filter.rho", "2"]),
        ("policy.filter.rho=high", ["policy.filter.rho", "high"]),
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


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (["policy.rho=0.5"], ["policy.filter.rho=0.5"]),
        (
            ["policy.filter=band", "policy.band_low=0.2"],
            ["policy.filter.kind=band", "policy.filter.low=0.2"],
        ),
        (["policy.filter=none"], ["policy.filter=null"]),
        (["policy.subsample=rejection"], ["policy.subsample={kind: rejection}"]),
        (["policy.memorised=0.9"], ["policy.copies.threshold=0.9"]),
        (["policy.duplicates=calibrated"], ["policy.duplicates.threshold=calibrated"]),
        (["policy.relabel=true"], ["policy.relabel.kind=teacher"]),
        (["policy.quota=7", "policy.diversity=kmeans"], ["policy.quota={kind: kmeans, size: 7}"]),
        (["policy.quota=null"], ["policy.quota=null"]),
    ],
)
def test_old_names_of_a_policy_are_read_and_the_new_path_is_said(old, new):
    """Until 0.1 a policy was flat; one line names where each field is now."""
    lines = []
    recipe = load_recipe("digits", old, lines.append)

    assert recipe == load_recipe("digits", new)
    if old == ["policy.rho=0.5"]:
        assert lines == ["policy.rho is now policy.filter.rho"]


def test_another_kind_keeps_the_settings_that_it_has():
    """A preset's ρ is a band's too, and of no use to agreement; a quota's size stays."""
    band = load_recipe("digits", ["policy.filter.kind=band"]).policy.filter
    agreement = load_recipe("digits", ["policy.filter.kind=agreement"]).policy.filter
    quota = load_recipe("digits", ["policy.quota.kind=farthest"]).policy.quota

    assert (band.kind, band.rho) == ("band", 0.9)
    assert agreement.model_dump() == {"kind": "agreement", "within": None}
    assert (quota.kind, quota.size) == ("farthest", 800)


def test_an_old_recipe_file_means_what_it_meant(tmp_path):
    """All of its flat fields were written; those that its kinds make idle are left out."""
    flat = {
        "subsample": "none", "accept": 0.5, "filter": "quantile", "scope": "global", "rho": 0.7,
        "band_low": 0.1, "agreement_within": None, "memorised": None, "outliers": 3.0,
        "duplicates": None, "relabel": True, "quota": 9, "diversity": "none",
    }  # fmt: skip
    path = tmp_path / "old.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(preset_text("digits")), "policy": flat}))
    policy = load_recipe(str(path)).policy

    assert policy.model_dump() == {
        "subsample": None,
        "filter": {"kind": "quantile", "rho": 0.7, "scope": "global"},
        "copies": None,
        "outliers": {"kind": "distance", "threshold": 3.0},
        "duplicates": None,
        "relabel": {"kind": "teacher"},
        "quota": {"kind": "lowest-keys", "size": 9},
    }
    assert Policy.model_validate(flat) == policy
    assert load_recipe(str(path), ["policy.filter.rho=0.8"]).policy.filter.rho == 0.8


def test_a_field_that_would_have_no_effect_is_refused_by_name():
    """An old name of a slot that is null, and a field of another kind."""
    with pytest.raises(BadInput, match=r"policy\.rho is now policy\.filter\.rho.*no effect"):
        load_recipe("digits", ["policy.filter=null", "policy.rho=0.5"])
    with pytest.raises(RecipeError, match=r"unknown key policy\.filter\.rho"):
        load_recipe("digits", ["policy.filter=agreement", "policy.rho=0.5"])


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


def test_distillation_is_read_where_older_recipes_have_it():
    """What is set there goes over the preset's method; the resolved recipe has the new place."""
    preset = load_recipe("digits").student.methods["hinton"]
    recipe = load_recipe("digits", ["student.training.distillation.temperature=7.0"])
    assert recipe.student.methods["hinton"] == preset.model_copy(update={"temperature": 7.0})
    assert "distillation" not in recipe_yaml(recipe)


def test_a_generator_s_old_names_are_read_and_the_new_ones_are_told(tmp_path):
    """In a file and in an override, with one line; a kind set anew prevails over a file's."""
    old = tmp_path / "old.yaml"
    old.write_text(preset_text("digits").replace("    kind: biggan-small", "    network: sngan"))
    notes = []

    assert load_recipe(str(old), note=notes.append).generator.network.kind == "sngan"
    assert load_recipe(str(old), ["generator.network.kind=sagan"]).generator.network.kind == "sagan"
    again = load_recipe("digits", ["generator.network.network=biggan-cifar"], notes.append)
    assert again.generator.network.kind == "biggan-cifar"
    assert notes == ["generator.network.network is now generator.network.kind"] * 2


def test_a_feature_net_s_old_names_are_read_and_the_new_ones_are_told(tmp_path):
    """An old recipe names the settings of every kind; what its own does not have is left out."""
    old = tmp_path / "old.yaml"
    settings = "{network: resnet34, width: 32, sparsity: 0.001, label_weight: 1.0, dim: 3072,"
    old.write_text(preset_text("cifar10").replace("{kind: resnet34, dim: 3072,", settings))
    notes = []

    recipe = load_recipe(str(old), note=notes.append)
    assert recipe.ratio == load_recipe("cifar10").ratio
    again = load_recipe("cifar10", ["ratio.features.network=small"], notes.append)
    assert (again.ratio.features.kind, again.ratio.features.dim) == ("small", 3072)
    assert notes == ["ratio.features.network is now ratio.features.kind"] * 2
    with pytest.raises(RecipeError, match=r"unknown key ratio\.features\.width"):
        load_recipe("cifar10", ["ratio.features.width=16"])


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("generator.network.widht=8", "unknown key generator.network.widht; did you mean width?"),
        ("generator.network.width=9", "generator.network.width: Input should be a multiple of 8"),
        ("generator.network.kind=sagn", "generator.network.kind: there is no kind 'sagn'; did"),
    ],
)
def test_a_generator_s_wrong_settings_are_named_as_the_recipe_has_them(override, problem):
    """Without pydantic's name of the kind in the path."""
    with pytest.raises(RecipeError, match=re.escape(problem)):
        load_recipe("digits", [override])


def test_arms_of_ones_own_are_recipe_data_and_add_to_those_picked():
    """A selection and a method by name; a list picks built-in arms."""
    recipe = load_recipe(
        "digits",
        [
            "arms=[no-kd, cgan-kd]",
            "selections.strict.filter.rho=0.5",
            "arms.mine.selection=strict",
            "arms.mine.method=hinton",
        ],
    )

    assert list(recipe.arms) == ["no-kd", "cgan-kd", "mine"]
    assert recipe.arms["mine"] == Arm(selection="strict", method="hinton")
    assert recipe.selections["strict"].filter.rho == 0.5
    assert recipe_of(yaml.safe_load(recipe_yaml(recipe)), "again") == recipe


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("arms.mine.selection=rwa", "no selection 'rwa'; did you mean raw"),
        ("arms.mine.method=hintn", "no method 'hintn'; did you mean hinton"),
        ("arms.no-kd.compute=2", "must contain no-kd, as it is"),
        ("arms.mine.sel=raw", "unknown key arms.mine.sel"),
        ("selections.raw.quota=null", "selections.raw is built in"),
    ],
)
def test_an_arm_that_cannot_be_is_refused_by_name(override, message):
    """Before anything trains."""
    with pytest.raises(RecipeError, match=message):
        load_recipe("digits", [override])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        (
            "student.methods.hinton.alfa=0.3",
            r"student.methods.hinton.alfa; did you mean alpha\?",
        ),
        ("arms.mine={methd: hinton}", r"arms\.mine\.methd; did you mean method\?"),
    ],
)
def test_a_wrong_field_of_a_named_entry_is_answered_with_the_nearest_one(setting, message):
    """Also below a name that a person chose."""
    with pytest.raises(RecipeError, match=f"unknown key {message}"):
        load_recipe("digits", [setting])
