"""The marks `[PAPER Eq. n]` of the source and of the tests: which function is which equation, and which test holds it.

A mark names papers of `bibliography.toml` by their tags, each with equations, algorithms, sections, tables and the like:
[DDPM Eq. 6–7, for any pair of times], [SM Theorem 1; NCSN Eq. 1]. It stands in the docstring of what it describes, or in a
comment within it; in a test it says that the test holds the equation. Nothing else connects the three.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["Mark", "Paper", "bibliography", "marks_in_source", "marks_in_tests", "papers_cited", "tests_of"]

ROOT = Path(__file__).parent.parent.parent
BIBLIOGRAPHY = ROOT / "docs" / "bibliography.toml"

KINDS = {
    "Eq.": "Eq.",
    "Eqs.": "Eq.",
    "Algorithm": "Algorithm",
    "Algorithms": "Algorithm",
    "Alg.": "Algorithm",
    "§": "§",
    "Sec.": "§",
    "Theorem": "Theorem",
    "Lemma": "Lemma",
    "App.": "Appendix",
    "appendix": "Appendix",
    "Appendix": "Appendix",
    "Table": "Table",
}
_NUMBER = r"(?:[A-Z](?:\.\d+)*|\d+[A-Z]?(?:\.\d+)*)"
_LIST = rf"{_NUMBER}(?:(?:–|, | and ){_NUMBER}\b)*"
REFERENCE = re.compile(rf"({'|'.join(map(re.escape, sorted(KINDS, key=len, reverse=True)))})\s*({_LIST})")
BRACKET = re.compile(r"\[([^\[\]]+)\]")
# What looks like a mark of a paper, whether or not the paper is known.
LOOKS = re.compile(
    r"\b(?:Eqs?\.|Alg(?:orithms?|\.)|Sec\.|Theorem|Lemma|App(?:endix|\.)|Table) ?[A-Z0-9]|§ ?\d|[a-z.] (?:19|20)\d\d\b"
)


@dataclass(frozen=True)
class Paper:
    """One entry of the bibliography. arxiv is "" where there is none."""

    tag: str
    title: str
    authors: str
    year: int
    where: str
    arxiv: str = ""


@dataclass(frozen=True)
class Mark:
    """One paper of one mark.

    Attributes:
        tag: The paper.
        text: The rest of the mark as written, "Eq. 6–7, for any pair of times".
        places: The single places, ("Eq. 6", "Eq. 7"); ("",) for a paper as a whole.
        file: From the root of the repository.
        owner: The class, function or assigned name that it stands in; "" for the module.
        says: What the docstring or comment says before the mark.
        line: Of the file.
    """

    tag: str
    text: str
    places: tuple[str, ...]
    file: str
    owner: str
    says: str
    line: int


@cache
def bibliography() -> dict[str, Paper]:
    """Tag -> paper, in the order of the file."""
    return {tag: Paper(tag, **entry) for tag, entry in tomllib.loads(BIBLIOGRAPHY.read_text()).items()}


def places(text: str) -> tuple[str, ...]:
    """The single places of "Eq. 6–7, 12 and Theorem 1"."""
    found: list[str] = []
    for kind, numbers in REFERENCE.findall(text):
        for part in re.split(r", | and ", numbers):
            first, _, last = part.partition("–")
            whole = range(int(first), int(last) + 1) if last else [first]
            found += [f"{KINDS[kind]} {number}".replace("§ ", "§") for number in whole]
    return tuple(dict.fromkeys(found)) or ("",)


def _papers(inside: str) -> Iterator[tuple[str, str]]:
    """(tag, rest) of each paper in a bracket; nothing where it is no mark. ValueError for a paper that is not known."""
    inside = " ".join(inside.split())
    for part in inside.split("; "):
        tag = next((tag for tag in _by_length() if re.match(_as_word(tag), part)), None)
        rest = part.removeprefix(tag or "").lstrip(", ")
        two = any(re.search(rf"{_as_word(other)},? {REFERENCE.pattern}", rest) for other in _by_length())
        if two or (tag is None and LOOKS.search(part)):
            raise ValueError(
                f"[{inside}] names no paper of {BIBLIOGRAPHY.name}, or two without a semicolon between them"
            )
        if tag is not None:
            yield tag, rest


def _by_length() -> list[str]:
    return sorted(bibliography(), key=len, reverse=True)


def _as_word(tag: str) -> str:
    return rf"\b{re.escape(tag)}(?![\w'’-])"


def _says(before: str) -> str:
    """The sentence, paragraph or argument that ends where the mark stands."""
    marked = [bracket for bracket in BRACKET.finditer(before) if list(_papers(bracket[1]))]
    paragraph = re.split(r"\n\s*\n", before.rstrip())[-1]
    start = len(before.rstrip()) - len(paragraph)
    # A mark in the middle of a sentence ends what it says of the one before.
    since = max([start, *(bracket.end() for bracket in marked if before[bracket.end() :].strip(" \n.,;"))])
    text = before[since:]
    for bracket in marked:
        text = text.replace(bracket[0], "")
    paragraph = re.split(r"\n\s*(?=\w+: )", text)[-1]
    sentence = re.split(r"(?<=[.;])\s+(?=[A-Z])", " ".join(paragraph.split()))[-1]
    sentence = re.sub(r"^[,;.]? ?(or|and)? ?", "", sentence)
    return sentence.rstrip(" .;,(")


def _in_text(text: str, file: str, owner: str, line: int) -> Iterator[Mark]:
    for bracket in BRACKET.finditer(text):
        for tag, rest in _papers(bracket[1]):
            at = line + text.count("\n", 0, bracket.start())
            yield Mark(tag, rest, places(rest), file, owner, _says(text[: bracket.start()]), at)


def _owners(tree: ast.Module) -> list[tuple[int, int, str]]:
    """(first line, last line, qualified name) of all definitions, and of the names that a module assigns."""
    found: list[tuple[int, int, str]] = []

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.append((child.lineno, child.end_lineno or child.lineno, prefix + child.name))
                visit(child, f"{prefix}{child.name}.")
            elif isinstance(child, ast.Assign) and isinstance(child.targets[0], ast.Name) and not prefix:
                found.append((child.lineno, child.end_lineno or child.lineno, child.targets[0].id))

    visit(tree, "")
    return found


def _owner_at(owners: list[tuple[int, int, str]], line: int) -> str:
    """What a comment at this line stands in, or else what it stands before."""
    within = [(first, name) for first, last, name in owners if first <= line <= last]
    after = [(-first, name) for first, _, name in owners if line < first <= line + 5]
    return max(within or after or [(0, "")])[1]


def _in_file(path: Path) -> Iterator[Mark]:
    source, file = path.read_text(), path.relative_to(ROOT).as_posix()
    tree = ast.parse(source)
    named: list[tuple[str, ast.AST]] = [("", tree)]

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                named.append((prefix + child.name, child))
                visit(child, f"{prefix}{child.name}.")

    visit(tree, "")
    for owner, node in named:
        text = ast.get_docstring(node)  # type: ignore[arg-type]
        if text:
            yield from _in_text(text, file, owner, node.body[0].lineno)  # type: ignore[attr-defined]
    owners = _owners(tree)
    for line, text in _comments(source):
        yield from _in_text(text, file, _owner_at(owners, line), line)


def _comments(source: str) -> Iterator[tuple[int, str]]:
    """(line, text) of the comments; those of adjoining lines are one."""
    block: list[str] = []
    start = last = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if block and token.start[0] != last + 1:
                yield start, "\n".join(block)
                block = []
            start = start if block else token.start[0]
            block.append(token.string.lstrip("# "))
            last = token.start[0]
    if block:
        yield start, "\n".join(block)


@cache
def marks_in_source() -> tuple[Mark, ...]:
    """The marks of src, in the order of files and lines."""
    return tuple(mark for path in sorted((ROOT / "src").rglob("*.py")) for mark in _in_file(path))


@cache
def marks_in_tests() -> tuple[Mark, ...]:
    """The marks of the test functions."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    found = (mark for path in files for mark in _in_file(path))
    return tuple(mark for mark in found if mark.owner.rpartition(".")[2].startswith("test_"))


def tests_of(mark: Mark) -> list[Mark]:
    """The tests with a mark of the same paper and one of its places, each once; where it names equations and a section,
    only those of the equations.
    """
    sections = {place for place in mark.places if place.startswith("§")}
    wanted = set(mark.places) - sections or sections
    found = [t for t in marks_in_tests() if t.tag == mark.tag and set(t.places) & wanted]
    return list({(t.file, t.owner): t for t in found}.values())


def papers_cited() -> list[Paper]:
    """The papers that a mark of src names, in the order of the bibliography."""
    cited = {mark.tag for mark in marks_in_source()}
    return [paper for tag, paper in bibliography().items() if tag in cited]
