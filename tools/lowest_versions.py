"""Run tests with the lowest versions of the dependencies that pyproject.toml allows.

    python tools/lowest_versions.py --venv .venv-oldest -- tests/core tests/process      # `make oldest` does

Each requirement of the package and of the development extra is pinned to its lower bound; uv finds the lowest
versions of what those need in turn, as far as wheels exist for this Python.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
TOOLS = {"pytest", "ruff", "mypy", "setuptools", "diffusers"}  # of whoever develops: no promise to a user


def direct_requirements(extras: tuple[str, ...]) -> list[str]:
    """The requirements of the package and of these extras, as pyproject.toml writes them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = list(project["dependencies"])
    for extra in extras:
        found += project["optional-dependencies"][extra]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--venv", type=Path, default=Path(".venv-oldest"), help="environment to make")
    parser.add_argument(
        "--extras", default="hf,tensorboard,features,fast", help="extras that are lowered too"
    )
    parser.add_argument("--resolution", default="lowest-direct", help="of uv: lowest-direct or lowest")
    parser.add_argument("tests", nargs="*", default=["tests/core", "tests/process"])
    options = parser.parse_args()
    uv = Path(sys.executable).with_name("uv")
    lowest = direct_requirements(tuple(options.extras.split(",")))
    subprocess.run([uv, "venv", "--clear", "--python", sys.executable, options.venv], check=True)
    python = options.venv / "bin" / "python"
    install = [uv, "pip", "install", "--python", python, "--resolution", options.resolution]
    subprocess.run([*install, *lowest], check=True)
    # What only the tests use comes in today's versions, on top of the lowest ones.
    kept = subprocess.run(
        [uv, "pip", "freeze", "--python", python], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    pins = options.venv / "lowest.txt"
    pins.write_text(kept)
    print(kept)
    subprocess.run(
        [uv, "pip", "install", "--python", python, "-c", pins, "pytest>=8", "scipy>=1.11"], check=True
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([python, "-m", "pytest", *options.tests], cwd=ROOT, env=environment, check=False)
    raise SystemExit(done.returncode)


if __name__ == "__main__":
    main()
