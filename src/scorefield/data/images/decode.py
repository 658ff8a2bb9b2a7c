"""Decode image files one at a time, as training asks for them, to one shape; the unusable ones are logged."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from scorefield.data.images.read import NO_IMAGE, ImageOptions, TooSmall, convert, fit, read_image
from scorefield.data.images.unreadable import UnreadableLog, reason_of
from scorefield.runtime.errors import InputError, ScorefieldError

__all__ = ["IN_A_ROW", "WORKERS", "Decoder", "threads"]

IN_A_ROW = 100  # unreadable images one after another, beyond which the disk is taken to be gone
WORKERS = min(16, (os.cpu_count() or 1) + 2)


@dataclass(frozen=True)
class Decoder:
    """Decodes one image file to uint8 (C, H, W). Several threads may use it.

    Attributes:
        source: What the user named, for messages.
        shape: (C, H, W) of every array.
        options: Size, channels, and what to do about small and unreadable images.
        unreadable: The files that were met so far and could not be used.
    """

    source: str
    shape: tuple[int, int, int]
    options: ImageOptions
    unreadable: UnreadableLog = field(default_factory=UnreadableLog)

    def decode(self, name: object, content: Callable[[], Path | bytes | None]) -> np.ndarray | None:
        """uint8 (C, H, W), or None for an image that cannot be used, which is logged.

        Args:
            name: The image's name; made text only where it is needed.
            content: Gives the file, its bytes, or None where there is no image.

        Raises:
            InputError: For an image that cannot be used, with options.strict.
        """
        size = self.options.size
        try:
            return self._array(name, content())
        except ScorefieldError as fault:
            if not isinstance(fault, TooSmall):
                raise
            reason = f"{fault} is smaller than {size}×{size}"
        except Exception as fault:  # decoders raise nearly every type on damaged input; all are reported
            reason = reason_of(fault)
        if self.options.strict:
            raise InputError(f"{self.source}: {name} cannot be used ({reason}): repair or remove it")
        self.unreadable.add(str(name), reason)
        return None

    def no_replacement(self, name: object) -> InputError:
        """The error for an unreadable image where all images that could replace it are unreadable too."""
        return InputError(
            f"{self.source}: {name} cannot be read, and neither can the images that would replace it: "
            f"is the disk still there? {self.unreadable.names.get(str(name), '')}"
        )

    def _array(self, name: object, content: Path | bytes | None) -> np.ndarray:
        if content is None:
            raise ValueError(NO_IMAGE)
        channels, height, width = self.shape
        options = self.options
        image = convert(
            fit(read_image(content, options.white), options.size, options.upscale), options.channels
        )
        if image.size != (width, height):
            raise ValueError(f"{image.width}×{image.height} pixels, but the others have {width}×{height}")
        array = np.asarray(image)
        if array.ndim == 3 and channels == 1:
            raise InputError(
                f"{self.source}: {name} is in colour, and the images that were probed are grey: give the "
                f"number of channels (channels = 1 or 3)"
            )
        # A grey image among colour images has the same value in every channel.
        return np.broadcast_to(array, self.shape) if array.ndim == 2 else array.transpose(2, 0, 1)


@cache
def threads() -> ThreadPoolExecutor:
    """The threads that decode: a few are enough, since Pillow decodes without Python's lock."""
    return ThreadPoolExecutor(max_workers=WORKERS, thread_name_prefix="decode")
