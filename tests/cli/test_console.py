"""What the command prints: foreign text is escaped and never markup, JSON is JSON, and a log that cannot be
written ends nothing.
"""

import errno
import io
import json
import logging
import sys
import warnings
from pathlib import Path

import matplotlib.figure
import pytest
from support import call

from scorefield.cli import console
from scorefield.plots.style import drawable, plot_style, save_figure
from scorefield.runtime.errors import IncompatibleModel

HOSTILE = "[/foo] [bold]b[/bold] :smile: \x1b[2J\n\u202e\udc80"
SHOWN = r"[/foo] [bold]b[/bold] :smile: \x1b[2J\n\u202e\udc80"


def test_lines_and_tables_show_foreign_text_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_line(HOSTILE)
    console.print_table((HOSTILE, "b"), [(HOSTILE, 1)], HOSTILE)
    out = capsys.readouterr().out
    assert out.count(SHOWN) == 4
    assert "\x1b" not in out
    console.say(HOSTILE)
    console.complain(HOSTILE)
    spoken = capsys.readouterr().err.splitlines()
    assert spoken == [SHOWN, "error: " + SHOWN.replace("\\n", " ")]


def test_a_recipe_is_printed_line_by_line(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_text('a = 1\r\n\tb = "\x1b[1m"\n')
    assert capsys.readouterr().out == 'a = 1\n\tb = "\\x1b[1m"\n'


def test_json_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    values = {"a": [float("nan"), (float("inf"), 1.5)], HOSTILE: {"b": "\x7f\x9b"}, "path": Path("x")}
    console.print_json(values)
    out = capsys.readouterr().out
    assert out.isascii()
    assert not set(out) & {"\x1b", "\x7f"}

    def refuse(word: str) -> None:
        raise AssertionError(word)

    found = json.loads(out, parse_constant=refuse)
    assert found == {"a": [None, [None, 1.5]], HOSTILE: {"b": "\x7f\x9b"}, "path": "x"}


def test_progress_shows_foreign_text_as_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "_SECONDS_BETWEEN_LINES", -1.0)
    with console.progress(HOSTILE, 3) as bar:
        bar.update(1, HOSTILE)
    assert capsys.readouterr().err.count(SHOWN) == 2
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with console.progress(HOSTILE, 3) as bar:
        bar.update(3, HOSTILE)
    assert "[/foo]" in capsys.readouterr().err


def test_warnings_and_log_lines_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    before = list(logging.getLogger().handlers)
    with console.speaking():
        warnings.warn("of\n\x1bb", UserWarning, stacklevel=1)
        logging.getLogger("some.library").warning("read %s", "\x1bc")
    assert capsys.readouterr().err.splitlines() == [r"warning: of \x1bb", r"read \x1bc"]
    assert logging.getLogger().handlers == before


def test_a_log_that_cannot_be_written_ends_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    closed = io.StringIO()
    closed.close()
    for stream in (Full(), closed, None):
        monkeypatch.setattr(sys, "stderr", stream)
        console.say("a")
        console.complain("b")
    assert capsys.readouterr().out == ""


def test_what_stdout_cannot_encode_is_escaped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "out").open("w", encoding="ascii") as out:
        monkeypatch.setattr(sys, "stdout", out)
        with console.speaking():
            console.print_line("σ/α é")
            console.print_table(("σ",), [("日本",)])
    assert r"\u03c3/\u03b1 \xe9" in (tmp_path / "out").read_text()


def test_the_command_adds_its_own_words_to_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text of an error is for Python; how the command says it comes after."""

    def refuse(*_: object, **__: object) -> None:
        raise IncompatibleModel("resume it", command="--resume")

    monkeypatch.setattr("scorefield.cli.app", refuse)
    status, _, err = call(capsys)
    assert (status, err) == (1, "error: resume it (--resume)\n")
    assert str(IncompatibleModel("resume it", command="--resume")) == "resume it"


def test_a_title_is_no_formula(tmp_path: Path) -> None:
    with plot_style():
        figure = matplotlib.figure.Figure()
        figure.suptitle(drawable(r"$\notacommand{$ and \$ \x1b" + "\x1b"))
        save_figure(figure, tmp_path / "x.png")
    assert (tmp_path / "x.png").is_file()
