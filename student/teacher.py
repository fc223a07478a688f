"""A teacher from wherever it comes: a callable from images in [−1, 1] to logits or values."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from cgankd.nets.device import Precision, placed, precise
from cgankd.nets.network import WithoutValues
from cgankd.nets.networks import build_network, load_network
from cgankd.shardset.errors import BadInput
from cgankd.shardset.weights import load_foreign
from cgankd.student.export import load_exported

CHECKPOINTS = (".pth", ".pt", ".tar", ".safetensors")
EXPORTED = ".pt2"


class Teacher:
    """Calls a network without gradients: images `[n, c, h, w]` in [−1, 1] to float32 outputs.

    `mean` and `std` are those of the teacher's own training, per channel, for pixels in [0, 1].
    """

    def __init__(
        self,
        network: Callable[[torch.Tensor], torch.Tensor],
        *,
        mean: tuple[float, ...] | None,
        std: tuple[float, ...] | None,
        device: torch.device,
        precision: Precision,
    ) -> None:
        self.network = network
        self._device = device
        self._precision = precision
        self._scale: torch.Tensor | None = None
        if mean is not None and std is not None:
            # (x + 1) / 2 is the pixel in [0, 1]; one multiplication and one addition do it all.
            means = torch.tensor(mean, device=device)[:, None, None]
            stds = torch.tensor(std, device=device)[:, None, None]
            self._scale, self._shift = 0.5 / stds, (0.5 - means) / stds

    @torch.no_grad()
    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """The outputs `[n, outputs]` on the images' device."""
        inputs = images.to(self._device)
        if self._scale is not None:
            inputs = inputs * self._scale + self._shift
        with precise(self._device, self._precision):
            return self.network(inputs).float().to(images.device)


def load_teacher(
    spec: str,
    *,
    outputs: int,
    channels: int,
    size: int,
    network: str | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    device: torch.device,
    precision: Precision = "float32",
) -> Teacher:
    """The teacher that `spec` names, tried once on black images of the given shape.

    `spec` is a folder written by `save_network`; a checkpoint file of `network` with RepDistiller's
    parameter names; a `torch.export` file `*.pt2`; or `module:function`, a function without
    arguments that returns a callable from images to outputs: a logit for each of `outputs` classes,
    or for continuous labels one value, the label scaled to [0, 1]. `CheckpointError` for weights
    that do not fit, `BadInput` for anything else that cannot be used.
    """
    if (mean is None) != (std is None):
        raise BadInput(f"teacher {spec}: give both mean and std of its training, or neither")
    for name, values in (("mean", mean), ("std", std)):
        if values is not None and len(values) != channels:
            raise BadInput(
                f"teacher {spec}: {name} has {len(values)} values for {channels} channels"
            )
    model = _find(spec, network, outputs, channels, size, device)
    if isinstance(model, nn.Module):
        model = placed(model, device)
    teacher = Teacher(model, mean=mean, std=std, device=device, precision=precision)
    _try(spec, teacher, outputs, torch.full((2, channels, size, size), -1.0))
    return teacher


def _find(
    spec: str,
    network: str | None,
    outputs: int,
    channels: int,
    size: int,
    device: torch.device,
) -> Callable[[torch.Tensor], torch.Tensor]:
    path = Path(spec)
    if path.is_dir():
        return load_network(path)[0]
    if path.suffix == EXPORTED:
        return load_exported(path, device)
    if path.suffix in CHECKPOINTS:
        if network is None:
            raise BadInput(f"teacher {spec}: a checkpoint needs the name of its network")
        with WithoutValues():
            module = build_network(network, outputs=outputs, channels=channels, size=size)
        shapes = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
        module.load_state_dict(load_foreign(path, shapes), assign=True)
        return module.eval()
    if ":" in spec:
        return _imported(spec)
    raise BadInput(
        f"teacher {spec}: not there, and not a folder, {', '.join(CHECKPOINTS)} or {EXPORTED} file "
        "or module:function"
    )


def _imported(spec: str) -> Callable[[torch.Tensor], torch.Tensor]:
    module_name, _, function_name = spec.partition(":")
    here = str(Path.cwd())
    sys.path.insert(0, here)  # a console script does not look in the working directory by itself
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise BadInput(
            f"teacher {spec}: {error}; name a module that can be imported and a function in it"
        ) from error
    finally:
        sys.path.remove(here)
    network = function()
    if not callable(network):
        raise BadInput(
            f"teacher {spec}: the function returned a {type(network).__name__}, expected a "
            "callable from images to logits or values"
        )
    return network.eval() if isinstance(network, nn.Module) else network


def _try(spec: str, teacher: Teacher, outputs: int, images: torch.Tensor) -> None:
    shape = list(images.shape)
    try:
        answers = teacher(images)
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise BadInput(
            f"teacher {spec} fails on images {shape}: {str(error).splitlines()[0]}; check its "
            "channels and size"
        ) from error
    if tuple(answers.shape) != (len(images), outputs):
        needed = (
            "one value for each image, the scaled label"
            if outputs == 1
            else f"a logit for each of the same {outputs} classes"
        )
        raise BadInput(
            f"teacher {spec} returns {list(answers.shape)} for images {shape}, expected "
            f"{[len(images), outputs]}: {needed}"
        )
