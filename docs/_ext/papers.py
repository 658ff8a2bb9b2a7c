"""Papers → code → test, from the marks alone, as Markdown."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from typing import Any

import public_names
from marks import Mark, Paper, marks_in_source, papers_cited, tests_of

__all__ = ["internals_page", "paper_page", "target", "tests_page"]

_ORDER = ("", "§", "Theorem", "Lemma", "Eq.", "Algorithm", "Table", "Appendix")


def target(mark: Mark) -> Any:
    """The module, class, function or constant that a mark stands in."""
    thing: Any = importlib.import_module(_module(mark))
    for word in mark.owner.split(".") if mark.owner else ():
        thing = getattr(thing, word)
    return thing


def _module(mark: Mark) -> str:
    path = mark.file.removeprefix("src/").removesuffix(".py").removesuffix("/__init__")
    return path.replace("/", ".")


def _reference(mark: Mark) -> str | None:
    """The entry of the reference for what a mark stands in; None for a module, a constant and what is private."""
    by_object = {id(thing): name for name, thing in public_names.entries().items()}
    first, _, rest = mark.owner.partition(".")
    thing = getattr(importlib.import_module(_module(mark)), first) if first else None
    entry = by_object.get(id(thing))
    if entry is not None and not rest.startswith("_"):
        return f"{entry}.{rest}" if rest else entry
    if (inspect.isfunction(thing) or inspect.isclass(thing)) and not re.search(r"(^|\.)_", mark.owner):
        return f"{_module(mark)}.{mark.owner}"
    return None


def _internals() -> list[str]:
    """The functions and classes with a mark that are not public names: "scorefield.process.transitions.posterior"."""
    public = public_names.entries()
    found = {_reference(mark) for mark in marks_in_source()} - {None}
    outside = (
        name for name in found if name and name not in public and name.rpartition(".")[0] not in public
    )
    return sorted(outside)


def _label(test: Mark) -> str:
    return re.sub(r"[^a-z0-9]+", "-", f"{test.file}-{test.owner}".removeprefix("tests/").lower())


def _sorting(mark: Mark) -> tuple[int, list[int], str]:
    kind, _, number = mark.places[0].replace("§", "§ ").partition(" ")
    return _ORDER.index(kind), [int(part) for part in re.findall(r"\d+", number)], mark.file


def _rows(paper: Paper) -> Iterator[Mark]:
    """The marks of a paper; one of a module only where nothing within it has the same."""
    found = [mark for mark in marks_in_source() if mark.tag == paper.tag]
    inner = {(mark.file, place) for mark in found if mark.owner for place in mark.places}
    rows = [m for m in found if m.owner or not {(m.file, place) for place in m.places} <= inner]
    yield from sorted({(m.file, m.owner, m.places): m for m in reversed(rows)}.values(), key=_sorting)


def _cell(text: str) -> str:
    return re.sub(r"([|*<\[\]_`$\\])", r"\\\1", text)


def paper_page() -> str:
    """A table for each paper."""
    lines: list[str] = []
    for paper in papers_cited():
        arxiv = f" arXiv {paper.arxiv}." if paper.arxiv else ""
        lines += [f"## {paper.tag}: {paper.title}" if paper.tag.isupper() else f"## {paper.title}", ""]
        lines += [f"{paper.authors} ({paper.year}). {paper.where}.{arxiv} In docstrings: `{paper.tag}`.", ""]
        lines += [":::{div} papers", "| where | what it says | function | test |", "|---|---|---|---|"]
        for mark in _rows(paper):
            tests = "<br>".join(f"• {{ref}}`{_words(test)} <{_label(test)}>`" for test in tests_of(mark))
            where = ", ".join(place for place in mark.places if place) or "the paper"
            lines.append(f"| {where} | {_cell(mark.says)} | {_function(mark)} | {tests} |")
        lines += [":::", ""]
    return "\n".join(lines)


def _words(test: Mark) -> str:
    """The name of a test, which says what it holds, as words."""
    return test.owner.removeprefix("test_").replace("_", " ")


def _function(mark: Mark) -> str:
    entry = _reference(mark)
    if entry is not None:
        return f"{{py:obj}}`{mark.owner} <{entry}>`"
    name = ".".join(filter(None, (_module(mark).removeprefix("scorefield."), mark.owner)))
    return f"`{name}`"


def tests_page() -> str:
    """The source of every test that holds an equation."""
    tests = {(test.file, test.owner): test for mark in marks_in_source() for test in tests_of(mark)}
    lines: list[str] = []
    last = ""
    for (file, owner), test in sorted(tests.items()):
        if file != last:
            lines += [f"## {file}", ""]
            last = file
        lines += [
            f"({_label(test)})=",
            f"### {owner}",
            "",
            f"```{{literalinclude}} ../{file}",
            f":pyobject: {owner}",
            "```",
            "",
        ]
    return "\n".join(lines)


def internals_page() -> str:
    entries = []
    for name in _internals():
        module, _, word = name.rpartition(".")
        thing = getattr(importlib.import_module(module), word)
        entries.append(
            f".. autoclass:: {name}\n   :members:\n"
            if inspect.isclass(thing)
            else f".. autofunction:: {name}\n"
        )
    return "\n".join(["```{eval-rst}", *entries, "```"])
