"""Check the docstrings of every public name: all parameters named, one a line, and none that does not exist.

python tools/check_docstrings.py      # `make lint` does

Public is what `__all__` of scorefield and of its public modules name, and the public methods and properties of those
classes. A method without a docstring has that of the base class in scorefield that it overrides. A description that only
repeats the name is refused. Not pydoclint: it reads one file at a time, so it knows neither what is public nor what is
inherited, skips what has no docstring, and counts nothing.
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises", "Example", "Examples", "Note")
ENTRY = re.compile(r"    \*{0,2}(\w+)(?: \([^)]*\))?:(?: (.*))?")
SMALL = {"a", "an", "the", "of", "to", "for", "in", "on", "by", "with", "and", "or", "is", "as", "it", "its"}
SMALL |= {"this", "that", "value", "values", "given", "parameter", "argument"}


@dataclass
class Found:
    """What was read, and what is wrong with it."""

    callables: int = 0
    parameters: int = 0
    mistakes: list[str] = field(default_factory=list)

    def judge(
        self, name: str, code: Any, text: str, wanted: list[str], also: set[str], said: set[str]
    ) -> None:
        """Count one callable, and note its mistakes.

        Args:
            name: By which it is reached.
            code: The function or class, for its place.
            text: Its docstring.
            wanted: Its parameters, which must be named.
            also: Further names that may be.
            said: Parameters that are described elsewhere.
        """
        self.callables, self.parameters = self.callables + 1, self.parameters + len(wanted)
        place = f"{inspect.getsourcefile(code)}:{inspect.getsourcelines(code)[1]}"
        self.mistakes += [f"{place}: {name}: {one}" for one in mistakes(name, text, wanted, also, said)]


def check(package: str) -> Found:
    """Read the docstrings of a package.

    Args:
        package: An importable module with `__all__`; modules that it names there are read too.
    """
    found, done = Found(), set()
    for name, thing in public_objects(package).items():
        if inspect.isfunction(thing):
            wanted, also = parameters(thing)
            found.judge(name, thing, docstring(thing), wanted, also, set())
            continue
        own = docstring(thing)
        elsewhere = {one for one, field in getattr(thing, "model_fields", {}).items() if field.description}
        for base in bases(thing):  # what a base class says of its parameters need not be said again
            elsewhere |= {name for text in texts(base) if text != own for name in entries(text)}
        found.judge(name, thing, own, constructor(thing), attributes(thing), elsewhere)
        for method, function, text in methods(thing):
            if function not in done:
                done.add(function)
                wanted, also = parameters(function)
                found.judge(f"{name}.{method}", function, text, wanted, also, set())
    return found


def mistakes(name: str, text: str, wanted: list[str], also: set[str], said: set[str]) -> list[str]:
    """What is wrong with one docstring; the arguments are those of `Found.judge`."""
    if not text:
        return ["has no docstring"]
    try:
        named = entries(text)
    except ValueError as error:
        return [str(error)]
    wrong = ["the docstring only repeats the name"] if repeats(text.split("\n\n")[0], name) else []
    wrong += [f"parameter {one} is not named" for one in wanted if one not in {*named, *said}]
    wrong += [f"{one} is named and does not exist" for one in named if one not in {*wanted, *also}]
    return wrong + [
        f"the description of {one} only repeats it" for one, told in named.items() if repeats(told, one)
    ]


def public_objects(package: str) -> dict[str, Any]:
    """{name: function or class} of a package's public names; those of other packages document themselves."""
    return {
        name: thing
        for name, thing in public_names(package).items()
        if inspect.isfunction(thing) or (inspect.isclass(thing) and bases(thing))
    }


def public_names(package: str) -> dict[str, Any]:
    """{name: object} of all public names but modules, each object under the first name that it is reached by."""
    found: dict[int, tuple[str, Any]] = {}
    for path, module in public_modules(package).items():
        for name in module.__all__:
            thing = getattr(module, name)
            if not isinstance(thing, ModuleType):
                found.setdefault(id(thing), (f"{path}.{name}", thing))
    return dict(found.values())


def public_modules(package: str) -> dict[str, ModuleType]:
    """{name: module} of a package and of the modules that its `__all__`, and theirs, name."""
    found = {package: importlib.import_module(package)}
    waiting = [package]
    for path in waiting:
        for name in found[path].__all__:
            thing = getattr(found[path], name)
            if isinstance(thing, ModuleType) and thing not in found.values():
                found[f"{path}.{name}"] = thing
                waiting.append(f"{path}.{name}")
    return found


