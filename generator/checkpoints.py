"""Checkpoints that a killed training run continues from as if nothing had happened.

`checkpoints/NNNNNNN/` holds one state; `checkpoints/latest.json` is written after it and names it
together with the settings it was made with, so whatever is cut short is never taken up.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from cgankd.shardset.errors import StaleStage
from cgankd.shardset.files import canonical_json, read_json, write_json
from cgankd.shardset.weights import load_weights, save_weights

POINTER = "latest.json"


class Checkpoints:
    """The checkpoints of one run: its modules and optimisers by name, and its settings."""

    def __init__(
        self,
        folder: Path,
        modules: Mapping[str, nn.Module],
        optimisers: Mapping[str, Optimizer],
        fields: Mapping[str, Any],
    ) -> None:
        self.folder, self.modules, self.optimisers, self.fields = (
            folder,
            modules,
            optimisers,
            fields,
        )

    def save(self, step: int) -> None:
        """Saves the state after `step` steps, then drops the checkpoint before it."""
        name = f"{step:07d}"
        save_weights(self.folder / name, self._state(), {"step": step})
        write_json(self.folder / POINTER, {"name": name, "fields": self.fields})
        for other in self.folder.iterdir():
            if other.is_dir() and other.name != name:
                shutil.rmtree(other)

    def load(self) -> int:
        """The step of the latest checkpoint, whose state the run now has; 0 if there is none.

        `StaleStage` if it was made with other settings.
        """
        if not (self.folder / POINTER).is_file():
            return 0
        latest = read_json(self.folder / POINTER)
        for name, value in json.loads(canonical_json(self.fields)).items():
            if latest["fields"].get(name) != value:
                raise StaleStage(
                    f"{self.folder}: training began with {name} {latest['fields'].get(name)}, now "
                    f"it is {value}; change it back or start anew with --redo generator"
                )
        state, config = load_weights(self.folder / latest["name"])
        for name, module in self.modules.items():
            module.load_state_dict(_below(state, name))
        for name, optimiser in self.optimisers.items():
            moments: dict[int, dict[str, Tensor]] = {}
            for place, value in _below(state, f"optimiser_{name}").items():
                index, moment = place.split(".")
                moments.setdefault(int(index), {})[moment] = value
            optimiser.load_state_dict({**optimiser.state_dict(), "state": moments})
        return int(config["step"])

    def _state(self) -> dict[str, Tensor]:
        state: dict[str, Tensor] = {}
        for name, module in self.modules.items():
            state |= {f"{name}.{place}": value for place, value in module.state_dict().items()}
        for name, optimiser in self.optimisers.items():
            for index, moments in optimiser.state_dict()["state"].items():
                prefix = f"optimiser_{name}.{index}"
                state |= {f"{prefix}.{moment}": value for moment, value in moments.items()}
        return state


def _below(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The entries of one part, without its name."""
    prefix = f"{name}."
    return {key.removeprefix(prefix): state[key] for key in state if key.startswith(prefix)}
