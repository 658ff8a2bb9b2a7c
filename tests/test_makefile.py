"""What make does with runs: it deletes none."""

import shutil
import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parent.parent / "Makefile"


def commands(*arguments):
    if shutil.which("make") is None:
        pytest.skip("there is no make here")
    made = subprocess.run(
        ["make", "--dry-run", *arguments], cwd=MAKEFILE.parent, capture_output=True, text=True, check=True
    )
    return made.stdout.splitlines()


def test_no_target_deletes_a_run():
    """Hours of training are in runs/, and RUN may be any folder."""
    targets = [
        line.split(":")[0]
        for line in MAKEFILE.read_text().splitlines()
        if ":  ## " in line or "  ## " in line
    ]
    assert {"demo", "clean", "wheel"} < set(targets)
    for target in targets:
        for line in commands(target, "RUN=precious"):
            words = line.split()
            if words[:1] == ["rm"]:
                deleted = [word.strip("/") for word in words[1:] if not word.startswith("-")]
                assert set(deleted) <= {
                    *(".venv", ".venv-oldest", "build", "dist", "docs/_build", "src/*.egg-info")
                }, line
            assert "rm " not in line.partition("&&")[2], line


def test_a_second_demo_goes_on(tmp_path):
    (train,) = [line for line in commands("demo", "RUN=a run") if "scorefield train" in line]
    said = ["sh", "-c", "echo " + train.partition("scorefield ")[2]]
    first = subprocess.run(said, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    (tmp_path / "a run").mkdir()
    (tmp_path / "a run" / "config.toml").write_text("")
    second = subprocess.run(said, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert first.split() == ["train", "portraits", "--run", "a", "run"]
    assert second.split() == [*first.split(), "--resume"]
