"""`make mutants`: plant one mistake at a time in a copy of the library, and see that the tests named with it fail.

    python tests/mutants/run_mutants.py [-j JOBS] [WORD …]

runs the mutants of planted.toml whose file or name contains one of the words (all of them without one), prints a line for each,
and exits with status 1 where one survives, does not apply any more, or where its tests fail without it. The checkout is
never written to. A mutant's tests run in a fork of this process, which has imported what does not change.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import shutil
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

__all__ = ["LIST", "ROOT", "Mutant", "mutants"]

ROOT = Path(__file__).parents[2]
LIST = Path(__file__).with_name("planted.toml")
LIMIT = 300  # seconds of computing, after which tests count as hanging
PASSED, FAILED = 0, 1


@dataclass(frozen=True)
class Mutant:
    """A planted mistake.

    Attributes:
        name: What it gets wrong.
        file: Path below src/scorefield.
        old: Text that occurs there once.
        new: What takes its place.
        tests: Arguments of pytest that select the tests that see it, seconds together.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def applied(self, source: Path) -> str:
        """The text of the file with the mistake. ValueError unless the old text occurs exactly once."""
        text = (source / self.file).read_text()
        if (count := text.count(self.old)) != 1:
            raise ValueError(f"{self.file}: the text to replace occurs {count} times: {self.old!r}")
        return text.replace(self.old, self.new)


def mutants(path: Path = LIST) -> list[Mutant]:
    """The list, in its order."""
    entries = tomllib.loads(path.read_text())["mutant"]
    return [Mutant(**{**entry, "tests": tuple(entry["tests"])}) for entry in entries]


@contextlib.contextmanager
def copied(scratch: Path) -> Iterator[Path]:
    """A copy of the package: its folder `scorefield`, below one to import it from."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    try:
        package = folder / "scorefield"
        shutil.copytree(ROOT / "src" / "scorefield", package, ignore=shutil.ignore_patterns("__pycache__"))
        yield package
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run_tests(package: Path, tests: Sequence[str], scratch: Path, limit: int = LIMIT) -> tuple[int, str]:
    """(Exit status of pytest, what it printed) of these tests with this copy of the library."""
    log = scratch / f"{package.parent.name}.log"
    pid = os.fork()
    if pid == 0:
        status = 3
        try:
            status = _in_fork(package, tests, log, limit)
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), log.read_text(errors="replace")


def _in_fork(package: Path, tests: Sequence[str], log: Path, limit: int) -> int:
    import pytest

    resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1), os.dup2(descriptor, 2)
    os.chdir(ROOT)
    sys.path.insert(0, str(package.parent))
    os.environ.update(PYTHONPATH=str(package.parent), OMP_NUM_THREADS="1", PYTHONDONTWRITEBYTECODE="1")
    sys.dont_write_bytecode = True
    base = package.parent / "tmp"
    return int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", f"--basetemp={base}", *tests]))


def verdict(mutant: Mutant, scratch: Path) -> tuple[str, float, str]:
    """("killed", or what is wrong; seconds; the end of pytest's output)."""
    start = time.monotonic()
    with copied(scratch) as package:
        try:
            text = mutant.applied(package)
        except ValueError as error:
            return str(error), 0.0, ""
        (package / mutant.file).write_text(text)
        status, out = run_tests(package, mutant.tests, scratch)
    said = {FAILED: "killed", PASSED: "SURVIVES"}
    return said.get(status, f"ends with {status}"), time.monotonic() - start, out[-2000:]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="plant mistakes and see that tests find them")
    parser.add_argument("words", nargs="*", help="parts of names of mutants")
    parser.add_argument("-j", type=int, default=1, help="how many at once")
    options = parser.parse_args(arguments)
    chosen = [
        m for m in mutants() if not options.words or any(w in f"{m.file}: {m.name}" for w in options.words)
    ]
    # What every test imports, and no mutant changes.
    import numpy, pytest, torch  # noqa: E401, F401, I001
    import accelerate, safetensors.torch, scipy, torch.func  # noqa: E401, F401

    torch.set_num_threads(1)
    wrong = 0
    scratch = Path(tempfile.mkdtemp(prefix="mutants-"))
    try:
        every = sorted({test for mutant in chosen for test in mutant.tests})
        with copied(scratch) as package:
            status, out = run_tests(package, every, scratch, 20 * LIMIT)
        if status != PASSED:
            print(f"without any mistake the tests end with status {status}:\n{out[-3000:]}")
            return 1
        with ThreadPoolExecutor(options.j) as pool:
            found = pool.map(lambda mutant: (mutant, *verdict(mutant, scratch)), chosen)
            for mutant, said, seconds, out in found:
                print(f"{said:<16} {seconds:5.1f} s  {mutant.file}: {mutant.name}", flush=True)
                if not said.startswith("killed"):
                    wrong += 1
                    print(out)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(f"{len(chosen) - wrong} of {len(chosen)} mutants are killed")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main())
