"""Hostile input meets a sentence: everything that ever failed, and, among the slow tests, new calls.

SCOREFIELD_FUZZ_MINUTES (default 10) and SCOREFIELD_FUZZ_SEED are those of `make fuzz`.
"""

import os
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fuzz.fuzz import Fuzzer, scratch_folder
from fuzz.judge import Fault, faults_of, has_nan
from fuzz.sandbox import Case, Outcome

import scorefield as sf

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


# What the judge takes for no fault, beside what it must still see.
NO_FAULT: list[tuple[Case, dict[str, Any]]] = [
    (Case(code='use(Run("digits").save_samples(target="v"))'), {"changes": {"work/v": "made"}}),
    (
        Case(code=r'use(Run("digits").save_samples(target="a\nb"))'),
        {"changes": {"work/a\nb": "made"}},
    ),
    (Case(words=("export", "diffusers", "unet", "~")), {"changes": {"home/unet": "made"}}),
    (Case(words=("sample", "digits", "--out", "a.npz")), {"changes": {"work/a.npz": "filled"}}),
    (
        Case(code="use(sf.guidance.ClipX0(D, -1.0, 1.0).score(x=torch.full((4, 2), nan)))"),
        {"result": {"nan": "NaN"}},
    ),
    (
        Case(code="use(f(D.double))"),
        {"error": ("TypeError", "double() takes 1 positional argument but 2 were given")},
    ),
    (Case(code="use(f())"), {"error": ("InputError", "x" * 5000)}),
    (Case(code="use(sf.training.measure_speed(D))", unbounded=True), {"timeout": "ended", "status": None}),
]
FAULTS: list[tuple[Case, dict[str, Any]]] = [
    (Case(code='use(Run("digits").save_samples(target="v"))'), {"changes": {"work/w": "made"}}),
    (Case(words=("export", "diffusers", "unet", "new")), {"changes": {"work/new~": "made"}}),
    (Case(words=("export", "diffusers", "unet", "~")), {"changes": {"work/~": "made"}}),
    (Case(words=("export", "diffusers", "unet", "new")), {"changes": {"home/unet": "made"}}),
    (Case(words=("sample", "digits", "--out", "a.npz")), {"changes": {"work/a.npz": "changed"}}),
    (Case(words=("sample", "digits", "--out", "a.npz")), {"changes": {"work/a.npz": "filled"}, "status": 1}),
    (
        Case(code="use(sf.guidance.ClipX0(D, nan, 1.0).score(x=torch.zeros(4, 2)))"),
        {"result": {"nan": "NaN"}},
    ),
    (
        Case(code="use(sf.guidance.ClipX0(D, -1.0, 1.0).score(x=torch.zeros(4, 2)))"),
        {"result": {"nan": "NaN"}},
    ),
    (Case(code="use(sf.guidance.ClipX0(model=D, low=nan))"), {"result": {"nan": "NaN"}}),
    (Case(code="use(f(3))"), {"error": ("TypeError", "argument should be a str, not int")}),
    (Case(code="use(f())"), {"error": ("InputError", "'beta'")}),
    (Case(code="use(sf.training.measure_speed(D))"), {"timeout": "busy", "status": None}),
]


def judged(case: Case, facts: dict[str, Any], place: Path) -> list[Fault]:
    outcome = Outcome(**{**facts, "error": {}})
    if "error" in facts:
        kind, message = facts["error"]
        outcome.status, ours = 98, kind == "InputError"
        outcome.error = {"type": kind, "message": message, "ours": ours, "own": True, "place": "", "text": ""}
    return faults_of(case, outcome, place)


@pytest.mark.parametrize(("case", "facts"), NO_FAULT, ids=str)
def test_the_judge_lets_pass_what_is_right(case, facts, tmp_path):
    assert not judged(case, facts, tmp_path)


@pytest.mark.parametrize(("case", "facts"), FAULTS, ids=str)
def test_the_judge_still_sees_the_fault_beside_it(case, facts, tmp_path):
    assert judged(case, facts, tmp_path)


def test_nan_is_seen_beside_the_one_that_the_documents_promise():
    known, nan = torch.zeros(2), torch.full((2,), torch.nan)
    assert not has_nan(sf.likelihood.OdeBits(known, 3, nan, known))
    assert has_nan(sf.likelihood.OdeBits(nan, 3, nan, known))


def test_samples_that_are_whole_stay_in_their_folder_and_nothing_else(tmp_path):
    case, facts = (
        Case(words=("sample", "digits", "--out", "a")),
        {"status": 1, "err": "error: labels.csv cannot be written"},
    )
    (tmp_path / "work" / "a").mkdir(parents=True)
    assert judged(case, {**facts, "changes": {"work/a/000000.png": "made"}}, tmp_path)
    (tmp_path / "work" / "a" / "manifest.json").touch()
    assert not judged(case, {**facts, "changes": {"work/a/000000.png": "made"}}, tmp_path)


@pytest.mark.slow
def test_new_calls():
    minutes = os.environ.get("SCOREFIELD_FUZZ_MINUTES", "10")
    seed = os.environ.get("SCOREFIELD_FUZZ_SEED", "0")
    words = [sys.executable, str(HERE / "fuzz.py"), "--minutes", minutes, "--seed", seed]
    assert subprocess.run(words, check=False).returncode == 0
