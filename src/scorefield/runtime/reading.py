"""Reading a file that others may have made: regular, of bounded size, and every failure is one sentence.

Nothing else in the library opens a file for reading (tests/test_layout.py).
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

from scorefield.runtime.checks import brief
from scorefield.runtime.errors import InputError, ScorefieldError
from scorefield.runtime.printable import one_line

__all__ = [
    "LONGEST_TABLE",
    "LONGEST_TEXT",
    "MissingFile",
    "TooManyFiles",
    "as_path",
    "open_file",
    "parse_toml",
    "read_bytes",
    "read_json",
    "read_text",
    "read_toml",
    "reading",
]

LONGEST_TEXT = 2**26  # bytes of a text
LONGEST_TABLE = 2**24  # bytes of JSON or TOML, whose values take up to twenty times as many

# Without O_NONBLOCK, opening a named pipe waits for a writer; regular files ignore it. Windows has none of these.
_FLAGS = os.O_RDONLY | sum(
    getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY")
)
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_NO_DESCRIPTOR = (errno.EMFILE, errno.ENFILE)
_PARTS = 100  # of a key with dots
_ROOM = 200  # bytes of a path for what may lie in the folder that it names
_PART = r"""(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')"""
_LONG_KEY = re.compile(rf"(?<![\w-]){_PART}(?:[ \t]*+\.[ \t]*+{_PART}){{{_PARTS}}}")
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class MissingFile(InputError):
    """There is no file of this name."""


class TooManyFiles(ScorefieldError):
    """This process, or the system, can open no further file: no fault of the file, so it is no InputError, which many
    readers take for a damaged file that they can do without.
    """

    def __init__(self, path: str) -> None:
        super().__init__(
            f"{path}: cannot be opened, because too many files are open: close some, or raise the limit (ulimit -n)"
        )


def as_path(path: object, what: str) -> Path:
    """The path that a user gave, with ~ as the home folder. InputError for what is none.

    Args:
        path: Text or a path.
        what: What the path is of, with an article, for the error: "a run".
    """
    if not isinstance(path, str | os.PathLike) or not isinstance(os.fspath(path), str):
        raise InputError(f"{what} is named by its path, got {brief(path)}")
    found = os.path.expanduser(path)
    try:
        os.lstat(os.path.join(found, "x" * _ROOM))
    except ValueError:  # a NUL, or characters that no file name has
        raise InputError(
            f"{what} is named by its path, and no file can have the name {brief(path)}"
        ) from None
    except OSError as error:  # most often there is no such file, which may be right
        if error.errno == errno.ENAMETOOLONG:
            raise InputError(
                f"{what} is named by its path, and no file can have a name of {len(str(path)):,} characters"
            ) from None
    return Path(found)


@contextmanager
def open_file(
    path: str | os.PathLike[str], what: str, at_most: int | None = None, follow: bool = True
) -> Iterator[BufferedReader]:
    """A regular file, opened for reading bytes.

    Args:
        path: The file.
        what: What it should be, with an article, for the errors: "a recipe".
        at_most: Bytes that it may have. Default: any number.
        follow: Open what a symbolic link points to. False: refuse a link.
    Raises:
        MissingFile: There is nothing of this name.
        InputError: For a folder, a named pipe, a device or a socket, for a file that is larger, and for one
            that may not be opened.
        TooManyFiles: No further file can be opened.
    """
    name, path = _shown(path), os.fspath(path)
    try:
        descriptor = os.open(path, _FLAGS | (0 if follow else _NOFOLLOW))
    except (OSError, ValueError) as error:  # ValueError: a NUL, or characters that no file name has
        raise _not_opened(name, what, error, follow) from None
    try:
        _check(os.fstat(descriptor), name, what, at_most)
        file = os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise
    with file:
        yield file


def read_bytes(
    path: str | os.PathLike[str], what: str, at_most: int = LONGEST_TEXT, follow: bool = True
) -> bytes:
    """All bytes of a regular file; arguments and errors as `open_file`.

    Files of /proc say that they are empty, and others grow: no more than `at_most` bytes are ever read.
    """
    with open_file(path, what, at_most, follow) as file, reading(path):
        content = file.read(at_most + 1)
    if len(content) > at_most:
        raise _too_large(_shown(path), what, at_most, "more")
    return content


def read_text(
    path: str | os.PathLike[str], what: str, at_most: int = LONGEST_TEXT, follow: bool = True
) -> str:
    """All of a regular file in UTF-8, without the mark that some editors put before it; arguments and errors as `open_file`.
    InputError for other text.
    """
    content = read_bytes(path, what, at_most, follow)
    with reading(path):
        return content.decode("utf-8-sig")


def read_json(
    path: str | os.PathLike[str], what: str, at_most: int = LONGEST_TABLE, follow: bool = True
) -> Any:
    """The value in a JSON file; arguments and errors as `open_file`. InputError for text that is no JSON."""
    text = read_text(path, what, at_most, follow)
    with reading(path):
        return json.loads(text)


def read_toml(
    path: str | os.PathLike[str], what: str, at_most: int = LONGEST_TABLE, follow: bool = True
) -> dict[str, Any]:
    """The tables in a TOML file; arguments and errors as `open_file`. InputError for text that is no TOML."""
    text = read_text(path, what, at_most, follow)
    with reading(path):
        return parse_toml(text)


def parse_toml(text: str) -> dict[str, Any]:
    """The tables in a TOML text. ValueError for text that is no TOML, and for a key of more than 100 parts: the time
    that parsing one takes grows with the square of their number, hours in a megabyte.
    """
    if (found := _LONG_KEY.search(text)) is not None:
        line = text.count("\n", 0, found.start()) + 1
        raise ValueError(f"a key of more than {_PARTS} parts (at line {line})")
    return tomllib.loads(text)


@contextmanager
def reading(what: str | os.PathLike[str]) -> Iterator[None]:
    """Every failure of the block becomes an InputError of one line, which says what was read and why it failed;
    errors of this library pass.

    For code that reads what others have made: parsers, decoders and the libraries behind them fail in kinds
    of their own, and none of them is a fault of this library.

    Args:
        what: The file, and where it helps the place in it: "RUN/config.toml, [model]".
    """
    try:
        yield
    except ScorefieldError:
        raise
    except Exception as fault:
        if isinstance(fault, OSError) and fault.errno in _NO_DESCRIPTOR:
            raise TooManyFiles(_shown(what)) from None
        raise InputError(f"{_shown(what)}: cannot be read ({_reason(fault)})") from None


def _shown(path: str | os.PathLike[str]) -> str:
    """A path as text that can be printed, whichever bytes it holds."""
    return os.fspath(path).encode("utf-8", "backslashreplace").decode()


def _reason(fault: Exception) -> str:
    said = one_line(fault)
    match fault:
        case RecursionError():
            return "it is nested too deeply"
        case MemoryError():
            return f"it needs more memory than there is{said and ': ' + said}"
        case UnicodeDecodeError():
            return f"it is not text in UTF-8: byte {fault.start}"
        case tomllib.TOMLDecodeError():
            return f"it is not valid TOML: {said}"
        case json.JSONDecodeError():
            return f"it is not valid JSON: {said}"
        case OSError():
            return fault.strerror or said
        case UnicodeEncodeError():
            return "no file can have such a name"
        case ValueError() if "embedded null" in said:
            return "no file can have such a name"
        case KeyError():
            return f"{said} is missing"
        case ValueError() if "integer string conversion" in said:
            return "it holds an integer of thousands of digits"
    return said or type(fault).__name__


def _not_opened(path: str, what: str, error: OSError | ValueError, follow: bool) -> ScorefieldError:
    if isinstance(error, OSError) and error.errno in _NO_DESCRIPTOR:
        return TooManyFiles(path)
    if isinstance(error, FileNotFoundError):
        return MissingFile(f"{path}: there is no such file; expected {what}")
    if isinstance(error, OSError) and error.errno == errno.ELOOP and not follow:
        return InputError(f"{path}: this is a symbolic link, not a regular file; expected {what}")
    return InputError(f"{path}: cannot be opened ({_reason(error)}); expected {what}")


def _check(found: os.stat_result, path: str, what: str, at_most: int | None) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = next((word for test, word in _KINDS if test(found.st_mode)), "something else")
        raise InputError(f"{path}: this is {kind}, not a regular file; expected {what}")
    if at_most is not None and found.st_size > at_most:
        raise _too_large(path, what, at_most, f"{found.st_size:,}")


def _too_large(path: str, what: str, at_most: int, size: str) -> InputError:
    return InputError(f"{path}: this file has {size} bytes; expected {what}, of at most {at_most:,} bytes")
