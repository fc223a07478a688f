"""What is published works outside the clone."""

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_built_wheel_runs_outside_the_clone(tmp_path):
    """Recipes and templates are inside it: a run from an empty folder ends with a report."""
    subprocess.run(
        [
            sys.executable,
            "-m",
            "build",
            "--wheel",
            "--no-isolation",
            "--outdir",
            str(tmp_path),
            ".",
        ],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    # The dependencies are this environment's: what is tested is what the wheel itself holds.
    venv.create(tmp_path / "env", system_site_packages=False, with_pip=False)
    (site,) = (tmp_path / "env").glob("lib/python*/site-packages")
    here = next(Path(p) for p in sys.path if p.endswith("site-packages"))
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(site), str(wheel)],
        check=True,
        capture_output=True,
    )
    (site / "dependencies.pth").write_text(f"{here}\n")
    python = tmp_path / "env" / "bin" / "python"
    outside = {"cwd": tmp_path, "check": True, "capture_output": True, "text": True}
    where = subprocess.run(
        [
            python,
            "-I",
            "-c",
            "import cgankd.app as a, cgankd.shardset as s; print(a.__file__, s.__file__)",
        ],
        **outside,
    ).stdout
    command = [
        python,
        "-I",
        "-m",
        "cgankd.app",
        "run",
        "digits",
        "--out",
        "run",
        "--backend",
        "serial",
    ]
    from tests.app.tiny import OVERRIDES

    for override in (*OVERRIDES, "arms=[no-kd, cgan-kd]"):
        command += ["--set", override]
    subprocess.run(command, **outside)

    assert str(ROOT) not in where
    assert (tmp_path / "run" / "report" / "report.html").is_file()
    assert (tmp_path / "run" / "release" / "v1.0.0" / "README.md").is_file()
