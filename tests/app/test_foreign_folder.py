"""In a folder with modules named like our rooms, the tool imports its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cgankd.app.review.served.serve import SERVER

ROOT = Path(__file__).parents[2]
# What the installed script runs; like it, without the current folder on the import path.
CGANKD = (sys.executable, "-P", "-m", "cgankd.app")
MODULES = ("app", "generator", "student", "nets", "shardset", "compare", "images", "pandas")
PACKAGES = ("curation", "tests", "review")


def write_foreign_project(folder: Path) -> None:
    """Somebody's project, each of whose modules ends the process that imports it."""
    ends = "raise SystemExit(f'{__name__} of another project was imported')\n"
    for name in MODULES:
        (folder / f"{name}.py").write_text(ends)
    for name in PACKAGES:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(ends)


@pytest.mark.parametrize(
    "command",
    [
        [*CGANKD, "run", "digits", "--dry-run"],
        [*CGANKD, "recipes"],
        [sys.executable, "-c", "import cgankd"],
        [sys.executable, "-P", "-c", f"import cgankd.app.pipeline; {SERVER.replace('main()', '')}"],
    ],
    ids=["dry run", "recipes", "import", "the rooms"],
)
def test_another_projects_modules_are_not_imported(command, tmp_path):
    """`app.py`, `generator.py`, `curation/` and the like belong to whoever's folder it is."""
    write_foreign_project(tmp_path)
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "another project" not in done.stdout + done.stderr
