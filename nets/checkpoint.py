"""The one checkpoint of a training: killed, it goes on from there and ends as if it had not been.

One file, replaced whole: weights, averaged weights and the optimisers' moments as safetensors,
step, history and settings as JSON in its header. The order of the images and all other random
numbers are a function of seed and step, so the step is all there is to say of them.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from torch.optim import Optimizer

from cgankd.nets.networks import fill_network
from cgankd.shardset.errors import CheckpointError, StaleStage
from cgankd.shardset.files import canonical_json, write_bytes

HEADER = "training"
EVERY_SECONDS = 60.0

History = list[dict[str, float]]
# What has a state, by name; tensors by their names are filled in place.
Parts = Mapping[str, nn.Module | Optimizer | Mapping[str, Tensor]]


class Checkpoint:
    """A checkpoint at `path` of a training with settings `fields` (any JSON).

    `anew` is what a person does who wants to start from the beginning with other settings.
    """

    def __init__(
        self,
        path: Path,
        fields: Mapping[str, Any],
        every_seconds: float = EVERY_SECONDS,
        anew: str = "remove that file to start anew",
    ) -> None:
        self.path = path
        self._fields = json.loads(canonical_json(fields))
        self._anew = anew
        self._every = every_seconds
        self._last = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether the last saving was long enough ago."""
        return time.monotonic() - self._last >= self._every

    @property
    def step(self) -> int:
        """The steps done by what was saved; 0 if there is nothing."""
        return int(self._read()[0]["step"]) if self.path.is_file() else 0

    def save(self, step: int, parts: Parts, history: History) -> None:
        """Saves the state of the parts after `step` steps, in place of the one before."""
        state = {
            f"{name}.{place}": value.cpu().clone(memory_format=torch.contiguous_format)
            for name, part in parts.items()
            for place, value in _state_of(part).items()
        }
        header = {"step": step, "history": history, "fields": self._fields}
        # As bytes: a full disk is then an OSError like any other, which is told in one line.
        write_bytes(self.path, save(state, {HEADER: json.dumps(header)}))
        self._last = time.monotonic()

    def load(self, parts: Parts) -> tuple[int, History]:
        """Steps done and their history, the state of the parts being restored; 0 if there is none.

        `StaleStage` for a checkpoint of other settings, `CheckpointError` for a damaged one.
        """
        if not self.path.is_file():
            return 0, []
        header, state = self._read()
        for name in sorted({*self._fields, *header["fields"]}):
            before, now = header["fields"].get(name), self._fields.get(name)
            if before != now:
                raise StaleStage(
                    f"{self.path}: training began with {name} {before}, now it is {now}; change "
                    f"it back, or {self._anew}"
                )
        for name, part in parts.items():
            prefix = f"{name}."
            saved = {
                key.removeprefix(prefix): state[key] for key in state if key.startswith(prefix)
            }
            if isinstance(part, nn.Module):
                fill_network(part, saved, where=str(self.path))
            elif isinstance(part, Optimizer):
                _fill_optimiser(part, saved)
            else:
                for place, tensor in part.items():
                    tensor.copy_(saved[place])
        return int(header["step"]), header["history"]

    def _read(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        try:
            with safe_open(self.path, "pt") as file:
                header = json.loads((file.metadata() or {})[HEADER])
                return header, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise CheckpointError(f"{self.path} is damaged; remove it to start anew") from error

    def remove(self) -> None:
        """Removes the checkpoint of a training that is over."""
        self.path.unlink(missing_ok=True)


def _state_of(part: nn.Module | Optimizer | Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    if isinstance(part, nn.Module):
        return part.state_dict()
    if isinstance(part, Mapping):
        return part
    return {
        f"{index}.{name}": value
        for index, moments in part.state_dict()["state"].items()
        for name, value in moments.items()
        if value is not None
    }


def _fill_optimiser(optimiser: Optimizer, state: Mapping[str, Tensor]) -> None:
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    moments: dict[int, dict[str, Tensor]] = {}
    for place, value in state.items():
        index, moment = place.split(".")
        # In the layout of its parameter: the fused optimisers go through both as they lie.
        like = parameters[int(index)]
        if value.shape == like.shape:
            value = torch.empty_like(like, requires_grad=False).copy_(value)
        moments.setdefault(int(index), {})[moment] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})
