"""Pictures one by one, as training asks for them: all of one shape, with a note of those that cannot be used."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from scorefield.data.images.eager import reason_of
from scorefield.data.images.read import TooSmall, convert, fit, read_image
from scorefield.data.images.unreadable import UnreadableLog
from scorefield.runtime.errors import InputError

__all__ = ["IN_A_ROW", "WORKERS", "Decoder", "threads"]

IN_A_ROW = 100  # pictures that may be broken one after another; a disk that has gone is more than that
WORKERS = min(16, (os.cpu_count() or 1) + 2)


@dataclass(frozen=True)
class Decoder:
    """What makes an array uint8 (C, H, W) of a picture. Several threads may use it.

    shape: of every array.   size, channels, upscale: as for `gather`.   strict: an unusable picture is an
    InputError.
    broken: the pictures that were met and could not be used.
    """

    source: str
    shape: tuple[int, int, int]
    size: int | None
    channels: int | None
    upscale: bool
    strict: bool
    broken: UnreadableLog = field(default_factory=UnreadableLog)

    def usable(self, name: object, content: Callable[[], Path | bytes | None]) -> np.ndarray | None:
        """uint8 (C, H, W), or None for a picture that cannot be used.   name: as text, where it has to be
        named.

        content: the file, its bytes, or None for no picture.
        """
        try:
            return self._decode(name, content())
        except InputError as fault:
            if not isinstance(fault, TooSmall):
                raise
            reason = f"{fault} is smaller than {self.size}×{self.size}"
        except Exception as fault:  # decoders raise nearly every type on damaged input; all of it is reported
            reason = reason_of(fault)
        if self.strict:
            raise InputError(f"{self.source}: {name} cannot be used ({reason}): repair or remove it")
        self.broken.add(str(name), reason)
        return None

    def gone(self, name: object) -> InputError:
        """What to raise where this picture is broken, and so are all that could stand in for it."""
        return InputError(
            f"{self.source}: {name} cannot be read, and neither can the pictures that could stand in for it: "
            f"is the disk still there? {self.broken.names.get(str(name), '')}"
        )

    def _decode(self, name: object, content: Path | bytes | None) -> np.ndarray:
        if content is None:
            raise ValueError("no picture")
        channels, height, width = self.shape
        image = convert(fit(read_image(content), self.size, self.upscale), self.channels)
        if image.size != (width, height):
            raise ValueError(f"{image.width}×{image.height} pixels, and the others have {width}×{height}")
        array = np.asarray(image)
        if array.ndim == 3 and channels == 1:
            raise InputError(
                f"{self.source}: {name} is in colour, and the pictures looked at first are grey: say how many "
                f"channels are wanted (channels = 1 or 3)"
            )
        # A grey picture among coloured ones has the same level in every channel.
        return np.broadcast_to(array, self.shape) if array.ndim == 2 else array.transpose(2, 0, 1)


@cache
def threads() -> ThreadPoolExecutor:
    """Pillow decodes without Python's lock, and waiting for a disk needs no processor: a few threads are
    enough.
    """
    return ThreadPoolExecutor(max_workers=WORKERS, thread_name_prefix="decode")
