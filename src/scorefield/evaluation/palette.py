"""The share of pixels whose colour is one of the training images'."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from scorefield.runtime.checks import positive_int
from scorefield.runtime.errors import InputError

__all__ = ["Palette"]


class Palette:
    """The colours of a set of images, as a table of all 256 (grey) or 256³ (RGB) colours.

    Args:
        channels: 1 or 3.
        within: The largest difference of two values, in levels and in each channel, of colours that count as equal.
    Raises:
        InputError: For another number of channels.
    """

    def __init__(self, channels: int, within: int) -> None:
        if channels not in (1, 3):
            raise InputError(f"a palette is of images of 1 or 3 channels, got {channels}")
        self.within = positive_int("within", within, 0, 255)
        self._known = torch.zeros([256] * channels, dtype=torch.bool)
        self._near: Tensor | None = None

    def add(self, images: Tensor) -> Palette:
        """Add the colours of images, uint8 (N, C, H, W)."""
        self._known[self._index(images)] = True
        self._near = None
        return self

    def __len__(self) -> int:
        """How many colours there are."""
        return int(self._known.sum())

    def share(self, images: Tensor) -> Tensor:
        """The share of each image's pixels whose colour is within `within` of a known one.

        Args:
            images: uint8 (N, C, H, W).
        Returns:
            float64 (N,).
        """
        if self._near is None:
            self._near = _widened(self._known, self.within)
        return self._near[self._index(images)].flatten(1).double().mean(dim=1)

    def _index(self, images: Tensor) -> tuple[Tensor, ...]:
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != self._known.ndim:
            raise InputError(
                f"a palette takes uint8 images (N, {self._known.ndim}, H, W), got {images.dtype} {tuple(images.shape)}"
            )
        return tuple(channel.long() for channel in images.cpu().unbind(1))


def _widened(known: Tensor, within: int) -> Tensor:
    """The table of colours that lie within `within` of a known one in every channel: a maximum along each axis."""
    table = known.to(torch.uint8).to(torch.float32)
    for axis in range(known.ndim):
        rows = table.movedim(axis, -1)
        widened = F.max_pool1d(rows.reshape(-1, 1, 256), 2 * within + 1, stride=1, padding=within)
        table = widened.reshape(rows.shape).movedim(-1, axis)
    return table > 0
