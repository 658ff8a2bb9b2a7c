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
from types import ModuleType
from typing import Any

SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises", "Example", "Examples", "Note")
ENTRY = re.compile(r"    \*{0,2}(\w+)(?: \([^)]*\))?:(?: (.*))?")
EMPTY = frozenset(
    "a an the of to for in on by with and or is as it its this that value values given parameter argument".split()
)


def public_objects(package: str) -> dict[str, Any]:
    """{name: function or class} of the package's public names, each under the first name that it is reached by.

    Args:
        package: An importable module with `__all__`; modules named there are read too.
    """
    found: dict[int, tuple[str, Any]] = {}
    waiting = [(package, importlib.import_module(package))]
    seen: set[str] = set()
    while waiting:
        path, module = waiting.pop(0)
        if module.__name__ in seen:
            continue
        seen.add(module.__name__)
        for name in module.__all__:
            thing = getattr(module, name)
            if isinstance(thing, ModuleType):
                waiting.append((f"{path}.{name}", thing))
            elif inspect.isclass(thing) or inspect.isfunction(thing):
                found.setdefault(id(thing), (f"{path}.{name}", thing))
    return dict(found.values())


def own_bases(cls: type) -> list[type]:
    """The class and its bases, without those of other packages, which document themselves."""
    package = cls.__module__.partition(".")[0]
    return [base for base in cls.__mro__ if base.__module__.partition(".")[0] == package]


def docstring(thing: object) -> str:
    """The docstring as it was written; "" where there is none, or the one that `dataclass` makes up."""
    text = inspect.cleandoc(getattr(thing, "__doc__", None) or "")
    return "" if text.startswith(f"{getattr(thing, '__name__', None)}(") and "\n" not in text else text


def entries(text: str) -> dict[str, str]:
    """{name: description} of a docstring's sections Args and Attributes. ValueError for a line that is no entry."""
    found: dict[str, str] = {}
    section = name = ""
    for line in text.splitlines():
        if line[:1].strip():
            section = line[:-1] if line.endswith(":") and line[:-1] in SECTIONS else ""
        elif section in ("Args", "Attributes") and line.strip():
            entry = ENTRY.fullmatch(line)
            if entry:
                name = entry[1]
                found[name] = entry[2] or ""
            elif line.startswith("     ") and name:
                found[name] += f" {line.strip()}"
            else:
                raise ValueError(f"no 'name: description' in section {section}: {line.strip()!r}")
    return found


def repeats(description: str, *names: str) -> bool:
    """Whether a description has no word but those of the names and small words."""
    said = set(re.findall(r"[^\W_]+", description.lower())) - EMPTY
    return said <= {part for name in names for part in re.findall(r"[A-Z]?[^\W_A-Z]+|[A-Z]+", name)} | {
        part.lower() for name in names for part in re.findall(r"[A-Z]?[^\W_A-Z]+|[A-Z]+", name)
    }


def parameters(thing: Any) -> list[str]:
    """Names of what a callable takes, without self."""
    if inspect.isclass(thing):
        if getattr(thing, "_is_protocol", False) or not _constructed_here(thing):
            return []
    names = list(inspect.signature(thing).parameters)
    return [name for name in names if name not in ("self", "cls")]


def _constructed_here(cls: type) -> bool:
    makers = [vars(base).get("__init__") or vars(base).get("__new__") for base in own_bases(cls)]
    return any(makers) or hasattr(cls, "model_fields")


def attributes(cls: type) -> set[str]:
    """Names of what instances have, as far as the class says so: members, annotations and what methods assign."""
    assigned = re.compile(r"self\.(\w+)\s*[:=,]")
    return set(dir(cls)).union(*(re.findall(assigned, inspect.getsource(base)) for base in own_bases(cls)),
                               *(base.__dict__.get("__annotations__", {}) for base in own_bases(cls)))


def methods(cls: type) -> Iterator[tuple[str, Any, str]]:
    """(name, function or property, docstring) of the public methods, that of a base class where there is none."""
    bases = own_bases(cls)
    for name in sorted({name for base in bases for name in vars(base)}):
        if name.startswith("_") and name != "__call__":
            continue
        written = [vars(base)[name] for base in bases if name in vars(base)]
        kinds = (staticmethod, classmethod, property)
        if not (inspect.isfunction(written[0]) or isinstance(written[0], kinds) or hasattr(written[0], "func")):
            continue
        text = next((docstring(one) for one in written if docstring(one)), "")
        yield name, written[0], text


def mistakes(name: str, text: str, wanted: list[str], allowed: set[str], described: set[str]) -> list[str]:
    """What is wrong with one docstring.

    Args:
        name: Of the function or class, with that of its class before it.
        text: The docstring.
        wanted: Parameters that must be named.
        allowed: Further names that may be.
        described: Parameters that are described elsewhere, as fields of a table are by themselves.
    """
    if not text:
        return ["has no docstring"]
    try:
        named = entries(text)
    except ValueError as error:
        return [str(error)]
    summary = text.split("\n\n")[0]
    wrong = ["the docstring only repeats the name"] if repeats(summary, *name.split(".")[-2:]) else []
    wrong += [f"parameter {one} is not named" for one in wanted if one not in {*named, *described}]
    wrong += [f"{one} is named and does not exist" for one in named if one not in {*wanted, *allowed}]
    return wrong + [f"the description of {one} only repeats it" for one, said in named.items() if repeats(said, one)]


def check(package: str) -> tuple[int, int, list[str]]:
    """(public callables, their parameters, mistakes) of a package.

    Args:
        package: An importable module with `__all__`.
    """
    count = total = 0
    wrong: list[str] = []
    done: set[int] = set()

    def judge(name: str, thing: Any, text: str, wanted: list[str], allowed: set[str], described: set[str]) -> None:
        nonlocal count, total
        count, total = count + 1, total + len(wanted)
        code = getattr(thing, "__code__", None)
        place = f"{sys.modules[thing.__module__].__file__}:{code.co_firstlineno if code else inspect.getsourcelines(thing)[1]}"
        wrong.extend(f"{place}: {name}: {one}" for one in mistakes(name, text, wanted, allowed, described))

    for name, thing in public_objects(package).items():
        if inspect.isfunction(thing):
            judge(name, thing, docstring(thing), parameters(thing), set(), set())
            continue
        bases = own_bases(thing)
        if not bases:
            continue
        text, wanted = docstring(thing), parameters(thing)
        fields = getattr(thing, "model_fields", {})
        described = {one for one, field in fields.items() if field.description}
        for base in bases:  # what a base class says of its parameters need not be said again
            for one in (docstring(base), docstring(vars(base).get("__init__"))):
                described |= set(entries(one)) if one != text else set()
        judge(name, thing, text, wanted, attributes(thing), described)
        for method, member, said in methods(thing):
            if isinstance(member, property) or hasattr(member, "func"):
                function, takes = getattr(member, "fget", None) or member.func, []
            else:
                function = getattr(member, "__func__", member)
                takes = parameters(function)
            if id(function) not in done:
                done.add(id(function))
                judge(f"{name}.{method}", inspect.unwrap(function), said, takes, set(), set())
    return count, total, wrong


def main() -> int:
    """Check scorefield, and print what is wrong and how much was read."""
    count, total, wrong = check("scorefield")
    print(*wrong, sep="\n", end="\n" if wrong else "")
    print(f"docstrings: {count} public callables with {total} parameters read, {len(wrong)} mistakes")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
