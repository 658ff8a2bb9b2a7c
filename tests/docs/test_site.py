"""The site's own code: entries for all public names, marks that resolve, pages that ask for nothing elsewhere.

`make docs-check` builds the pages and fails where one does not.
"""

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import scorefield as sf
from scorefield.cli import COMMANDS

DOCS = Path(__file__).parent.parent.parent / "docs"
LINEAGE = {"SM", "DSM", "SSM", "NCSN", "DDPM", "DDIM", "Improved DDPM", "ADM"}


@pytest.fixture(scope="module", autouse=True)
def path():
    added = [str(DOCS / "_ext"), str(DOCS.parent / "tools")]
    sys.path[:0] = added
    yield
    for folder in added:
        sys.path.remove(folder)


def module(name: str) -> Any:
    return importlib.import_module(name)


def test_every_public_name_has_one_entry():
    names = module("public_names")
    written: list[str] = []
    for page in (DOCS / "reference").glob("*.md"):
        for of_module, content in re.findall(
            r"```\{public-names\} ?(\S*)\n(.*?)```", page.read_text(), re.DOTALL
        ):
            written += names.names_of(of_module) if of_module else content.split()
    assert set(written) == set(names.entries())
    assert len(written) == len(set(written)), "an entry stands on two pages"


def test_entries_are_what_the_modules_declare():
    names = module("public_names")
    objects = {id(thing) for thing in names.entries().values()}
    for place, thing in {"scorefield": sf, **names.modules()}.items():
        for name in thing.__all__:
            value = getattr(thing, name)
            assert name == "__version__" or f"{place}.{name}" in names.modules() or id(value) in objects, name


def test_every_mark_names_a_paper_a_function_and_a_test():
    marks, papers = module("marks"), module("papers")
    without_test = []
    for mark in marks.marks_in_source():
        assert mark.tag in marks.bibliography()
        assert papers.target(mark) is not None
        if not marks.tests_of(mark):
            without_test.append(f"{mark.file}:{mark.line} [{mark.tag} {mark.text}]")
    assert not without_test, "no test has a mark of these: add it to the docstring of the test that holds it"
    assert {mark.tag for mark in marks.marks_in_source()} >= LINEAGE
    assert len(marks.marks_in_source()) >= 120


def test_every_place_of_a_mark_has_a_test():
    """A test of Eq. 6 does not hold Eq. 7."""
    marks = module("marks")
    held = {(test.tag, place) for test in marks.marks_in_tests() for place in test.places}
    wanted = {(mark.tag, place) for mark in marks.marks_in_source() for place in mark.places}
    assert wanted <= held, wanted - held


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("Eq. 6–7, for any pair of times", ("Eq. 6", "Eq. 7")),
        ("§3.1, Eq. 2–3", ("§3.1", "Eq. 2", "Eq. 3")),
        ("Sec. 4.3", ("§4.3",)),
        ("Algorithms 1 and 2", ("Algorithm 1", "Algorithm 2")),
        ("Alg. 2", ("Algorithm 2",)),
        ("App. I.2", ("Appendix I.2",)),
        ("§5A.12", ("§5A.12",)),
        ("Eq. 5, L_T", ("Eq. 5",)),
        ("", ("",)),
    ],
)
def test_places_of_a_mark(text, places):
    assert module("marks").places(text) == places


@pytest.mark.parametrize(
    "text", ["[DDQM Eq. 4]", "[Nobody et al. 2031]", "[DDPM Eq. 5, Improved DDPM Eq. 4]"]
)
def test_a_mark_of_no_paper_is_refused(text):
    with pytest.raises(ValueError, match="names no paper"):
        list(module("marks")._papers(text.strip("[]")))


def test_a_mark_with_an_equation_has_the_tests_of_the_equation_alone():
    marks = module("marks")
    equations = {mark: {p for p in mark.places if not p.startswith("§")} for mark in marks.marks_in_source()}
    both = [mark for mark, named in equations.items() if named and named < set(mark.places)]
    assert both
    for mark in both:
        assert all(equations[mark] & set(test.places) for test in marks.tests_of(mark))


def test_formulas_wrap_and_keep_their_labels_apart():
    lines = module("formulas").formula_lines
    assert lines("x_s = α_s x̂_0 + ς z        [DDIM Eq. 12]\n\nς   = η") == [
        ("x_s = α_s x̂_0 + ς z", "[DDIM Eq. 12]"),
        ("", ""),
        ("ς   = η", ""),
    ]
    assert lines("scorefield sample RUN   # the learned Σ") is None
    assert lines("data ──► x_t = α_t x_0") is None
    assert lines("x = 1") is None


def test_two_papers_in_one_mark():
    found = list(module("marks")._papers("SM Theorem 1; Improved\n    DDPM Eq. 4"))
    assert found == [("SM", "Theorem 1"), ("Improved DDPM", "Eq. 4")]


def test_what_a_page_loads_from_elsewhere():
    requests_of = module("offline").requests_of
    assert requests_of('<script src="https://cdn.example/x.js">') == ["https://cdn.example/x.js"]
    assert requests_of("<link rel=stylesheet href=//fonts.example/f.css>") == ["//fonts.example/f.css"]
    assert requests_of(
        "@import 'https://fonts.example/f.css'; a {background: url(http://x.example/y.png)}"
    ) == [
        "https://fonts.example/f.css",
        "http://x.example/y.png",
    ]
    assert not requests_of(
        '<a href="https://example.org">a link</a> <img src="_images/x.png"> <script src="a.js">'
    )
    assert not requests_of('<link rel="canonical" href="https://example.org/">')


def test_the_command_page_has_every_command():
    page = module("from_code").commands_page()
    for name in COMMANDS:
        assert f"## scorefield {name}\n" in page
    for option in ("--sampler", "--guidance", "--resume", "--minutes", "--metrics", "--low-res"):
        assert option in page


def test_docstrings_keep_their_formulas():
    plain = module("docstrings").plain
    assert plain("x_ of (B, *) and |x|") == r"x\_ of (B, \*) and \|x\|"
    assert plain("σ_t `a_ * b` x_t") == "σ_t ``a_ * b`` x_t"
    assert plain("`DDIM`") == ":py:obj:`DDIM <scorefield.samplers.DDIM>`"


def test_code_in_docstrings_is_a_block():
    lines = ["Text.", "", "    x = 1", "", "Args:", "    x: A number.", "", "        More of it."]
    found = list(module("docstrings").paragraphs(lines))
    assert found == ["Text.", "", ".. code-block:: python", "", *lines[2:]]
