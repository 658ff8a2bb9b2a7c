"""The ceiling of a network's speed: the time that its convolutions alone take. `performance.py` prints it
beside the networks.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import NamedTuple

import torch
import torch.nn.functional as F
from contestants import Batch, Case, call_bare
from torch import Tensor, nn

from scorefield.runtime.precision import autocast_dtype

__all__ = ["ALONE", "Convolutions"]

ALONE = "its convolutions alone"


class Convolution(NamedTuple):
    """One shape: channels in and out, kernel, stride, padding, the side of the image, and whether the image
    needs a gradient.
    """

    inputs: int
    outputs: int
    kernel: int
    stride: int
    padding: int
    side: int
    needs_dx: bool

    def flops(self, directions: int) -> float:
        out = (self.side + 2 * self.padding - self.kernel) // self.stride + 1
        return 2.0 * directions * self.inputs * self.outputs * self.kernel**2 * out**2


class Convolutions:
    """The time that the two-dimensional convolutions of a network alone take, each shape once in bf16 (fp32
    where the machine has no units for it) and channels-last memory, times how often the network has it.
    """

    name = ALONE

    def __init__(self, case: Case) -> None:
        self.case, self.dtype = case, autocast_dtype("auto", torch.device("cpu")) or torch.float32
        self.shapes = _shapes(case)
        train = sum(n * shape.flops(2 + shape.needs_dx) for shape, n in self.shapes.items())
        self.flops = {
            "denoising": sum(n * shape.flops(1) for shape, n in self.shapes.items()),
            "forward+backward": train,
        }

    def train(self) -> dict[str, float]:
        return {
            "forward+backward": sum(
                n * self._seconds(shape, self.case.batch, True) for shape, n in self.shapes.items()
            )
        }

    @torch.no_grad()
    def denoise(self) -> dict[str, float]:
        return {
            "denoising": sum(
                n * self._seconds(shape, self.case.denoise_batch, False) for shape, n in self.shapes.items()
            )
        }

    def _seconds(self, shape: Convolution, batch: int, backward: bool) -> float:
        """Of the second call: the first one prepares."""
        x = self._tensor(batch, shape.inputs, shape.side, shape.side).requires_grad_(
            backward and shape.needs_dx
        )
        weight = self._tensor(shape.outputs, shape.inputs, shape.kernel, shape.kernel).requires_grad_(
            backward
        )
        wanted = [part for part in (x, weight) if part.requires_grad]
        for _ in range(2):
            start = time.perf_counter()
            y = F.conv2d(x, weight, stride=shape.stride, padding=shape.padding)
            seconds = time.perf_counter() - start
            if backward:
                dy = self._tensor(*y.shape)
                start = time.perf_counter()
                torch.autograd.grad(y, wanted, dy)
                seconds += time.perf_counter() - start
        return seconds

    def _tensor(self, *shape: int) -> Tensor:
        return torch.randn(shape).to(self.dtype, memory_format=torch.channels_last)


def _shapes(case: Case) -> Counter[Convolution]:
    """The convolutions of a network, and how often it has each."""
    net, found = case.net().to("meta"), Counter[Convolution]()

    def note(conv: nn.Conv2d, inputs: tuple[Tensor], _: Tensor) -> None:
        sizes = conv.in_channels, conv.out_channels, conv.kernel_size[0], conv.stride[0], int(conv.padding[0])
        found[Convolution(*sizes, inputs[0].shape[-1], needs_dx=bool(found))] += 1

    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(note)
    call_bare(net, Batch.of(case, 1).to_meta())
    return found
