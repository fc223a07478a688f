"""Does a change leave every result as it was? `python -m benchmarks.same_results COMMIT [OUT]`

Runs a small class run and a small numeric run, each with its neighbours and its check, once by the
code of COMMIT and once by this tree, with the same libraries, and compares what they leave: every
PNG, tar and array byte by byte, every weight tensor by tensor, every table column by column, every
accuracy and figure by its number. File metadata, fingerprints and hashes of files may differ.
Exits 1 where anything else does, and names it.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from safetensors.numpy import load_file

ROOT = Path(__file__).parent.parent
SHORT = (
    "seeds=[0, 1]",
    "threads=1",
    "teacher.training.network=convnet-1k",
    "teacher.training.steps=150",
    "teacher.training.lr=0.1",
    "pool.batch=20",
    "student.steps=[20, 40]",
    "student.learning_rates=[0.1, 0.05]",
    "policy.memorised=calibrated",
    "policy.outliers=calibrated",
    "policy.duplicates=calibrated",
    "policy.quota=20",
    "policy.diversity=farthest",
)
RUNS = {
    "digits": (
        *SHORT,
        "generator.training.iterations=1200",
        "budget.per_class=20",
        "pool.per_label=60",
        "pool.shard_size=200",
    ),
    "rotated-digits": (
        *SHORT,
        "generator.training.iterations=2000",
        "generator.training.embedding.image_steps=100",
        "generator.training.embedding.label_steps=300",
        "budget.total=300",
        "label.groups=4",
        "pool.labels=61",
        "pool.per_label=20",
        "pool.shard_size=400",
        "teacher.data=budget",
    ),
}
# Records of how and from what a file was made, and hashes of whole files: these may differ.
RECORDS = (
    "fingerprint", "sha256", "fields", "facts", "libraries", "seconds", "run", "peak_memory_bytes",
)  # fmt: skip


def main(commit: str, out: Path) -> None:
    """Prints how much was compared and every difference."""
    for side, code in (("before", old_code(commit, out / "code")), ("after", ROOT)):
        for recipe, settings in RUNS.items():
            make_run(code, recipe, settings, out / side / recipe)
    failed = False
    for recipe in RUNS:
        counts, differences = compare(out / "before" / recipe, out / "after" / recipe)
        print(f"{recipe}: " + ", ".join(f"{n:,} {what}" for what, n in sorted(counts.items())))
        print("\n".join(differences) or f"{recipe}: bit for bit the same as {commit}")
        failed |= bool(differences)
    sys.exit(failed)


def old_code(commit: str, folder: Path) -> Path:
    """The package of a commit, installed into a folder of its own without its dependencies."""
    if folder.is_dir():
        return folder
    with tempfile.TemporaryDirectory() as tree:
        subprocess.run(["git", "worktree", "add", "--detach", tree, commit], cwd=ROOT, check=True)
        try:
            install = ["--quiet", "--no-deps", "--no-build-isolation", "--target", str(folder)]
            subprocess.run([sys.executable, "-m", "pip", "install", *install, tree], check=True)
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=ROOT, check=True)
    return folder


def make_run(code: Path, recipe: str, settings: tuple[str, ...], out: Path) -> None:
    """A whole run and its check by the code in a folder."""
    module = "cgankd.app" if (code / "cgankd").is_dir() else "app"
    command = [sys.executable, "-P", "-m", module]
    sets = [word for setting in settings for word in ("--set", setting)]
    environment = {**os.environ, "PYTHONPATH": str(code), "OMP_NUM_THREADS": "1"}
    for words in (["run", recipe, "--out", str(out), *sets], ["check", str(out)]):
        done = subprocess.run([*command, *words], env=environment, cwd=out.parents[2], check=False)
        if done.returncode and words[0] == "run":  # a check may fail by its thresholds
            sys.exit(f"{' '.join(words[:2])} failed with the code in {code}")


def compare(before: Path, after: Path) -> tuple[Counter[str], list[str]]:
    """How many things of each kind were compared, and a line for each that differs."""
    counts: Counter[str] = Counter()
    differences = []
    old, new = results(before), results(after)
    for name in sorted(old.keys() | new.keys()):
        if name not in old or name not in new:
            differences.append(f"{name}: only {'before' if name in old else 'after'}")
            continue
        kind, a = contents(old[name])
        _, b = contents(new[name])
        for part in sorted(a.keys() | b.keys()):
            counts[kind] += 1
            if part not in a or part not in b or a[part] != b[part]:
                differences.append(f"{name}: {part or 'bytes'} differs")
    return counts, differences


def results(run: Path) -> dict[str, Path]:
    """The files of a run that hold results, by name; students by their arm and seed."""
    found = {}
    # Checkpoints go: what a training is resumed from is no result.
    passed_over = ("students/", "report/figures", "generator/checkpoint")
    suffixes = (".tar", ".png", ".npy", ".safetensors", ".parquet", ".jsonl")
    for path in sorted(run.rglob("*")):
        name = str(path.relative_to(run))
        if path.suffix in suffixes and not name.startswith(passed_over):
            found[name] = path
    for link in sorted((run / "students").glob("*/seed-*")):
        for path in sorted(link.resolve().iterdir()):
            if path.suffix in suffixes:
                found[f"{link.relative_to(run)}/{path.name}"] = path
    for name in ("report/report.json", "check/check.json"):
        found[name] = run / name
    return found


def contents(path: Path) -> tuple[str, dict[str, bytes | str]]:
    """What kind of things a file holds, and each of them by name."""
    if path.suffix == ".safetensors":
        tensors = load_file(path)
        return "tensors", {name: exact(value) for name, value in tensors.items()}
    if path.suffix == ".parquet":
        table = pq.read_table(path)
        return "columns", {name: str(table[name].to_pylist()) for name in table.column_names}
    if path.suffix == ".json":
        return "figures", dict(numbers(json.loads(path.read_text("utf-8"))))
    if path.suffix == ".npy":
        return "arrays", {"": exact(np.load(path))}
    return f"{path.suffix[1:]} files", {"": path.read_bytes()}


def exact(array: np.ndarray) -> bytes:
    """An array's type, shape and bytes."""
    return f"{array.dtype} {array.shape} ".encode() + array.tobytes()


def numbers(value: object, place: str = "") -> Iterator[tuple[str, str]]:
    """Every number of a JSON value by its place, but those of records."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if name not in RECORDS:
                yield from numbers(inner, f"{place}.{name}" if place else name)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from numbers(inner, f"{place}[{index}]")
    elif isinstance(value, (int, float)):
        yield place, repr(value)


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    if len(sys.argv) == 3:
        main(sys.argv[1], Path(sys.argv[2]).resolve())
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(sys.argv[1], Path(folder))
