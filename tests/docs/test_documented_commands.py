"""Every command, option, setting, Python block, name of `sf`, script and make target in the documents exists."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer

import scorefield as sf
from scorefield.cli import app
from scorefield.runs.settings import sections, settings_of

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    *ROOT.glob("*.md"),
    *(path for path in sorted((ROOT / "docs").rglob("*.md")) if "_build" not in path.parts),
]
_UsageError: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")
# Options of torchrun, accelerate and Slurm that inline code names without their program.
OF_OTHERS = {
    "--nproc_per_node",
    "--master-port",
    "--signals-to-handle",
    "--num_processes",
    "--cpu",
    "--signal",
}


class Piece(NamedTuple):
    """A fenced block or a piece of inline code, and where it begins."""

    where: str
    language: str  # "inline" for inline code
    text: str


@cache
def pieces() -> tuple[Piece, ...]:
    return tuple(piece for path in DOCUMENTS for piece in _pieces(path))


def _pieces(path: Path) -> Iterator[Piece]:
    name, prose, block, fence = str(path.relative_to(ROOT)), [], [], ""
    start = language = ""
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        mark = re.match(r"\s*(`{3,})\s*([^`]*)$", line)
        if fence:
            if mark and not mark[2] and len(mark[1]) >= len(fence):
                yield Piece(start, language, inspect.cleandoc("\n".join(["", *block])))
                fence, block = "", []
            else:
                block.append(line)
        elif mark:
            fence, start = mark[1], f"{name}:{number}"
            language = "python" if "code-cell" in mark[2] else mark[2].split()[0] if mark[2] else ""
        else:
            prose.append((number, line))
    for number, line in prose:
        for code in re.findall(r"`([^`]+)`", line):
            yield Piece(f"{name}:{number}", "inline", code)


def commands() -> Iterator[tuple[str, str, bool]]:
    """(where, the line after the word scorefield, whether it is a whole command) of all blocks and inline code."""
    for where, language, text in pieces():
        if language not in ("", "sh", "bash", "console", "inline"):
            continue
        for line in text.replace("\\\n", " ").splitlines():
            for part in re.split(r"\s#\s.*|;|&&|\|(?!\w)|\s>\s", line):
                found = re.match(
                    r"\s*(?:\$ )?(?:[A-Z_]+=\S+ |(?:torchrun|accelerate)\b.*? )?scorefield (.*)", part or ""
                )
                if found:
                    yield where, found[1].strip(), language != "inline"


@cache
def command(name: str) -> tuple[Any, Any]:
    group: Any = typer.main.get_command(app)
    context = group.context_class(group, info_name="scorefield")
    _, found, _ = group.resolve_command(context, [name])
    return found, found.context_class(found, info_name=name, parent=context)


def parsed(line: str, complete: bool) -> None:
    """The command's own parser takes the words. A usage error otherwise; a message for what is missing."""
    words = [word for word in shlex.split(line) if word not in ("…", "...", "[…]")]
    elided = any(mark in line for mark in ("…", "..."))
    if not words or words[0].startswith("-"):
        assert words in (["--help"], ["--version"], []), f"scorefield has no option {words[0]}"
        return
    if words[0].isupper():  # COMMAND stands for any
        return
    found, context = command(words[0])
    values, left, _ = found.make_parser(context).parse_args(words[1:])
    assert not left, f"these words are too many: {left}"
    missing = [p.name for p in found.params if p.required and values.get(p.name) is None]
    assert elided or not complete or "help" in values or not missing, f"{missing} are missing"
    for setting in [*(values.get("settings") or ())]:
        name, sign, _ = setting.partition("=")
        assert sign, f"--set {setting} has no ="
        check_setting(name if words[0] == "train" else f"sampling.{name}")


@cache
def known_settings() -> frozenset[str]:
    """All names of --set, of every kind."""
    names = {setting.name for section in sections() for setting in settings_of(section)}
    return frozenset(re.sub(r"=.*", "", name) for name in names)


def check_setting(name: str) -> None:
    if name.rpartition(".")[2].isupper():  # NAME stands for any
        return
    assert name in known_settings() or name in sections(), f"there is no setting {name}"


def test_the_documents_have_commands_python_and_settings():
    assert len(list(commands())) > 80
    assert sum(piece.language in ("python", "py") for piece in pieces()) > 12
    assert len(known_settings()) > 80


def test_commands():
    wrong = []
    for where, line, complete in commands():
        try:
            parsed(line, complete)
        except (_UsageError, ValueError, AssertionError) as error:
            said = error.format_message() if isinstance(error, _UsageError) else str(error).splitlines()[0]
            wrong.append(f"{where}: scorefield {line}\n    {said}")
    assert not wrong, "\n".join(wrong)


