"""A run folder: config.toml, model.safetensors (the averaged weights), checkpoints/, metrics.jsonl, samples/."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import tomli_w

from scorefield.runtime.atomic import (
    append,
    atomic_folder,
    drop_abandoned,
    is_partial,
    make_folders,
    write_error,
    write_file,
)
from scorefield.runtime.checks import unwritable
from scorefield.runtime.errors import InputError
from scorefield.runtime.reading import MissingFile, open_file, read_toml, reading
from scorefield.store.formats import stamp, upgraded, without_stamp

__all__ = ["RunFolder", "check_name", "fitting_name"]

_LONGEST_NAME = 100  # bytes
_LONGEST_METRICS = 2**32  # bytes
_LONGEST_LINE = 2**20  # bytes


class RunFolder:
    """The files of one run, and the rules for writing them.

    Args:
        path: The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.toml"
        self.weights = path / "model.safetensors"
        self.checkpoints = path / "checkpoints"
        self.metrics = path / "metrics.jsonl"
        self.samples = path / "samples"
        self.grids = path / "grids"
        self.profiles = path / "profiles"
        self.unreadable_files = path / "broken-files.txt"
        self.lock = path / ".lock"

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    def profile(self, step: int, name: str) -> Path:
        """The file of a stored average.

        Args:
            step: Of how many steps.
            name: Which one, such as "profile-0.05".
        """
        return self.profiles / f"step-{step:08d}-{name}.safetensors"

    def require(self) -> RunFolder:
        """This folder, if it holds a run.

        Raises:
            InputError: Where it holds none.
        """
        if not self.config.is_file():
            inside = Path("runs") / self.path
            meant = f", did you mean {inside}?" if (inside / self.config.name).is_file() else ""
            raise InputError(f"{self.path} is not a run: it has no config.toml{meant}")
        return self

    def check_free(self) -> None:
        """Check that a run can be made here.

        Raises:
            InputError: Where there is already a run, or anything else but what is left of a run killed while
                it was made, and where no folder can be made.
        """
        if self.config.exists():
            raise InputError(
                f"{self.path} already holds a run: resume it, or choose another folder",
                command="--resume",
            )
        if self.path.exists() and (
            not self.path.is_dir() or any(not self._is_beginning(path) for path in self.path.iterdir())
        ):
            raise InputError(
                f"{self.path} exists and is not an empty folder: choose another folder for the run"
            )
        above = next(path for path in (self.path, *self.path.absolute().parents) if os.path.lexists(path))
        if not above.is_dir():
            raise InputError(f"{self.path} cannot be created: {above} is not a folder")
        if (error := write_error(above)) is not None:
            raise unwritable(self.path, error)

    def make(self) -> None:
        """Make the folder, with those above it.

        Raises:
            InputError: Where it is not free or cannot be made.
        """
        self.check_free()
        try:
            make_folders(self.path)
        except OSError as error:
            raise InputError(f"{self.path} cannot be created ({error.strerror})") from None

    @contextmanager
    def whole(self) -> Iterator[RunFolder]:
        """A folder to fill that becomes this one when the block ends well.

        Raises:
            InputError: Where it is not free or cannot be written.
        """
        self.check_free()
        try:
            with atomic_folder(self.path, last=self.config.name) as partial:
                yield RunFolder(partial)
        except OSError as error:
            raise unwritable(self.path, error) from None

    def _is_beginning(self, path: Path) -> bool:
        """Whether this is there before config.toml is: the lock, and the checkpoint of step 0."""
        if path == self.checkpoints and path.is_dir():
            return all("-00000000" in checkpoint.name for checkpoint in path.iterdir())
        return path == self.lock or is_partial(path)

    def write_config(self, description: Mapping[str, object]) -> None:
        """Write config.toml, with the number of its format.

        Args:
            description: Its tables; values that are None are left out.
        """
        _replace_text(self.config, tomli_w.dumps({**stamp(), **_without_none(without_stamp(description))}))

    def config_version(self) -> tuple[int, int] | None:
        """What changes whenever config.toml is written, as every writer of the run does at its start; None where there
        is none.
        """
        try:
            found = self.config.stat()
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    def read_config(self) -> dict[str, Any]:
        """config.toml as a dictionary, in today's names and without its format.

        Raises:
            InputError: Where it is missing, not TOML, or of a newer version.
        """
        tables = read_toml(self.require().config, "the description of a run")
        with reading(self.config):
            return upgraded(tables, self.config)

    def append_metrics(self, values: Mapping[str, object]) -> None:
        """Append a line to metrics.jsonl.

        Args:
            values: Of one step.

        Raises:
            InputError: Where it cannot be written.
        """
        try:
            append(self.metrics, json.dumps(values) + "\n")
        except OSError as error:
            raise unwritable(self.metrics, error, self.what_is_left()) from None

    def what_is_left(self) -> str:
        """What an error says of the checkpoints: whether there are any."""
        there = self.checkpoints.is_dir() and any(not is_partial(path) for path in self.checkpoints.iterdir())
        return "the checkpoints are intact" if there else "there are no checkpoints in it"

    def truncate_metrics(self, step: int) -> None:
        """Drop the lines of later steps, and any line that was cut off while being written.

        Args:
            step: The last step that is kept.
        """
        try:
            with open_file(self.metrics, "the metrics of a run", _LONGEST_METRICS, follow=False) as file:
                kept = [line for line in _lines(file) if _step_of(line) <= step]
        except MissingFile:
            return
        _replace_text(self.metrics, "".join(kept))


def check_name(name: str) -> str:
    """A name of which folders are called, such as a recipe's. ValueError for what is no single part of a path that can be
    printed.
    """
    if name != fitting_name(name):
        raise ValueError(
            f"must be one part of a path: at most {_LONGEST_NAME} bytes of printable characters without / and \\"
        )
    return name


def fitting_name(text: str) -> str:
    """The text with an underscore for each character that `check_name` refuses, cut where it is too long."""
    name = "".join(c if c.isprintable() and c not in "/\\" else "_" for c in text)
    name = name.encode(errors="replace")[:_LONGEST_NAME].decode(errors="ignore").strip()
    return "_" if name in ("", ".", "..") else name


def _replace_text(path: Path, text: str) -> None:
    """Write a text file atomically. InputError where it cannot be written."""
    drop_abandoned(path)
    try:
        write_file(path, text)
    except OSError as error:
        raise unwritable(path, error, "the previous contents are intact") from None


def _lines(file: BinaryIO) -> Iterator[str]:
    """The lines of a file, each with its line break; none that are longer than any of ours."""
    whole = True
    while part := file.readline(_LONGEST_LINE):
        ends = part.endswith(b"\n")
        if whole and (ends or len(part) < _LONGEST_LINE):
            yield part.decode(errors="replace").removesuffix("\n") + "\n"
        whole = ends


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return float("inf")


def _without_none(value: Any) -> Any:
    """TOML has no null: leave out what is None."""
    if isinstance(value, Mapping):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list | tuple):
        return [_without_none(item) for item in value]
    return value
