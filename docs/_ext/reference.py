"""Pages of the reference: an entry for every public name, from its docstring.

    ```{public-names} scorefield.samplers      all names of a public module
    ```
    ```{public-names}                          these names
    scorefield.Denoiser
    scorefield.ScoreModel
    ```
    ```{all-names}                             a table of the names of `scorefield` itself
    ```

Docstrings are plain text with formulas: what reStructuredText would read as markup in them (x_, *, |) is text, and a
public name in backticks becomes a link.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import public_names
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

__all__ = ["setup"]


def _parsed(directive: SphinxDirective, text: str) -> list[nodes.Node]:
    """reStructuredText inside a Markdown page."""
    lines = ["```````{eval-rst}", *text.splitlines(), "```````"]
    return directive.parse_text_to_nodes("\n".join(lines))


class PublicNames(SphinxDirective):
    """Summaries of the names, then an entry for each."""

    optional_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        names = public_names.names_of(self.arguments[0]) if self.arguments else list(self.content)
        summary = [".. autosummary::", "   :nosignatures:", "", *(f"   ~{name}" for name in names), ""]
        return _parsed(self, "\n".join([*summary, *(_entry(name) for name in names)]))


def _entry(name: str) -> str:
    thing = public_names.entries()[name]
    if inspect.isclass(thing):
        return f".. autoclass:: {name}\n   :members:\n   :show-inheritance:\n"
    if callable(thing) and not hasattr(thing, "__args__"):
        return f".. autofunction:: {name}\n"
    return f".. py:type:: {name}\n   :canonical: {_alias(thing)}\n"


def _alias(thing: Any) -> str:
    return re.sub(r"\b(?:\w+\.)+(\w+)", r"\1", str(thing))


class AllNames(SphinxDirective):
    """The modules and names of `scorefield`, each with a link and the first sentence of its docstring."""

    def run(self) -> list[nodes.Node]:
        names = [name for name in public_names.entries() if name.count(".") == 1]
        return _parsed(
            self, "\n".join([".. autosummary::", "   :nosignatures:", "", *(f"   ~{n}" for n in names)])
        )


CODE = re.compile(r"(``.+?``|`[^`]+`)")
MARKUP = re.compile(r"[\\*|]|(?<=\w)_(?!\w)|(?<=[⟩)\]])_(?=\W|$)")


def plain(line: str) -> str:
    """A line of a docstring in reStructuredText that shows it as it stands, names in backticks as links."""
    if line.lstrip().startswith((">>>", "...")):
        return line
    parts = CODE.split(line)
    return "".join(_code(part) if i % 2 else MARKUP.sub(r"\\\g<0>", part) for i, part in enumerate(parts))


def _code(span: str) -> str:
    text = span.strip("`")
    entry = public_names.short_names().get(text.removesuffix("()"))
    return f":py:obj:`{text} <{entry}>`" if entry else f"``{text}``"


SECTION = re.compile(r"(Args|Arguments|Attributes|Returns|Yields|Raises|Example|Examples|Note|Notes):$")


def paragraphs(lines: list[str]) -> Iterator[str]:
    """A docstring's lines in reStructuredText; an indented block outside the Google sections is Python code."""
    code = section = False
    before = ""
    for line in lines:
        indented = line.startswith("    ")
        if line.strip() and not indented:
            code, section = False, bool(SECTION.match(line))
        elif indented and not code and not section and not before.strip():
            code = True
            yield from (".. code-block:: python", "")
        yield line if code else plain(line)
        before = line


def _process(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = paragraphs(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("public-names", PublicNames)
    app.add_directive("all-names", AllNames)
    app.connect("autodoc-process-docstring", _process, priority=400)  # before napoleon reads the sections
    return {"parallel_read_safe": True}
