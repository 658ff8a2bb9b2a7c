"""The Sphinx extension of this site: directives that are filled from the code, and checks of what was built.

{public-names} scorefield.samplers      an entry for every name of a public module, or for the names in its body
{all-names}                             a table of the names of `scorefield` itself
{command-reference}, {recipe-list}, {settings-list}
{paper-list}, {test-sources}, {marked-internals}
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_origin

import public_names
from docstrings import paragraphs
from docutils import nodes
from formulas import Formulas
from from_code import commands_page, recipes_page, settings_page
from offline import requests_of
from papers import internals_page, paper_page, tests_page
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

__all__ = ["setup"]

PAGES: dict[str, Callable[[], str]] = {
    "command-reference": commands_page,
    "recipe-list": recipes_page,
    "settings-list": settings_page,
    "paper-list": paper_page,
    "test-sources": tests_page,
    "marked-internals": internals_page,
}


class PublicNames(SphinxDirective):
    """Summaries of the names, then an entry for each."""

    optional_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        names = public_names.names_of(self.arguments[0]) if self.arguments else list(self.content)
        return _parsed(self, "\n".join([_summaries(names), *map(_entry, names)]))


class AllNames(SphinxDirective):
    """The names of `scorefield`, each with a link and the first sentence of its docstring."""

    def run(self) -> list[nodes.Node]:
        return _parsed(self, _summaries([name for name in public_names.entries() if name.count(".") == 1]))


def _parsed(directive: SphinxDirective, text: str) -> list[nodes.Node]:
    """reStructuredText inside a Markdown page."""
    return directive.parse_text_to_nodes(f"```````{{eval-rst}}\n{text}\n```````")


def _summaries(names: list[str]) -> str:
    return "\n".join([".. autosummary::", "   :nosignatures:", "", *(f"   ~{name}" for name in names), ""])


def _entry(name: str) -> str:
    thing = public_names.entries()[name]
    if inspect.isclass(thing):
        return f".. autoclass:: {name}\n   :members:\n   :show-inheritance:\n"
    if callable(thing) and not hasattr(thing, "__args__"):
        return f".. autofunction:: {name}\n"
    return f".. py:type:: {name}\n   :canonical: {_short(thing)}\n"


def _short(alias: object) -> str:
    """A type without the modules of its parts: "Tensor | Sequence[float]"."""
    return re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", str(alias))


def _page(text: Callable[[], str]) -> type[SphinxDirective]:
    class Generated(SphinxDirective):
        def run(self) -> list[nodes.Node]:
            return self.parse_text_to_nodes(text(), allow_section_headings=True)

    return Generated


def _docstring(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    is_alias = get_origin(obj) is not None  # whose docstring is that of every union
    if lines and lines[0].startswith("Alias for field number"):  # Python's text on a field of a NamedTuple
        lines[:] = []
    lines[:] = [f"The type ``{_short(obj)}``."] if is_alias else paragraphs(lines)


def _loaded_from_elsewhere(folder: Path) -> Iterator[str]:
    for path in sorted(folder.rglob("*")):
        if path.suffix in (".html", ".css"):
            for address in requests_of(path.read_text(encoding="utf-8")):
                yield f"{path.relative_to(folder)}: {address}"


def _check(app: Sphinx, failure: Exception | None) -> None:
    """Fail where a page asks for something off the machine, or where a public name has no entry."""
    if failure is not None or app.builder.format != "html":
        return
    if found := list(_loaded_from_elsewhere(Path(app.outdir))):
        raise ExtensionError("pages load what is off the machine:\n" + "\n".join(found))
    documented = app.env.domains["py"].data["objects"]
    if missing := [name for name in public_names.entries() if name not in documented]:
        raise ExtensionError("public names without an entry in docs/reference: " + ", ".join(missing))


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("public-names", PublicNames)
    app.add_directive("all-names", AllNames)
    for name, text in PAGES.items():
        app.add_directive(name, _page(text))
    app.add_post_transform(Formulas)
    app.connect("autodoc-process-docstring", _docstring, priority=400)  # before napoleon reads the sections
    app.connect("build-finished", _check)
    return {"parallel_read_safe": True}
