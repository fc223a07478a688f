"""Bad input is met with one line that says what, where and what to do; nothing is written."""

import os
import pickle
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from cgankd.app.cli import app
from cgankd.nets.networks import build_network
from cgankd.shardset.pool.run_folder import RunFolder
from tests.app.tiny import OVERRIDES, run_command


def cgankd(*words):
    """The exit code and what was said on standard error, as one line."""
    result = CliRunner().invoke(app, [str(word) for word in words])

    return result.exit_code, result.stderr


def refused(out, *words, code=2):
    """The error line of a command that must leave nothing behind."""
    exit_code, said = cgankd(*words)
    lines = [line for line in said.splitlines() if line.startswith("error: ")]

    assert exit_code == code, said
    assert len(lines) == 1, said
    assert "Traceback" not in said
    assert not out.exists()
    return lines[0]


def photographs(folder, counts, size=(12, 12), mode="L"):
    """A class folder of distinct pictures for each name in `counts`."""
    random = np.random.default_rng(0)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            shape = (*size, 3) if mode == "RGB" else size
            pixels = random.integers(256, size=shape, dtype=np.uint8)
            Image.fromarray(pixels, mode).save(folder / name / f"{number:03d}.png")
    return folder


def test_an_unknown_recipe_key_names_the_nearest(tmp_path):
    """`policy.filter.roh` is answered with `rho`."""
    out = tmp_path / "run"
    line = refused(out, "run", "digits", "--out", out, "--set", "policy.filter.roh=0.5")

    assert "policy.filter.roh" in line
    assert "rho" in line


def test_a_folder_without_classes_is_refused(tmp_path):
    """Pictures that lie directly in the folder have no label."""
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.new("L", (9, 9)).save(folder / "a.png")
    line = refused(
        tmp_path / "run", "run", "digits", "--out", tmp_path / "run",
        "--set", f"source=imagefolder:{folder}",
    )  # fmt: skip

    assert "photos" in line


def test_a_missing_folder_is_refused(tmp_path):
    """The path is named."""
    line = refused(
        tmp_path / "run", "run", "digits", "--out", tmp_path / "run",
        "--set", "source=imagefolder:nowhere",
    )  # fmt: skip

    assert "nowhere" in line


def test_a_class_without_images_is_refused_by_name(tmp_path):
    """An empty class folder would train a generator on nothing."""
    folder = photographs(tmp_path / "photos", {"ant": 5, "bee": 0})
    line = refused(
        tmp_path / "run", "run", "digits", "--out", tmp_path / "run",
        "--set", f"source=imagefolder:{folder}",
    )  # fmt: skip

    assert "bee" in line


def test_a_budget_above_what_exists_names_class_and_number(tmp_path):
    """Digits has fewer than 5,000 of each class."""
    out = tmp_path / "run"
    line = refused(out, "run", "digits", "--out", out, "--set", "budget.per_class=5000")

    assert "5000" in line
    assert "lower the budget" in line


def test_a_run_in_use_names_the_process_that_holds_it(tmp_path):
    """Two processes in one run folder would write over each other."""
    run = RunFolder.open(tmp_path / "run", create=True)
    with run.lock():
        holder = subprocess.run(
            run_command(tmp_path / "run"), capture_output=True, text=True, check=False
        )

    assert holder.returncode == 2
    assert f"process {os.getpid()}" in " ".join(holder.stderr.split())


def test_a_checkpoint_with_other_shapes_is_refused(tmp_path):
    """A teacher for 100 classes is none for ten."""
    path = tmp_path / "teacher.pth"
    torch.save(
        {"model": build_network("resnet8", outputs=100, channels=1, size=8).state_dict()}, path
    )
    code, said = cgankd(
        "run", "digits", "--out", tmp_path / "run", "--set", f"teacher.weights={path}",
        "--set", "teacher.training.network=resnet8",
    )  # fmt: skip

    assert code == 2
    assert "fc" in said or "shape" in said or "conv1" in said


def test_a_pickle_that_wants_to_run_code_is_refused_and_does_not_run(tmp_path):
    """Weights are data; a file that calls a function is not opened."""

    class Attack:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "attacked"),))

    path = tmp_path / "teacher.pth"
    path.write_bytes(pickle.dumps({"model": Attack()}))
    code, said = cgankd(
        "run", "digits", "--out", tmp_path / "run", "--set", f"teacher.weights={path}"
    )

    assert code == 2
    assert "teacher.pth" in said
    assert not (tmp_path / "attacked").exists()


def test_a_full_disk_leaves_nothing_half_written_and_the_run_goes_on_later(tmp_path):
    """Files are limited to 20 kB: the first weights do not fit."""

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    words = [word for override in OVERRIDES for word in ("--set", override)]
    out = tmp_path / "run"
    command = [sys.executable, "-m", "cgankd.app", "run", "digits", "--out", str(out), *words]
    result = subprocess.run(
        [*command, "--backend", "serial"],
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=False,
    )

    assert result.returncode in (1, 2)
    assert "error: " in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(out.rglob("*.partial"))
    again = subprocess.run(
        [*command, "--backend", "serial"], capture_output=True, text=True, check=False
    )
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize(("mode", "size"), [("L", (28, 28)), ("RGB", (64, 50))])
def test_a_folder_of_photographs_runs_with_the_digits_preset(tmp_path, mode, size):
    """No preset was made for it: unbalanced classes, oblong pictures, one that does not decode."""
    folder = photographs(tmp_path / "photos", {"ant": 30, "bee": 18}, size, mode)
    (folder / "bee" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnot a picture")
    words = [
        word for override in OVERRIDES if "per_class" not in override
        for word in ("--set", override)
    ]  # fmt: skip
    out = tmp_path / "run"
    result = subprocess.run(
        [
            sys.executable, "-m", "cgankd.app", "run", "digits", "--out", str(out), *words,
            "--set", f"source=imagefolder:{folder}", "--set", "budget.per_class=null",
            "--set", "arms=[no-kd, cgan-kd]", "--backend", "serial",
        ],
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip

    assert result.returncode == 0, result.stderr
    assert "broken.png" in result.stderr
    assert (out / "report" / "report.html").is_file()
    assert (out / "release" / "v1.0.0" / "README.md").is_file()


def test_help_waits_for_no_heavy_import():
    """Torch and its like are imported inside the commands."""
    loaded = subprocess.run(
        [sys.executable, "-c", "import cgankd.app.cli, sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )

    heavy = {"torch", "numpy", "pyarrow", "datasets", "pydantic", "rich", "streamlit", "faiss"}
    assert not heavy & set(loaded.stdout.split())


def test_an_unreadable_release_is_refused(tmp_path):
    """`verify` of a folder that is neither run nor release says so."""
    code, said = cgankd("verify", tmp_path)

    assert code == 2
    assert str(Path(tmp_path).name) in "".join(said.split())
