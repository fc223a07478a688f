"""Where a network computes, in which layout and in which number format."""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal, TypeVar

import torch
from torch import nn

Precision = Literal["float32", "bfloat16"]

SomeModule = TypeVar("SomeModule", bound=nn.Module)


def placed(
    network: SomeModule,
    device: torch.device,
    layout: torch.memory_format = torch.channels_last,
) -> SomeModule:
    """The network itself, moved to `device`, its convolutions' weights in `layout`."""
    return network.to(device=device, memory_format=layout)  # type: ignore[call-overload]


def precise(device: torch.device, precision: Precision) -> AbstractContextManager:
    """A context in which networks on `device` compute in `precision`; weights stay float32."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)
