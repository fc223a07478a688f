"""Writes docs/cli.md from the commands' own help, so that the two cannot drift apart."""

import os
from pathlib import Path

import typer
from typer.testing import CliRunner

from cgankd.app.cli import app

TARGET = Path(__file__).parent / "cli.md"


def cli_reference() -> str:
    """The Markdown text of every command's `--help`, 88 columns wide."""
    os.environ["COLUMNS"] = "88"
    os.environ["TERMINAL_WIDTH"] = "88"
    runner = CliRunner()
    group = typer.main.get_command(app)
    names: list[str] = list(getattr(group, "commands", {}))
    parts = ["# Commands\n\nWritten by `make docs` from `cgankd --help`.\n"]
    for words in [[], *[[name] for name in names]]:
        text = runner.invoke(app, [*words, "--help"], prog_name="cgankd").output
        lines = "\n".join(line.rstrip() for line in text.strip().splitlines())
        parts.append(f"## `{' '.join(['cgankd', *words])}`")
        parts.append(f"\n```\n{lines}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    TARGET.write_text(cli_reference(), "utf-8")
