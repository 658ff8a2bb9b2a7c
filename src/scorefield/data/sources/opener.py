"""The contract of a word after --data: it opens the data, and says what an example will be before that."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from scorefield.core.shapes import DataSpec
from scorefield.data.dataset import Dataset
from scorefield.data.images.own_size import USUAL
from scorefield.data.images.read import WHITE
from scorefield.data.sources.stream import BUFFER, Stream
from scorefield.runtime.bounds import LEVELS, SIDE, SIZE
from scorefield.runtime.errors import InputError
from scorefield.runtime.parsing import Options
from scorefield.runtime.registry import SOURCES

__all__ = ["ACCEPTED", "Embedded", "Opener", "SourceOptions"]


_SAID = {"FOLDER": "a folder of images (subfolders are classes)", "FILE.npz": "an .npz file"}
ACCEPTED = ", ".join(_SAID.get(entry, entry) for entry in SOURCES)  # what a user may write, in words


class SourceOptions(Options):
    """Where examples come from and how they are read."""

    source: str | None = Field(None, description=ACCEPTED)
    size: Annotated[int, Field(ge=1, le=SIDE)] | Literal["auto"] | None = Field(
        None,
        description="side in pixels that images are resized and cropped to; auto: the images' own side if all are "
        "squares of one size between 8 and 64 pixels, rounded down to a multiple of 4 (of 8 from 32 on), "
        "otherwise 32; default: 32 for a folder, unchanged for other sources",
    )
    channels: int | None = Field(
        None,
        ge=1,
        le=SIDE,
        description="1 (grey) or 3 (RGB); default: 3 for a folder, unchanged for other sources",
    )
    classes: int | None = Field(
        None,
        ge=1,
        le=LEVELS,
        description="number of classes: needed for a stream with integer labels; also used by commands that do not open "
        "the data",
    )
    upscale: bool = Field(
        False, description="enlarge images that are smaller than `size` instead of refusing them"
    )
    white: int = Field(
        WHITE,
        ge=1,
        le=WHITE,
        description="value of white in 16-bit images; 4095 where they use 12 bits",
    )
    column: str | None = Field(
        None,
        description="column of the images of hf:NAME; default: the only image column, or the one called image",
    )
    strict: bool = Field(False, description="fail on unreadable images instead of skipping them")
    stream: bool | None = Field(
        None,
        description="decode images batch by batch, and read hf:NAME during training without storing it; default: images "
        "of more than 2 GiB in memory are decoded batch by batch",
    )
    buffer: int = Field(
        BUFFER,
        ge=1,
        le=SIZE,
        description="size of the shuffle buffer of a stream of hf:NAME, in encoded images",
    )

    @property
    def side(self) -> int | None:
        """`size` where it is a number."""
        return None if self.size == "auto" else self.size


class Opener(ABC):
    """One kind of word after --data; its entry in `runtime.registry.SOURCES` says which words those are."""

    @abstractmethod
    def open(self, name: str, options: SourceOptions) -> Dataset | Stream:
        """Open the data.

        Args:
            name: What the user wrote, without the prefix of the entry.
            options: How it is read.
        """

    def own_side(self, name: str, options: SourceOptions) -> int | None:
        """The size that `auto` stands for; None for data of one size, and where the size is not that of images.

        Args:
            name: As of `open`.
            options: As of `open`.
        """
        return USUAL

    def knows_size(self, options: SourceOptions) -> bool:
        """Whether the shape of an example is known without opening the data; options: how it is read."""
        return options.side is not None

    def expected(self, options: SourceOptions, labelled: bool) -> DataSpec:
        """What an example will be, as far as that is known without opening the data.

        Args:
            options: How it is read.
            labelled: Whether labels are asked for.
        """
        size = options.side or USUAL
        classes = tuple(str(k) for k in range(options.classes or 10)) if labelled else ()
        return DataSpec((options.channels or 3, size, size), classes=classes, bins=256)


@dataclass(frozen=True)
class Embedded(Opener):
    """Data that come with an installed package, in one size.

    Attributes:
        make: Opens them.
        spec: What one example is.
        what: Begins the message that refuses another size.
    """

    make: Callable[[], Dataset]
    spec: DataSpec
    what: str

    def open(self, name: str, options: SourceOptions) -> Dataset:
        channels, size, _ = self.spec.shape
        if options.side not in (None, size) or options.channels not in (None, channels):
            raise InputError(
                f"{self.what}, not size {options.side or size} with {options.channels or channels} channels: remove "
                "size and channels, or use your own images"
            )
        return self.make()

    def own_side(self, name: str, options: SourceOptions) -> None:
        return None

    def knows_size(self, options: SourceOptions) -> bool:
        return True

    def expected(self, options: SourceOptions, labelled: bool) -> DataSpec:
        return self.spec
