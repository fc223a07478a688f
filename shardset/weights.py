"""Weights on disk: safetensors with `config.json` of our own, and other people's checkpoints,
which are read without ever running code from them.
"""

import argparse
import pickle
import re
import struct
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

from cgankd.shardset.errors import CheckpointError
from cgankd.shardset.files import read_json, sha256_file, write_bytes, write_json

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
WRAPPERS = ("model", "state_dict", "net_state_dict", "netG_state_dict")
# What torch.load raises on bytes that are no checkpoint.
UNREADABLE = (
    pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, AttributeError,
    TypeError, AssertionError, ArithmeticError, struct.error,
)  # fmt: skip

State = dict[str, torch.Tensor]


def save_weights(
    folder: Path, module_or_state: torch.nn.Module | Mapping[str, Any], config: Mapping[str, Any]
) -> str:
    """The sha256 of the `model.safetensors` written to `folder` beside its `config.json`."""
    if isinstance(module_or_state, torch.nn.Module):
        module_or_state = module_or_state.state_dict()
    # Copies: safetensors refuses tensors that share memory, as tied weights do.
    state = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in module_or_state.items()
    }
    write_json(folder / CONFIG, config)
    write_bytes(folder / WEIGHTS, save_safetensors(state))
    return weights_sha256(folder)


def load_weights(folder: Path) -> tuple[State, dict[str, Any]]:
    """The state and the configuration that `save_weights` wrote to `folder`."""
    for name in (WEIGHTS, CONFIG):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder / name} is missing; run the stage that trains it")
    return _read_safetensors(folder / WEIGHTS), read_json(folder / CONFIG)


def weights_sha256(folder: Path) -> str:
    """The sha256 of the `model.safetensors` in `folder`."""
    return sha256_file(folder / WEIGHTS)


def load_foreign(path: Path, expected: Mapping[str, tuple[int, ...]]) -> State:
    """The state in someone else's checkpoint, with exactly the `expected` names and shapes.

    Reads `.safetensors` and what `torch.save` writes, by `weights_only` alone; takes the state
    out of the usual wrapping mappings and the `module.` of data-parallel training off the names.
    `CheckpointError` in one line for anything else, a pickle that wants to run code included.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is missing; give the path of a checkpoint file")
    loaded = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    for wrapper in WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(wrapper), Mapping):
            loaded = loaded[wrapper]
            break
    if not isinstance(loaded, Mapping) or not loaded:
        raise CheckpointError(f"{path} holds a {type(loaded).__name__}, expected named tensors")
    state = {str(name).removeprefix("module."): value for name, value in loaded.items()}
    _check(path, state, expected)
    return {name: state[name].detach() for name in expected}


def _read_safetensors(path: Path) -> State:
    try:
        return load_safetensors(path.read_bytes())
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is cut or not safetensors ({error}); make it anew"
        ) from error


def _read_pickle(path: Path) -> Any:
    try:
        # Namespace is a bag of values: training scripts store their options in one.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pickle protocols other than PyTorch's own
            return torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        # PyTorch has no class for this: its message names the global that the pickle asks for.
        if wanted := re.search(r"GLOBAL (\S+)", str(error)):
            raise CheckpointError(
                f"{path} is more than tensors: it wants to run code ({wanted[1]}), which was not "
                "done; give a file that holds the state_dict alone"
            ) from error
        raise CheckpointError(f"{path} is cut or not a PyTorch checkpoint") from error


def _check(path: Path, state: Mapping[str, Any], expected: Mapping[str, tuple[int, ...]]) -> None:
    tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
    missing = [name for name in expected if name not in tensors]
    unexpected = [name for name in state if name not in expected]
    other = [
        f"{name} {list(tensors[name].shape)} instead of {list(shape)}"
        for name, shape in expected.items()
        if name in tensors and tuple(tensors[name].shape) != tuple(shape)
    ]
    problems = [
        f"{len(found)} {what} ({found[0]}{', …' if len(found) > 1 else ''})"
        for found, what in (
            (missing, "missing"),
            (unexpected, "unexpected"),
            (other, "of another shape"),
        )
        if found
    ]
    if problems:
        raise CheckpointError(
            f"{path} does not fit the network: of its {len(expected)} tensors "
            f"{', '.join(problems)}; give the checkpoint of this very network"
        )
