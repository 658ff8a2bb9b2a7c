"""Words and what they stand for."""

import subprocess
import sys

import pytest

from scorefield import InputError
from scorefield.runtime import registry
from scorefield.runtime.registry import Registry, kind_of

TABLES = [value for value in vars(registry).values() if isinstance(value, Registry)]
WORDS = [(table, word) for table in TABLES for word in table]


@pytest.mark.parametrize(("table", "word"), WORDS, ids=[f"{table.what} {word}" for table, word in WORDS])
def test_every_word_stands_for_something(table, word):
    assert table[word] is table.find(word)


def test_an_unknown_word_is_explained():
    with pytest.raises(
        InputError, match=r"process must be one of linear, cosine, .*; got 'cosin', did you mean 'cosine'"
    ):
        registry.PROCESSES.find("cosin")
    with pytest.raises(InputError, match=r"objective\.kind must be one of simple, .*; got None"):
        registry.OBJECTIVES.find(None, "objective.kind")


def test_listing_imports_nothing():
    code = (
        "import sys; from scorefield.runtime import registry; list(registry.NETS); "
        "print([m for m in ('torch', 'numpy', 'pydantic') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_code_knows_its_word():
    assert kind_of("scorefield.nets.mlp:MLP") == "mlp"
    assert kind_of("my_module:MyNet") == "my_module:MyNet"
