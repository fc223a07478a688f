"""The examples in docstrings are run, under the name that users import."""

import doctest
import importlib
import pkgutil

import pytest

import cgankd

ROOMS = ("shardset", "nets", "generator", "curation", "student")
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(cgankd.__path__, "cgankd.")
    if module.name.split(".")[1] in ROOMS
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_of_a_module_print_what_they_say(name):
    module = importlib.import_module(name)
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)

    assert result.failed == 0


@pytest.mark.parametrize("room", ["nets", "generator", "curation", "student"])
def test_a_room_shows_how_it_is_used(room):
    """At least one public function or class of each room has an example."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    names = [name for name in MODULES if name.startswith(f"cgankd.{room}")]
    examples = [test for name in names for test in finder.find(importlib.import_module(name))]

    assert sum(len(test.examples) for test in examples) >= 3
