"""Every notebook of docs/tutorials runs: with the short parameters of its front matter, and whole under `slow`.

A notebook's front matter has a mapping `short`; its first code cell is tagged `parameters` and assigns these names.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import pytest
import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).parent.parent.parent
NOTEBOOKS = sorted((ROOT / "docs" / "tutorials").glob("[0-9]*.md"))
CELL = re.compile(r"^```\{code-cell\}[^\n]*\n((?::[^\n]*\n)*)\n?(.*?)^```$", flags=re.DOTALL | re.MULTILINE)


class Cell(NamedTuple):
    """The code of a cell, its options, and the line of the file that the code begins at."""

    code: str
    options: str
    line: int


def read(path: Path) -> tuple[dict[str, Any], list[Cell]]:
    """The front matter and the code cells of a notebook."""
    text = path.read_text()
    front = yaml.safe_load(text.split("---\n", 2)[1])
    cells = [Cell(m[2], m[1], text.count("\n", 0, m.start(2))) for m in CELL.finditer(text)]
    assert len(cells) == text.count("```{code-cell}"), f"{path.name}: a code cell is not closed"
    return front, cells


def run(cell: Cell, names: dict[str, Any], path: Path) -> bool:
    """Execute a cell as a notebook does: the value of its last line is shown. Whether that is a picture."""
    tree = ast.parse(cell.code)
    ast.increment_lineno(tree, cell.line)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, path, "exec"), names)
    if not isinstance(last, ast.Expr):
        return False
    value = eval(compile(ast.Expression(last.value), path, "eval"), names)
    picture = getattr(value, "_repr_png_", None)
    if picture is None:
        return False
    assert picture().startswith(b"\x89PNG")
    return True


def run_all(path: Path, replaced: dict[str, Any]) -> int:
    """Execute every cell in one namespace; parameters are replaced after the first. The number of pictures shown."""
    names: dict[str, Any] = {"__name__": "__main__"}
    pictures = 0
    _, cells = read(path)
    for k, cell in enumerate(cells):
        pictures += run(cell, names, path)
        if k == 0:
            names.update(replaced)
    return pictures


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mpl.use("Agg")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_tutorial_runs_with_short_parameters(path: Path) -> None:
    front, cells = read(path)
    assert front["kernelspec"]["name"] == "python3"
    assert ":tags: [parameters]" in cells[0].options
    assigned = {target.id for node in ast.parse(cells[0].code).body for target in node.targets}  # type: ignore[attr-defined]
    assert set(front["short"]) <= assigned
    assert run_all(path, front["short"]) >= 1


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_tutorial_runs_whole(path: Path) -> None:
    assert run_all(path, {}) >= 1


def test_there_are_tutorials_to_run() -> None:
    assert len(NOTEBOOKS) >= 5
