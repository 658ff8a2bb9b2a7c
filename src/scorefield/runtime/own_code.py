"""Code of the user's own, which a file names as "module:Name": found only in modules that the caller allows.

A file never has code imported by itself. The caller says which modules it may name, `with allowing(["my_package"])`,
and what is found there must be a class that the module itself defines, of the concept that is asked for.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib import import_module
from pathlib import Path
from types import ModuleType

from scorefield.runtime.errors import InputError, first_reason

__all__ = ["allowed_modules", "allowing", "find_class", "is_own", "loaded_class", "where_raised"]

_ALLOWED: ContextVar[tuple[str, ...]] = ContextVar("allowed", default=())


@contextmanager
def allowing(modules: Iterable[str]) -> Iterator[None]:
    """Within the block, files may name classes of these modules and of the modules within them.

    Args:
        modules: Their names, or one name.
    Raises:
        InputError: For what are no names.
    """
    token = _ALLOWED.set((*_ALLOWED.get(), *allowed_modules(modules)))
    try:
        yield
    finally:
        _ALLOWED.reset(token)


def allowed_modules(modules: object) -> tuple[str, ...]:
    """The names of modules that a caller allows: several, or one. InputError for anything else."""
    names = (modules,) if isinstance(modules, str) else modules
    if not isinstance(names, Iterable):
        raise InputError(f'allow takes names of modules, such as ["my_package"], got {modules!r}')
    found = tuple(names)
    for name in found:
        if not isinstance(name, str):
            raise InputError(f'allow takes names of modules, such as ["my_package"], got {name!r}')
    return found


def is_own(kind: object) -> bool:
    """Whether a file's kind names code of the user's own, and not a word of the registry."""
    return isinstance(kind, str) and ":" in kind


def find_class(kind: str, where: str) -> type:
    """The class that "module:Name" names.

    Args:
        where: Which entry of the file names it, for messages.
    Raises:
        InputError: If its module was not allowed, before anything is imported; if it cannot be imported, or has no
            such class of its own.
    """
    module, _, name = kind.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), *name.split("."))):
        raise InputError(f"{where} must be a known word or module:Name, got {kind!r}")
    if not any(module == allowed or module.startswith(f"{allowed}.") for allowed in _ALLOWED.get()):
        raise InputError(
            f"{where} is code outside of scorefield ({kind}), which is imported only with your permission: if you "
            f"trust it, use sf.Run(path, allow=[{module!r}]) or sf.load(path, allow=[{module!r}]), or pass the "
            "object itself",
            command=f"--allow {module}",
        )
    home = _running_script(module) or _imported(module, where)
    found = _class_in(home, name)
    if found is None:
        raise InputError(f"{where}: the module {module} defines no class {name}")
    return found


def _imported(module: str, where: str) -> ModuleType:
    """The module. InputError for whatever importing it raises, which in Python is the error's cause."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise InputError(
            f"{where} names the module {module}, which cannot be imported ({error}): run from the folder that holds it, "
            "or set PYTHONPATH"
        ) from error
    except (Exception, SystemExit) as error:
        raise InputError(
            f"{where} names the module {module}, which cannot be imported: {where_raised(error)}"
        ) from error


def where_raised(error: BaseException) -> str:
    """An error in code of the user's own as one line: its kind, what it says, and the line of that code."""
    said = f"{type(error).__name__}: {first_reason(error)}" if str(error).strip() else type(error).__name__
    if isinstance(error, SyntaxError):  # which says its line
        return said
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
    home = str(Path(__file__).parent)  # the frames from here are the library's, the next one is the user's
    own = [f for f in frames if not f.filename.startswith(home)]
    return f"{said} ({own[0].filename}, line {own[0].lineno})" if own else said


def loaded_class(kind: str) -> type | None:
    """The class that "module:Name" names, if its module is imported already; otherwise None."""
    module, _, name = kind.partition(":")
    home = _running_script(module) or sys.modules.get(module)
    return None if home is None else _class_in(home, name)


def _running_script(module: str) -> ModuleType | None:
    """The script that runs, if this is the name of its file: importing it would run it again."""
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    return main if file is not None and Path(file).stem == module else None


def _class_in(home: ModuleType, name: str) -> type | None:
    """A class by its qualified name, if the module defines it; what it imported from elsewhere is not offered."""
    found: type | None = None
    for part in name.split("."):
        member = vars(home if found is None else found).get(part)
        if not isinstance(member, type) or member.__module__ != home.__name__:
            return None
        found = member
    return found
