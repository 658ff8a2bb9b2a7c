"""The list of planted mistakes applies to the library as it is; `make mutants` runs their tests."""

from __future__ import annotations

import ast

from mutants.run_mutants import ROOT, mutants


def test_every_mutant_applies_and_is_a_program() -> None:
    """Its text occurs once, changes, and compiles; its name is its own; its tests are files that are there."""
    found = mutants()
    assert len({mutant.name for mutant in found}) == len(found) >= 100
    for mutant in found:
        text = mutant.applied(ROOT / "src" / "scorefield")
        assert mutant.new != mutant.old, mutant.name
        ast.parse(text, mutant.file)
        assert mutant.tests, mutant.name
        for test in mutant.tests:
            path, _, rest = test.partition("::")
            assert (ROOT / path).is_file(), f"{mutant.name}: {test}"
            name = rest.partition("[")[0]
            assert f"def {name}(" in (ROOT / path).read_text(), f"{mutant.name}: {test}"
