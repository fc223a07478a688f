"""Distillation methods against plain numpy, and how recipes name them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cgankd.app.recipe import load_recipe
from cgankd.nets.batches import Batch
from cgankd.nets.losses import cross_entropy
from cgankd.nets.training import Step
from cgankd.shardset.errors import BadInput, RecipeError
from cgankd.student.methods import Hinton, current_methods, method_named
from cgankd.student.methods.hinton import divergence


def softmax(logits):
    raised = np.exp(logits - logits.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


def some_logits(seed, count=5, classes=4):
    return np.random.default_rng(seed).normal(scale=3, size=(count, classes))


@given(st.integers(0, 1000), st.floats(0.5, 20))
def test_hinton_is_t_squared_times_the_divergence_of_softened_outputs(seed, temperature):
    """KL from teacher to student, per sample."""
    student, teacher = some_logits(seed), some_logits(seed + 1)
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    expected = temperature**2 * (p * np.log(p / q)).sum(1)
    loss = divergence(torch.tensor(student), torch.tensor(teacher), temperature)
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-3, atol=1e-3)


def test_hinton_is_zero_where_the_student_agrees():
    """A constant added to all logits is no disagreement, whatever the number format."""
    logits = torch.tensor(some_logits(0), dtype=torch.float16)
    loss = divergence(logits.float() + 1, logits, 4.0)
    torch.testing.assert_close(loss, torch.zeros(5), rtol=0, atol=1e-5)


def test_alpha_weighs_the_teacher_against_the_label():
    """At 0 the labels alone count, at 1 the teacher alone, between them the weighted sum."""
    student, teacher = torch.tensor(some_logits(1)), torch.tensor(some_logits(2))
    labels = torch.arange(5) % 4
    hard, soft = cross_entropy(student, labels), divergence(student, teacher, 2.0)
    step = Step(Batch(torch.empty(5, 0), labels, teacher), student, None)
    for alpha in (0.0, 0.25, 1.0):
        loss = Hinton(temperature=2.0, alpha=alpha).loss(step)
        torch.testing.assert_close(loss, (1 - alpha) * hard + alpha * soft)


def test_logits_of_another_shape_are_refused():
    """Broadcasting would hide them."""
    with pytest.raises(BadInput, match=r"\[5, 4\] of the student and \[1, 4\] of the teacher"):
        divergence(torch.zeros(5, 4), torch.zeros(1, 4), 1.0)


def test_impossible_hyperparameters_are_refused():
    """A temperature of zero divides by zero, an alpha above one rewards disagreement."""
    for fields in ({"temperature": 0.0}, {"alpha": 1.5}, {"beta": 1.0}):
        with pytest.raises(ValidationError):
            Hinton(**fields)


def test_a_recipes_method_goes_before_the_kind_of_that_name():
    """What the recipe does not name is a kind with its defaults, and anything else is refused."""
    methods = {"soft": Hinton(temperature=9.0), "hinton": Hinton(alpha=0.5)}
    assert method_named("soft", methods).temperature == 9
    assert method_named("hinton", methods).alpha == 0.5
    assert method_named("hinton", {}) == Hinton()
    with pytest.raises(BadInput, match=r"no distillation method 'sotf'; valid: soft, hinton"):
        method_named("sotf", methods)


@pytest.mark.parametrize(
    ("student", "expected"),
    [
        ({"training": {"lr": 1, "distillation": None}}, {"training": {"lr": 1}}),
        (
            {
                "training": {"distillation": {"alpha": 0.5}},
                "methods": {"hinton": {"kind": "hinton", "alpha": 0.9, "temperature": 5.0}},
            },
            {
                "training": {},
                "methods": {"hinton": {"kind": "hinton", "alpha": 0.5, "temperature": 5.0}},
            },
        ),
    ],
)
def test_older_recipes_keep_their_distillation(student, expected):
    """Null is no setting; what is set goes over the method that stands there today."""
    recipe = {"teacher": {"training": {"distillation": None}}, "student": student}
    assert current_methods(recipe) == {"teacher": {"training": {}}, "student": expected}


def test_a_method_without_a_kind_is_the_one_it_is_called():
    """Settings of a kind are given under its name alone; a name of one's own needs a kind."""
    student = load_recipe("digits", ["student.methods.hinton={alpha: 0.3}"]).student
    assert student.methods["hinton"] == Hinton(alpha=0.3)
    with pytest.raises(RecipeError, match=r"student\.methods\.soft\.kind"):
        load_recipe("digits", ["student.methods.soft={alpha: 0.3}"])


def test_recipes_that_name_no_methods_are_left_alone():
    """Also those that are no recipes, which are refused later and by name."""
    for recipe in ({}, {"student": None}, {"student": {"training": 3}}):
        assert current_methods(recipe) == recipe
