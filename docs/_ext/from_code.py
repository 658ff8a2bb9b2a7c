"""Pages that are read off the code, as Markdown: the commands, the recipes, the settings."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from typing import Any

from typer import Context
from typer.main import get_command

from scorefield.cli import COMMANDS
from scorefield.cli import app as scorefield_app
from scorefield.planning.facts import recipe_facts
from scorefield.runs.recipe import recipe_text
from scorefield.runs.settings import sections, settings_of

__all__ = ["commands_page", "recipes_page", "settings_page"]


def _cell(text: object) -> str:
    return (
        " ".join(str(text).split())
        .replace("|", "\\|")
        .replace("<", "&lt;")
        .replace("*", "\\*")
        .replace("[", "\\[")
    )


def _code(text: object) -> str:
    words = " ".join(str(text).split()).replace("|", "\\|")
    return f"`{words}`" if words else ""


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    head = list(head)
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def commands_page() -> str:
    """Every command with its arguments and options, as the command itself declares them."""
    group: Any = get_command(scorefield_app)
    context = Context(group, info_name="scorefield")
    lines: list[str] = []
    for name, (_, short) in COMMANDS.items():
        _, command, _ = group.resolve_command(context, [name])
        inner = Context(command, info_name=name, parent=context)
        lines += [
            f"## scorefield {name}",
            "",
            f"{short}.",
            "",
            "```",
            " ".join(command.get_usage(inner).split()[1:]),
            "```",
            "",
        ]
        lines += [*_paragraphs(command.help or ""), ""]
        records = [(p, p.get_help_record(inner)) for p in command.params]
        lines += _table(
            ("name", "what"),
            [[_code(left), _cell(right)] for _, (left, right) in filter(lambda r: r[1], records)],
        )
    return "\n".join(lines)


def _paragraphs(text: str) -> Iterator[str]:
    for line in inspect.cleandoc(text).splitlines():
        yield line.replace("<", "&lt;").replace("*", "\\*").replace("[", "\\[")


def recipes_page() -> str:
    """Every recipe: what it trains, its paper, and its TOML."""
    facts = recipe_facts()
    rows = (
        [
            f"[{_code(f['name'])}](#{f['name']})",
            _cell(f["title"]),
            "×".join(map(str, f["shape"])),
            f"{f['parameters']:,}",
            _cell(f["paper"]),
        ]
        for f in facts
    )
    lines = list(_table(("recipe", "what", "data", "parameters", "paper"), rows))
    for f in facts:
        lines += [
            f"## {f['name']}",
            "",
            f"{_cell(f['title'])}.",
            "",
            "```toml",
            recipe_text(f["name"]).rstrip(),
            "```",
            "",
        ]
    return "\n".join(lines)


def settings_page() -> str:
    """Every name of `--set`, section by section."""
    lines: list[str] = []
    for section, what in sections().items():
        lines += [f"## {section}", "", f"{_cell(what)}.", ""]
        found = settings_of(section)
        rows = ([_code(s.name), _cell(s.type), _code(s.default), _cell(s.description)] for s in found)
        if not found:
            lines += ["No options.", ""]
        elif not what.startswith("one kind of"):
            lines += _table(("name", "type", "default", "what"), rows)
    return "\n".join(lines)
