"""Text of other people's making, so that it shows on one line what it holds and does nothing to a terminal."""

from __future__ import annotations

import unicodedata

__all__ = ["one_line", "printable"]

# Controls (C0, DEL, C1), surrogates, separators of lines and paragraphs, and formats, which turn the direction
# of writing or are not seen. Of the formats, scripts and emoji need the two joiners.
_HIDDEN = ("Cc", "Cs", "Zl", "Zp", "Cf")
_LONGEST_REASON = 300  # characters of another library's message
_JOINERS = "\u200c\u200d"


def printable(text: object) -> str:
    r"""The text with what a terminal would act on, or not show, as a backslash escape: a newline is \n, the
    escape character \x1b, a lone surrogate \udc80.
    """
    text = str(text)
    return text if text.isascii() and text.isprintable() else "".join(map(_shown, text))


def one_line(text: object, at_most: int | None = _LONGEST_REASON) -> str:
    """A text of several lines, such as another library's message, on one: any white space is one space, the rest is as
    `printable` has it.

    Args:
        text: The text, or what says it by `str`.
        at_most: Characters after which it is cut. None: it is not cut.
    """
    said = str(text)
    if at_most is None:
        return printable(" ".join(said.split()))
    words = printable(
        " ".join(said[: 4 * at_most].split())
    )  # of a text of megabytes only the start is looked at
    return words if len(words) <= at_most else words[:at_most].rstrip() + "…"


def _shown(character: str) -> str:
    hidden = unicodedata.category(character) in _HIDDEN and character not in _JOINERS
    return character.encode("unicode_escape").decode("ascii") if hidden else character
