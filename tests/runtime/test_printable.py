"""Foreign text on a terminal: what a terminal would act on is shown as an escape."""

import pytest

from scorefield.runtime.printable import one_line, printable

ESCAPED = {
    "new\nerror: forged.png": r"new\nerror: forged.png",
    "\x1b[2J\x1b]0;title\x07": r"\x1b[2J\x1b]0;title\x07",
    "back\rspace\x08\x7f": r"back\rspace\x08\x7f",
    "\x85next \x9b31m": r"\x85next \x9b31m",  # C1: a newline, and ESC [ in one character
    "gnp.\u202eexe \u2066a\u2069 \u200f": r"gnp.\u202eexe \u2066a\u2069 \u200f",
    "\u2028line\u2029paragraph\ufeff": r"\u2028line\u2029paragraph\ufeff",
    "\udce9t\udce9": r"\udce9t\udce9",  # a file name of Latin-1 bytes, as Python reads it
    "\U000e0041": r"\U000e0041",
}


@pytest.mark.parametrize("text", ESCAPED)
def test_what_a_terminal_acts_on_is_escaped(text: str) -> None:
    assert printable(text) == ESCAPED[text]
    printable(text).encode("utf-8")


@pytest.mark.parametrize(
    "text", ["", "été [bold]x[/bold] $x$ \\", "σ/α ≤ 1 日本 🐈", "می\u200cخواهم 👩\u200d🚀"]
)
def test_what_people_write_stays(text: str) -> None:
    assert printable(text) == text
    assert printable(7) == "7"


def test_a_message_is_one_line() -> None:
    assert one_line("size mismatch:\n\tfrom \x1b[1m3") == r"size mismatch: from \x1b[1m3"


def test_a_long_text_is_cut_unless_all_of_it_is_asked_for() -> None:
    assert one_line("a\n  b\tc") == "a b c"
    assert one_line("ab" * 100, 5) == "ababa…"
    assert one_line("\x1b" * 100, 6) == r"\x1b\x…"
    assert len(one_line("word " * 1_000_000)) < 400
    assert one_line("ab" * 1000, None) == "ab" * 1000
