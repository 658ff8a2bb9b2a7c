"""Blocks of formulas: each line wraps in a narrow column, and its label [PAPER Eq. n] stands at the right or below it."""

from __future__ import annotations

import html
import re
from typing import Any

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform

__all__ = ["Formulas", "formula_lines"]

LABEL = re.compile(r"^(.*\S)\s{2,}(\[[^\[\]]+\])$")
SYMBOLS = re.compile(r"[αβγεηθλμσςτφωΣΠ∂∇√∫‖]")
NO_FORMULA = re.compile(r"scorefield |──|^\s*(#|import |from |\$ |make )", re.MULTILINE)


def formula_lines(text: str) -> list[tuple[str, str]] | None:
    """(formula, label or "") of each line; None for a block that is no formula.

    Args:
        text: A literal block without a language.
    """
    if NO_FORMULA.search(text) or not SYMBOLS.search(text):
        return None
    lines = []
    for line in text.rstrip().splitlines():
        found = LABEL.match(line)
        lines.append((found[1], found[2]) if found else (line, ""))
    return lines


class Formulas(SphinxPostTransform):
    """Blocks of formulas as lines that wrap, in place of a block that scrolls."""

    default_priority = 400  # before the code of other blocks is coloured
    formats = ("html",)

    def run(self, **kwargs: Any) -> None:
        for block in list(self.document.findall(nodes.literal_block)):
            if block.get("language", "none") not in ("none", "default", "text"):
                continue
            if lines := formula_lines(block.astext()):
                block.replace_self(nodes.raw("", _html(lines), format="html"))


def _html(lines: list[tuple[str, str]]) -> str:
    rows = []
    for formula, label in lines:
        at_right = f'<span class="label">{html.escape(label)}</span>' if label else ""
        rows.append(f'<div><span class="formula">{html.escape(formula)}</span>{at_right}</div>')
    return f'<div class="formulas">{"".join(rows)}</div>'
