"""Hostile input meets a sentence: everything that ever failed, and, among the slow tests, new calls.

SCOREFIELD_FUZZ_MINUTES (default 10) and SCOREFIELD_FUZZ_SEED are those of `make fuzz`.
"""

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from fuzz.fuzz import Fuzzer, scratch_folder
from fuzz.sandbox import Case

HERE = Path(__file__).parent


def corpus() -> list[Case]:
    entries = [
        entry
        for path in sorted((HERE / "corpus").glob("*.toml"))
        for entry in tomllib.loads(path.read_text())["case"]
    ]
    return [
        Case(
            tuple(entry.get("words", ())),
            entry.get("code", ""),
            tuple(entry.get("edits", ())),
            expect=entry.get("expect", ""),
        )
        for entry in entries
    ]


@pytest.fixture(scope="module")
def fuzzer() -> Iterator[Fuzzer]:
    with scratch_folder() as scratch:
        yield Fuzzer(scratch)


@pytest.mark.parametrize("case", corpus(), ids=lambda case: str(case)[-90:])
def test_what_once_failed(fuzzer, case):
    outcome, faults = fuzzer.judged(case)
    assert not faults, (faults, outcome.err[-500:], outcome.error.get("text"))


@pytest.mark.slow
def test_new_calls():
    minutes = os.environ.get("SCOREFIELD_FUZZ_MINUTES", "10")
    seed = os.environ.get("SCOREFIELD_FUZZ_SEED", "0")
    words = [sys.executable, str(HERE / "fuzz.py"), "--minutes", minutes, "--seed", seed]
    assert subprocess.run(words, check=False).returncode == 0
