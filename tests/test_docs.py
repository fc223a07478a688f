"""The documentation says what the code does."""

import importlib.util
import re
from pathlib import Path

import pytest

from cgankd.app.cli import app

ROOT = Path(__file__).parent.parent
COMMANDS = sorted(
    command.name or command.callback.__name__
    for command in app.registered_commands
    if command.callback
)


def test_the_command_reference_is_what_help_prints():
    """docs/cli.md is current; `make docs` rewrites it."""
    spec = importlib.util.spec_from_file_location("docs_build", ROOT / "docs" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    build = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)

    assert build.cli_reference() == (ROOT / "docs" / "cli.md").read_text("utf-8")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_documented(command):
    """Each has a docstring and a section of its own."""
    found = [c for c in app.registered_commands if command in (c.name, c.callback.__name__)]

    assert found[0].callback.__doc__
    assert f"## `cgankd {command}`" in (ROOT / "docs" / "cli.md").read_text("utf-8")


def test_every_command_of_the_readme_exists():
    """`cgankd X` in a code block of the README is a command."""
    blocks = re.findall(r"```\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
    used = set(re.findall(r"^cgankd ([a-z-]+)", "\n".join(blocks), re.M))

    assert used
    assert used <= set(COMMANDS)


def test_every_make_target_is_explained():
    """The targets of the Makefile are those of CONTRIBUTING.md."""
    targets = set(re.findall(r"^([a-z]+):.*##", (ROOT / "Makefile").read_text(), re.M))
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")

    assert targets - {"help", "install"} == set(re.findall(r"\| `make ([a-z]+)`", text))
