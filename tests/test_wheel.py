"""What the wheel holds: every module, and what is no module - recipes, cards, the mark that types are there."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BUILD = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"


def test_the_wheel_has_every_file_of_the_package(tmp_path):
    pytest.importorskip("setuptools", minversion="77", reason="pyproject.toml asks for setuptools 77")
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, source / name)
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", source / "src", ignore=ignored)
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(tmp_path)], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    package = source / "src"
    assert names == {
        str(path.relative_to(package)) for path in (package / "scorefield").rglob("*") if path.is_file()
    }
    assert "scorefield/py.typed" in names
    assert "scorefield/recipes/digits.toml" in names
    assert "scorefield/interop/cards.json" in names
