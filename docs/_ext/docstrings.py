"""Docstrings as reStructuredText: plain text with formulas, in which a public name in backticks becomes a link.

What reStructuredText would read as markup (x_, *, |) is text, and an indented block outside the Google sections is code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import public_names

__all__ = ["paragraphs", "plain"]

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
