"""What a user may write after --data, and the function that reads each."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Any

from scorefield.data.dataset import Dataset
from scorefield.data.sources.digits import digits
from scorefield.data.sources.folder import folder
from scorefield.data.sources.hub import hf, is_saved
from scorefield.data.sources.hub import stream as stream_of
from scorefield.data.sources.npz import npz
from scorefield.data.sources.portraits import portraits
from scorefield.data.sources.stream import BUFFER, Stream
from scorefield.data.sources.toys import toy
from scorefield.runtime.errors import InputError

__all__ = ["open_source"]

_ACCEPTED = (
    "`digits`, `portraits`, toy:NAME, a folder of images (subfolders are classes), an .npz file, or hf:NAME"
)


def open_source(
    source: str,
    *,
    size: int | None = None,
    channels: int | None = None,
    upscale: bool = False,
    strict: bool = False,
    stream: bool | None = None,
    classes: int | None = None,
    buffer: int = BUFFER,
) -> Dataset | Stream:
    """Open `digits`, `portraits`, toy:NAME, a folder, an .npz file or hf:NAME. size and channels None mean what each of
    these does by itself.

    A folder called digits is ./digits.   stream: decode the images of a folder when a batch asks for them,
    and read hf:NAME while training, without keeping it; None: images are decoded when a batch asks for them
    where they would take more than 2 GiB.
    classes, buffer: of a stream, see `stream`.
    """
    options: dict[str, Any] = {"upscale": upscale, "strict": strict}
    if source == "digits":
        if size not in (None, 8) or channels not in (None, 1):
            raise InputError(
                f"the embedded digits are 8×8 and grey, not size {size or 8} with {channels or 1} channels: "
                f"leave size and channels out, or use images of your own"
            )
        return digits()
    if source == "portraits":
        if size not in (None, 16) or channels not in (None, 3):
            raise InputError(
                f"the embedded portraits are 16×16 in colour, not size {size or 16} with {channels or 3} channels: "
                f"leave size and channels out, or use images of your own"
            )
        return portraits()
    if source.startswith("toy:"):
        if size is not None or channels is not None:
            raise InputError(f"{source} is points of the plane, not images: leave size and channels out")
        return toy(source.removeprefix("toy:"))
    if source.startswith("hf:"):
        name = source.removeprefix("hf:")
        if stream and not is_saved(name):
            return stream_of(name, size=size, channels=channels, classes=classes, buffer=buffer, **options)
        return hf(name, size=size, channels=channels, on_demand=stream, **options)
    path = Path(os.path.expanduser(source))
    if source and os.path.isdir(path):
        return folder(source, size=size or 32, channels=channels or 3, on_demand=stream, **options)
    if path.suffix.lower() == ".npz":
        return npz(source, size=size, channels=channels, upscale=upscale)
    if source and os.path.exists(path):
        raise InputError(f"{source}: a file of this kind is not a source of data; accepted are {_ACCEPTED}")
    close = difflib.get_close_matches(source.lower(), ["digits", "portraits"])
    problem = f"did you mean {close[0]!r}?" if close else "there is no such file or folder."
    raise InputError(f"{source!r} is not a source of data: {problem} Accepted are {_ACCEPTED}")
