"""What a run records of the machine it ran on."""

import os
import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any


def machine_facts() -> dict[str, Any]:
    """Machine, library and code versions for the run's record."""
    from importlib.metadata import version

    packages = ("torch", "numpy", "datasets", "huggingface_hub", "webdataset", "pyarrow", "Pillow")
    return {
        "version": version("cgankd"),
        "commit": _commit(),
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "libraries": {name: version(name) for name in packages},
    }


def has_matrix_instructions() -> bool:
    """Whether networks are computed with this processor's AMX, which oneDNN may be forbidden."""
    flags = Path("/proc/cpuinfo")  # where there is none, there is no AMX either
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "")
    has = flags.is_file() and "amx_tile" in flags.read_text().split()
    return has and (not limit or "AMX" in limit.upper())


def _commit() -> str | None:
    """The commit of the clone this package is installed from, if it is one."""
    folder = Path(__file__).parents[2]
    if not (folder / ".git").exists():
        return None
    result = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=False
    )
    return result.stdout.strip() or None


def peak_memory_bytes(workers: int) -> int:
    """An upper bound of what this process and its workers held at once, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    this_process, children = (
        resource.getrusage(who).ru_maxrss
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return (this_process + workers * children) * unit
