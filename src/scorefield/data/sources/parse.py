"""Parsing of `--data`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeVar

from scorefield.core.shapes import DataSpec
from scorefield.data.dataset import Dataset
from scorefield.data.sources.opener import ACCEPTED, Opener, SourceOptions
from scorefield.data.sources.stream import Stream
from scorefield.runtime.checks import brief, did_you_mean, instance_of
from scorefield.runtime.errors import InputError
from scorefield.runtime.parsing import parse
from scorefield.runtime.registry import SOURCES

__all__ = ["expected_spec", "knows_size", "open_source", "sized"]

Reading = TypeVar("Reading", bound=SourceOptions)
_NAME = ":NAME"


def open_source(source: str, **options: object) -> Dataset | Stream:
    """Open the data that a word names: `digits`, `portraits`, toy:NAME, a folder, an .npz file or hf:NAME.

    A folder called digits is ./digits.

    Args:
        source: What a user writes after --data.
        options: How it is read, see `SourceOptions`.
    Raises:
        InputError: For a word that names no source, and options that it does not take.
    """
    instance_of("a source of data", source, str, f"a word: {ACCEPTED}")
    asked = parse(SourceOptions, {**options, "source": source}, "data")
    entry, name = _entry(source)
    if entry is None:
        raise InputError(_unknown(source))
    if asked.column is not None and not entry.startswith("hf:"):
        raise InputError(f"{source} has no columns: remove column (data.column), which is for hf:NAME")
    opener: Opener = SOURCES[entry]
    return opener.open(name, sized(asked))


def sized(options: Reading) -> Reading:
    """The same with the size that `auto` stands for, which the data say. InputError where they cannot be looked at."""
    entry, name = _entry(options.source or "")
    if options.size != "auto" or entry is None:
        return options
    opener: Opener = SOURCES[entry]
    return options.model_copy(update={"size": opener.own_side(name, options)})


def expected_spec(options: SourceOptions, labelled: bool) -> DataSpec:
    """What an example of the source will be, without opening it; images where none is named.

    Args:
        labelled: Whether labels are asked for.
    """
    return _opener(options).expected(options, labelled)


def knows_size(options: SourceOptions) -> bool:
    """Whether the shape of `expected_spec` is that of the data, and no guess; its channels where they are given."""
    return _entry(options.source or "")[0] is not None and _opener(options).knows_size(options)


def _opener(options: SourceOptions) -> Opener:
    entry, _ = _entry(options.source or "")
    opener: Opener = SOURCES[entry or "FOLDER"]
    return opener


def _entry(word: str) -> tuple[str | None, str]:
    """The entry of `SOURCES` that takes a word, and the word without that entry's prefix."""
    if word in SOURCES:
        return word, word
    for entry in SOURCES:
        if entry.endswith(_NAME) and word.startswith(prefix := entry.removesuffix("NAME")):
            return entry, word.removeprefix(prefix)
    path = Path(os.path.expanduser(word))
    if word and os.path.isdir(path):
        return "FOLDER", word
    file = f"FILE{path.suffix.lower()}"
    return (file if path.suffix and file in SOURCES else None), word


def _unknown(word: str) -> str:
    if word and os.path.exists(os.path.expanduser(word)):
        return f"{word}: a file of this kind is not a source of data; accepted are {ACCEPTED}"
    near = did_you_mean(word.lower(), [entry for entry in SOURCES if entry.islower()])
    problem = f"{near.removeprefix(', ')}" if near else "there is no such file or folder."
    return f"{brief(word)} is not a source of data: {problem} Accepted are {ACCEPTED}"