def test_options_named_in_inline_code():
    known = {
        option
        for name in app.registered_commands
        for parameter in command(str(name.name))[0].params
        for option in (*parameter.opts, *parameter.secondary_opts)
    }
    scripts = [*(ROOT / "tools").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    known |= {option for path in scripts for option in re.findall(r'"(--[a-z][\w-]*)"', path.read_text())}
    known |= OF_OTHERS | {"--help", "--version"}
    wrong = []
    for where, language, text in pieces():
        first = text.split()[0] if language == "inline" and text.strip() else ""
        if re.fullmatch(r"--[a-z][\w-]*(=.*)?", first) and first.partition("=")[0] not in known:
            wrong.append(f"{where}: {text}")
    assert not wrong, "no command has these options:\n" + "\n".join(wrong)


def test_settings_named_in_inline_code():
    """`training.lr`, `data.size=64` and `--set net.channels=64`; `model.x` and `process.x` alone may be Python."""
    setting = re.compile(
        r"(?:--set '?)?((?:training|sampling|data|objective|net)(?:\.[a-z_0-9]+)+)(?: ?= ?.*)?"
        r"|(?:--set '?)?((?:model|process)(?:\.[a-z_0-9]+)+)(?: = |=)[^(]*"
    )
    wrong = []
    for where, language, text in pieces():
        found = setting.fullmatch(text)
        if language == "inline" and found:
            try:
                check_setting(found[1] or found[2])
            except AssertionError as error:
                wrong.append(f"{where}: {error}")
    assert not wrong, "\n".join(wrong)


def _python() -> Iterator[Piece]:
    for piece in pieces():
        if piece.language in ("python", "py"):
            lines = piece.text.splitlines()
            options = [line for line in lines if re.match(r":\w|---", line)]  # of a MyST cell
            kept = [re.sub(r"^(\s*)[%!].*", r"\1pass", line) for line in lines if line not in options]
            yield piece._replace(text="\n".join(kept))


def test_python_blocks_compile():
    wrong = []
    for where, _, text in _python():
        try:
            compile(text, where, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        except SyntaxError as error:
            wrong.append(f"{where}: {error}")
    assert not wrong, "\n".join(wrong)


def resolve(name: str) -> None:
    """AttributeError where `sf.a.b` is nothing; fields of a class count as its attributes."""
    found: Any = sf
    for part in name.split(".")[1:]:
        if inspect.isclass(found) and part in _fields(found):
            return
        found = getattr(found, part)


def _fields(kind: type) -> set[str]:
    names = {name for base in kind.__mro__ for name in inspect.get_annotations(base)}
    if dataclasses.is_dataclass(kind):
        names |= {field.name for field in dataclasses.fields(kind)}
    return names


def test_names_of_the_library():
    wrong = set()
    for where, language, text in [*pieces(), *_python()]:
        if language not in ("inline", "python", "py"):
            continue
        for name in re.findall(r"(?<![\w./])sf(?:\.[A-Za-z_]\w*)+", text):
            try:
                resolve(name.removesuffix(".X"))  # X stands for any
            except AttributeError:
                wrong.add(f"{where}: {name}")
    assert not wrong, "\n".join(sorted(wrong))


def test_scripts_and_their_options():
    """`python benchmarks/load.py --option`: the file is there, and its text has the option."""
    wrong = []
    for where, language, text in pieces():
        if language not in ("", "sh", "bash", "console", "inline"):
            continue
        for path, words in re.findall(r"(?:python|pytest) (?:-m )?([\w/]+\.py)([^#\n;|]*)", text):
            source = ROOT / path
            if not source.exists():
                wrong.append(f"{where}: there is no {path}")
                continue
            code = source.read_text()
            options = re.findall(r"(?<=\s)--[a-z][\w-]*", words) if not path.startswith("tests/") else []
            wrong += [f"{where}: {path} has no {option}" for option in options if f'"{option}"' not in code]
    assert not wrong, "\n".join(wrong)


def test_make_targets():
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    wrong = []
    for where, language, text in pieces():
        if language in ("", "sh", "bash", "console", "inline"):
            for line in text.splitlines():
                found = re.match(r"(?:\$ )?make ([a-z][\w-]*)(?:\s|$)", line)
                if found and found[1] not in targets:
                    wrong.append(f"{where}: make {found[1]}")
    assert not wrong, "the Makefile has none of these targets:\n" + "\n".join(wrong)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("sample RUN --stepz 3", "No such option"),
        ("sampel RUN", "No such command"),
        ("decode RUN latents.npz", "out"),
        ("train digits --set training.lrr=1", "training.lrr"),
        ("info digits mnist", "too many"),
    ],
)
def test_what_is_wrong_is_found(line, said):
    with pytest.raises((_UsageError, AssertionError)) as caught:
        parsed(line, complete=True)
    error = caught.value
    assert said in (error.format_message() if isinstance(error, _UsageError) else str(error))