def bases(cls: type) -> list[type]:
    """A class and its bases, without those of other packages, which document themselves."""
    package = cls.__module__.partition(".")[0]
    return [base for base in cls.__mro__ if base.__module__.partition(".")[0] == package]


def docstring(thing: object) -> str:
    """The docstring as it was written; "" where there is none, or one that Python made up for a class of data."""
    text = inspect.cleandoc(getattr(thing, "__doc__", None) or "")
    return "" if text.startswith(f"{getattr(thing, '__name__', None)}(") and "\n" not in text else text


def texts(cls: type) -> list[str]:
    """Where a class's parameters may be described: in its docstring, or in that of its constructor."""
    return [docstring(cls), docstring(vars(cls).get("__init__"))]


def entries(text: str) -> dict[str, str]:
    """{name: description} of a docstring's sections Args and Attributes. ValueError for a line that is no entry."""
    found: dict[str, str] = {}
    section = name = ""
    for line in text.splitlines():
        if line[:1].strip():
            section = line[:-1] if line.endswith(":") and line[:-1] in SECTIONS else ""
        elif section in ("Args", "Attributes") and line.strip():
            if entry := ENTRY.fullmatch(line):
                name = entry[1]
                found[name] = entry[2] or ""
            elif line.startswith("     ") and name:
                found[name] += f" {line.strip()}"
            else:
                raise ValueError(f"no 'name: description' in section {section}: {line.strip()!r}")
    return found


def repeats(description: str, name: str) -> bool:
    """Whether a description has no word but those of the name and small ones."""
    words = set(re.findall(r"[^\W_]+", description.lower())) - SMALL
    return words <= {part.lower() for part in re.findall(r"[A-Z]?[^\W_A-Z]+|[A-Z]+", name)}


def parameters(function: Any) -> tuple[list[str], set[str]]:
    """The names that a docstring must describe, without self; and those that `**options: Unpack[Table]` takes."""
    names, also = [], set()
    for name, parameter in inspect.signature(function).parameters.items():
        if table := re.fullmatch(r"Unpack\[(\w+)\]", str(parameter.annotation)):
            also |= set(_named_in(function, table[1]).__annotations__)
        if name not in ("self", "cls"):
            names.append(name)
    return names, also


def _named_in(function: Any, name: str) -> Any:
    """What a module calls by this name, also where it imports it for type checkers alone."""
    module = sys.modules[inspect.unwrap(function).__module__]
    imported = re.search(rf"from (\S+) import [^\n]*\b{name}\b", inspect.getsource(module))
    return getattr(importlib.import_module(imported[1]) if imported else module, name)


def constructor(cls: type) -> list[str]:
    """Names of a constructor's arguments; none of a protocol, or of a class without a constructor of its own."""
    own = any({"__init__", "__new__"} & set(vars(base)) for base in bases(cls)) or hasattr(
        cls, "model_fields"
    )
    return [] if getattr(cls, "_is_protocol", False) or not own else list(inspect.signature(cls).parameters)


def attributes(cls: type) -> set[str]:
    """Names of what instances have: members, annotated names, and what methods assign."""
    names = set(dir(cls))
    for base in bases(cls):
        names |= {
            *inspect.get_annotations(base),
            *re.findall(r"self\.(\w+)\s*[:=,]", inspect.getsource(base)),
        }
    return names


def methods(cls: type) -> Iterator[tuple[str, Any, str]]:
    """(name, function, docstring) of the public methods and properties that the package itself defines."""
    package, classes = cls.__module__.partition(".")[0], bases(cls)
    for name in sorted({name for base in classes for name in vars(base)}):
        if name.startswith("_") and name != "__call__":
            continue
        written = [vars(base)[name] for base in classes if name in vars(base)]
        member = written[0]
        kept = getattr(member, "fget", None) or getattr(
            member, "func", None
        )  # of a property, of a cached one
        function = kept or getattr(member, "__func__", member)
        if inspect.isfunction(function) and function.__module__.partition(".")[0] == package:
            yield name, function, next((text for text in map(docstring, written) if text), "")


def main() -> int:
    """Check scorefield, and print what is wrong and how much was read."""
    found = check("scorefield")
    for mistake in found.mistakes:
        print(mistake)
    print(
        f"docstrings: {found.callables} public callables with {found.parameters} parameters, "
        f"{len(found.mistakes)} mistakes"
    )
    return 1 if found.mistakes else 0


if __name__ == "__main__":
    sys.exit(main())
