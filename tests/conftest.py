"""What all tests share: small runs of the command, each trained once for the whole session."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:
    # Before torch is imported: two workers that compute by as many threads as there are cores wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from support import TinyRun, tiny

import scorefield.cli

# Files that take longest, the longest first. Two workers end together if these do not come last.
LONGEST = (
    "training/test_processes.py",
    "device/test_device.py",
    "test_public_types.py",
    "fuzz",
    "studio",
    "test_examples.py",
    "cli",
    "runs",
    "training",
    "evaluation",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> int:
        name = item.path.relative_to(Path(__file__).parent).as_posix()
        return next((i for i, prefix in enumerate(LONGEST) if name.startswith(prefix)), len(LONGEST))

    items.sort(key=place)


class TinyRuns:
    """tiny_run(recipe, *settings, steps=2) -> the folder of a run that `scorefield train` made of a small network.

    Tests share the folder and must not write into it; one that does takes tiny_run.copy(target, recipe, …).
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.made: dict[tuple[str, tuple[str, ...], int], Path] = {}
        self.files: dict[Path, dict[str, tuple[int, int]]] = {}

    def __call__(self, recipe: str, *settings: str, steps: int = 2) -> Path:
        key = recipe, settings, steps
        if key not in self.made:
            run = self.folder / f"{recipe}-{len(self.made)}"
            words = ["train", recipe, "--run", str(run), "--steps", str(steps), *tiny(recipe, *settings)]
            # The test that happens to come first shall not read what training says.
            with (
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()) as said,
                pytest.raises(SystemExit) as stop,
            ):
                scorefield.cli.main(words)
            assert not stop.value.code, said.getvalue()
            self.made[key], self.files[run] = run, listing(run)
        run = self.made[key]
        self.check(run)
        return run

    def copy(self, target: Path, recipe: str, *settings: str, steps: int = 2) -> Path:
        """A copy of the run at target, for a test that writes into it."""
        return Path(shutil.copytree(self(recipe, *settings, steps=steps), target))

    def check(self, run: Path) -> None:
        assert listing(run) == self.files[run], (
            f"a test wrote into {run.name}: it should take tiny_run.copy(…)"
        )


def listing(run: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file of a run, but for the lock."""
    files = [path for path in run.rglob("*") if path.is_file() and path.name != ".lock"]
    return {str(path.relative_to(run)): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TinyRun]:
    runs = TinyRuns(tmp_path_factory.mktemp("tiny"))
    yield runs
    wrong = [run.name for run, files in runs.files.items() if listing(run) != files]
    assert not wrong, f"tests wrote into {wrong}: they should take tiny_run.copy(…)"
