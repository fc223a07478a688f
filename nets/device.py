"""Where a network computes, in which layout and number format, and how pixels become its images."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from cgankd.shardset.errors import BadInput

Precision = Literal["float32", "bfloat16"]
Progress = Callable[[int, int, Mapping[str, float]], None]  # steps done, of how many, figures

SomeModule = TypeVar("SomeModule", bound=nn.Module)


def placed(
    network: SomeModule,
    device: torch.device,
    layout: torch.memory_format = torch.channels_last,
) -> SomeModule:
    """The network itself, moved to `device`, its convolutions' weights in `layout`."""
    return network.to(device=device, memory_format=layout)  # type: ignore[call-overload]


def precise(device: torch.device, precision: Precision) -> AbstractContextManager:
    """A context in which networks on `device` compute in `precision`; weights stay float32.

    Enter it anew in each training step: autocast keeps its copies of the weights until it is left.
    """
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """A context in which torch computes an operator with `count` threads.

    Their number changes the last bits of a float, so whoever promises the same bytes fixes it.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def training_threads(size: int) -> int:
    """The threads that networks for images of `size` px are trained with on a CPU: 1, above 32 px
    2. By this alone and never by the machine's cores, since they change bytes.

    Generator steps a second with 1 and 2 threads on two cores of a Xeon kept to AVX2 (and with
    AMX), nothing else running: 8 px 50 and 58 (55 and 62), 16 px 26 and 32 (30 and 35), 28 px 11
    and 17 (22 and 28), 64 px 2.2 and 3.3; the second thread makes a step cost 1.6, 1.6, 1.3 (1.5)
    and 1.25 times the processor's time. Stages stand side by side, so that a core is seldom idle;
    beside another one, two threads made 48 steps a second instead of 47 at 8 px, 14 instead of 11
    at 28 px, and took all but a quarter of a core from it. With OMP_WAIT_POLICY=passive, which
    leaves more to others, two threads were slower than one at each of these sizes up to 28 px.
    """
    return 1 if size <= 32 else 2


def as_images(
    pixels: Tensor | np.ndarray, layout: torch.memory_format = torch.preserve_format
) -> Tensor:
    """The float32 images x / 127.5 − 1 in [−1, 1] of uint8 pixels of any shape, on their device.

    `layout` is kept unless another is asked for. `BadInput` for pixels of another dtype.

    >>> as_images(np.array([[0, 51, 255]], dtype=np.uint8))
    tensor([[-1.0000, -0.6000,  1.0000]])
    """
    if pixels.dtype not in (np.uint8, torch.uint8):
        raise BadInput(f"pixels are {pixels.dtype}, expected uint8")
    if isinstance(pixels, np.ndarray):
        # Converted by numpy: torch refuses read-only arrays.
        pixels = torch.from_numpy(pixels.astype(np.float32))
    if layout is torch.preserve_format:
        images = pixels.to(torch.float32, copy=True)
    else:
        # With one channel `contiguous` changes nothing and convolutions take the slower layout.
        images = torch.empty(pixels.shape, device=pixels.device, memory_format=layout).copy_(pixels)
    return images.div_(127.5).sub_(1)


def channels_last(images: Tensor) -> Tensor:
    """The same images in the layout in which convolutions are fastest."""
    return images.contiguous(memory_format=torch.channels_last)
