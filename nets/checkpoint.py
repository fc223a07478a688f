"""The one checkpoint of a training: killed, it goes on from there and ends as if it had not been.

One file, replaced whole: weights, averaged weights and the optimiser's moments as safetensors,
step, history and settings as JSON in its header. The order of the images is a function of seed
and step, so the step is all there is to say of it.
"""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.optim import Optimizer

from cgankd.nets.network import Network
from cgankd.nets.networks import fill_network
from cgankd.shardset.errors import CheckpointError, StaleStage
from cgankd.shardset.files import atomic_path, canonical_json

HEADER = "training"
EVERY_SECONDS = 60.0

History = list[dict[str, float]]


class Checkpoint:
    """A checkpoint at `path` of a training with settings `fields` (any JSON)."""

    def __init__(
        self, path: Path, fields: Mapping[str, Any], every_seconds: float = EVERY_SECONDS
    ) -> None:
        self.path = path
        self._fields = json.loads(canonical_json(fields))
        self._every = every_seconds
        self._last = time.monotonic()

    def save_if_due(
        self, step: int, network: Network, average: Network, optimiser: Optimizer, history: History
    ) -> None:
        """Saves the state after `step` steps, if the last saving was long enough ago."""
        if time.monotonic() - self._last < self._every:
            return
        state = {f"network.{name}": value for name, value in network.state_dict().items()}
        state |= {f"average.{name}": value for name, value in average.state_dict().items()}
        for index, moments in optimiser.state_dict()["state"].items():
            state |= {
                f"optimiser.{index}.{name}": value
                for name, value in moments.items()
                if value is not None
            }
        state = {
            name: value.cpu().clone(memory_format=torch.contiguous_format)
            for name, value in state.items()
        }
        header = {"step": step, "history": history, "fields": self._fields}
        with atomic_path(self.path) as partial:
            save_file(state, partial, {HEADER: json.dumps(header)})
        self._last = time.monotonic()

    def load(self, network: Network, average: Network, optimiser: Optimizer) -> tuple[int, History]:
        """Steps done and their history, the state of the three being restored; 0 if there is none.

        `StaleStage` for a checkpoint of other settings, `CheckpointError` for a damaged one.
        """
        if not self.path.is_file():
            return 0, []
        try:
            with safe_open(self.path, "pt") as file:
                header = json.loads((file.metadata() or {})[HEADER])
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise CheckpointError(f"{self.path} is damaged; remove it to start anew") from error
        for name in sorted({*self._fields, *header["fields"]}):
            before, now = header["fields"].get(name), self._fields.get(name)
            if before != now:
                raise StaleStage(
                    f"{self.path}: training began with {name} {before}, now it is {now}; change "
                    "it back, or remove that file to start anew"
                )
        fill_network(network, _below(state, "network"), where=str(self.path))
        fill_network(average, _below(state, "average"), where=str(self.path))
        parameters = [p for group in optimiser.param_groups for p in group["params"]]
        moments: dict[int, dict[str, Tensor]] = {}
        for place, value in _below(state, "optimiser").items():
            index, moment = place.split(".")
            # In the layout of its parameter: the fused optimisers go through both as they lie.
            like = parameters[int(index)]
            if value.shape == like.shape:
                value = torch.empty_like(like, requires_grad=False).copy_(value)
            moments.setdefault(int(index), {})[moment] = value
        optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})
        return int(header["step"]), header["history"]

    def remove(self) -> None:
        """Removes the checkpoint of a training that is over."""
        self.path.unlink(missing_ok=True)


def _below(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The entries of one part, without its name."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): state[key] for key in state if key.startswith(prefix)}
