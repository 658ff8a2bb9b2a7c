"""Install the wheel of a folder into an empty virtual environment, and use it there as a user would.

python tools/try_wheel.py DIST      # `make wheel` does
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def try_wheel(wheel: Path, folder: Path) -> None:
    """Make an environment in folder, install the wheel with the versions of constraints.txt, and run it.

    Raises:
        subprocess.CalledProcessError: Where a command fails.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def run(*words: str | Path) -> str:
        print("+", *words, flush=True)
        done = subprocess.run(
            words, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True
        )
        return done.stdout

    run(sys.executable, "-m", "venv", folder / "venv")
    bin_ = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    pip: list[str | Path] = [
        bin_ / "python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]
    constraints = ROOT / "constraints.txt"
    run(*pip, "-c", constraints, "torch==2.13.0")
    run(*pip, "-c", constraints, wheel)
    command = bin_ / "scorefield"
    where = run(bin_ / "python", "-c", "import scorefield; print(scorefield.__file__)").strip()
    if folder.resolve() not in Path(where).resolve().parents:
        raise SystemExit(f"the package was imported from {where}, not from the environment")
    recipes = run(command, "recipes")
    if "toy-moons" not in recipes:
        raise SystemExit(f"the wheel lacks recipes: {recipes}")
    cards = "from scorefield.interop.cards import cards; print(len(cards()))"
    if int(run(bin_ / "python", "-c", cards)) == 0:
        raise SystemExit("the wheel lacks the cards of published checkpoints")
    run(command, "train", "toy-moons", "--steps", "5", "--run", "run", "--device", "cpu")
    run(command, "sample", "run", "-n", "4", "--steps", "20", "--out", "samples.npz", "--device", "cpu")
    if not (folder / "samples.npz").exists():
        raise SystemExit("sample wrote nothing")


def main() -> None:
    (wheel,) = Path(sys.argv[1]).resolve().glob("*.whl")
    with tempfile.TemporaryDirectory() as folder:
        try_wheel(wheel, Path(folder))
    print(f"{wheel.name} works in an empty environment")


if __name__ == "__main__":
    main()
