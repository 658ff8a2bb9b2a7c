"""What a source of data is: it opens what a user named, and says what it will look like before it is opened."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import Field

from scorefield.core.shapes import DataSpec
from scorefield.data.dataset import Dataset
from scorefield.data.sources.stream import BUFFER, Stream
from scorefield.runtime.errors import InputError
from scorefield.runtime.parsing import Options

__all__ = ["Embedded", "Source", "SourceOptions"]


class SourceOptions(Options):
    """Where examples come from and how they are read."""

    source: str | None = Field(
        None, description="digits, portraits, toy:NAME, a folder of images, an .npz file, or hf:NAME"
    )
    size: int | None = Field(
        None,
        ge=1,
        description="side in pixels that images are reduced and cropped to; default: 32 of a folder, as it is of others",
    )
    channels: int | None = Field(
        None, description="1 (grey) or 3 (RGB); default: 3 of a folder, as it is of others"
    )
    classes: int | None = Field(
        None,
        ge=1,
        description="how many classes to expect: for what is said before data are opened, and for integer labels of a stream",
    )
    upscale: bool = Field(
        False, description="enlarge images that are smaller than `size` instead of refusing them"
    )
    strict: bool = Field(False, description="fail on unreadable images instead of skipping them")
    stream: bool | None = Field(
        None,
        description="decode images when a batch asks for them, and read hf:NAME while training without keeping it; "
        "default: decode so where images would take more than 2 GiB",
    )
    buffer: int = Field(
        BUFFER, ge=1, description="encoded images among which a stream of hf:NAME is shuffled"
    )


class Source(ABC):
    """One kind of word after --data; its entry in `runtime.registry.SOURCES` says which words those are."""

    @abstractmethod
    def open(self, name: str, options: SourceOptions) -> Dataset | Stream:
        """The data. name: what the user wrote, without the prefix of the entry."""

    def expected(self, options: SourceOptions, labelled: bool) -> DataSpec:
        """What an example will be, as far as that can be said without opening the data.

        Args:
            labelled: Whether labels are asked for.
        """
        size = options.size or 32
        classes = tuple(str(k) for k in range(options.classes or 10)) if labelled else ()
        return DataSpec((options.channels or 3, size, size), classes=classes, bins=256)


@dataclass(frozen=True)
class Embedded(Source):
    """Data that come with an installed package and are as they are.

    what: The beginning of a sentence that says how large they are.
    """

    make: Callable[[], Dataset]
    spec: DataSpec
    what: str

    def open(self, name: str, options: SourceOptions) -> Dataset:
        channels, size, _ = self.spec.shape
        if options.size not in (None, size) or options.channels not in (None, channels):
            raise InputError(
                f"{self.what}, not size {options.size or size} with {options.channels or channels} channels: "
                "leave size and channels out, or use images of your own"
            )
        return self.make()

    def expected(self, options: SourceOptions, labelled: bool) -> DataSpec:
        return self.spec
