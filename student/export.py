"""A network as one `torch.export` file, and such files read back."""

import copy
import io
import json
import pickle
import zipfile
from pathlib import Path

import torch
from torch import nn

from cgankd.nets.device import placed
from cgankd.shardset.errors import CheckpointError
from cgankd.shardset.files import write_bytes

UNREADABLE = (RuntimeError, ValueError, KeyError, TypeError, AssertionError, OSError)


def export_network(network: nn.Module, path: Path, *, channels: int, size: int) -> None:
    """Writes `network` to `path` (`model.pt2`) for batches of any length on a CPU.

    The file needs nothing of this package: `torch.export.load(path).module()(images)` gives the
    outputs of images float32 `[n, channels, size, size]` in [−1, 1].
    """
    plain = placed(copy.deepcopy(network), torch.device("cpu"), torch.contiguous_format).eval()
    example = torch.zeros(2, channels, size, size)
    batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(plain, (example,), dynamic_shapes=(batch,))
    data = io.BytesIO()
    torch.export.save(program, data)
    write_bytes(path, data.getvalue())


def load_exported(path: Path, device: torch.device) -> nn.Module:
    """The network in a `torch.export` file, on `device`; `CheckpointError` if it cannot be read.

    A file with a pickle that wants to run code is refused. The rest of the format is a program
    too, as a Python module is: open only files whose maker you trust.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; give the path of a torch.export file")
    from torch.export.passes import move_to_device_pass

    _refuse_pickled_code(path)
    try:
        program = torch.export.load(path)
    except UNREADABLE as error:
        raise CheckpointError(
            f"{path} cannot be read by torch {torch.__version__}; export the teacher again with it"
        ) from error
    program = move_to_device_pass(program, device)
    return program.module(
        check_guards=False
    )  # guards are Python source; a wrong shape fails anyhow


def _refuse_pickled_code(path: Path) -> None:
    """Raises unless every pickle that `torch.export.load` would open holds only tensors."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            configs = [json.loads(archive.read(name)) for name in names if _is_config(name)]
            for name in names:
                if name.endswith(".pt"):
                    torch.load(io.BytesIO(archive.read(name)), weights_only=True)
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise CheckpointError(f"{path} is cut or not a torch.export file") from error
    except pickle.UnpicklingError as error:
        raise CheckpointError(_refusal(path)) from error
    entries = [entry for config in configs for entry in config["config"].values()]
    pickled = any(entry["use_pickle"] for entry in entries)
    if pickled or any(Path(name).name.startswith(("custom_obj", "opaque_obj")) for name in names):
        raise CheckpointError(_refusal(path))


def _is_config(name: str) -> bool:
    return name.endswith(("_weights_config.json", "_constants_config.json"))


def _refusal(path: Path) -> str:
    return (
        f"{path} holds a pickle that could run code when it is opened; it was not opened. Export "
        "the network again, with tensors alone"
    )
