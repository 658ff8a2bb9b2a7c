"""What a page makes a browser load from elsewhere: on this site, nothing."""

from __future__ import annotations

import re

__all__ = ["requests_of"]

# What a browser loads by itself; a link that a reader clicks is not among it.
_TAGS = r"(?:script|img|iframe|source|video|audio|embed|object|track|input|link)"
_LOADED = re.compile(
    rf"<{_TAGS}\b[^>]*?\b(?:src|srcset|data|href)\s*=\s*[\"']?((?:https?:)?//[^\"'\s>]+)", re.IGNORECASE
)
_IN_STYLES = re.compile(r"(?:url\(\s*[\"']?|@import\s+[\"'])((?:https?:)?//[^\"')\s]+)", re.IGNORECASE)
_NOT_LOADED = re.compile(
    r"<link\b[^>]*\brel\s*=\s*[\"']?(?:canonical|license|author|alternate)\b[^>]*>", re.IGNORECASE
)


def requests_of(text: str) -> list[str]:
    """The addresses off the machine that a page or a style sheet makes a browser load."""
    text = _NOT_LOADED.sub("", text)
    return [*_LOADED.findall(text), *_IN_STYLES.findall(text)]
