"""Run tests with the lowest versions of the dependencies that pyproject.toml allows.

    python tools/lowest_versions.py tests/core tests/process      # `make oldest` runs the fast tests

The package's own requirements and those of its extras for users are at their lower bounds; what those need in
turn is as new as it can be. What only tests need comes last, and changes none of them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
TESTING = ("pytest>=8", "scipy>=1.13")


def requirements(extras: tuple[str, ...]) -> list[str]:
    """The requirements of the package and of these extras, as pyproject.toml writes them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    return [*project["dependencies"], *(one for extra in extras for one in optional[extra])]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv-oldest", help="environment to make")
    parser.add_argument("--extras", default="hf,tensorboard,features,fast", help="extras, with commas")
    parser.add_argument("tests", nargs="+", help="what pytest runs")
    options = parser.parse_args()
    lowest = requirements(tuple(options.extras.split(",")))
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "--seed", "--clear", "--python", sys.executable, options.venv], check=True)
    python = str(options.venv / "bin" / "python")
    (torch,) = (one for one in lowest if one.startswith("torch>"))
    # By pip, which takes the same build as `make test` does.
    subprocess.run([python, "-m", "pip", "install", "--quiet", torch.replace(">=", "==")], check=True)
    pins = options.venv / "pins.txt"

    def freeze() -> str:
        done = subprocess.run([python, "-m", "pip", "freeze"], stdout=subprocess.PIPE, text=True, check=True)
        return done.stdout

    pins.write_text("".join(line + "\n" for line in freeze().splitlines() if line.startswith("torch==")))
    install = [*uv, "pip", "install", "--python", python, "--constraint", pins]
    subprocess.run([*install, "--resolution", "lowest-direct", *lowest], check=True)
    pins.write_text(freeze())
    print(pins.read_text(), flush=True)
    subprocess.run([*install, *TESTING], check=True)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([python, "-m", "pytest", *options.tests], cwd=ROOT, env=environment, check=False)
    raise SystemExit(done.returncode)


if __name__ == "__main__":
    main()
