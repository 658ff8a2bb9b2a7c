"""Run the cases on the CPU and on the pretended device, and say where the two differ: a process of its own.

python tests/device/device_job.py FOLDER [CASE …] prints a line of JSON for each case: its name, "" or what went wrong,
and how many products of matrices ran on the CPU that should not have.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import time
import traceback
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from device.pretended_device import WORK, pretend  # first: it changes torch

# isort: split
import torch
from accelerate.state import AcceleratorState
from device.cases import CASES, Case, Place, differences, make_runs

from scorefield.evaluation import catalogue
from scorefield.evaluation.features import train_classifier

# No figure here depends on how good the judge is, and training it takes seconds.
catalogue.train_classifier = functools.partial(train_classifier, examples=1, passes=(0, 1))  # type: ignore[assignment]


def run(case: Case, device: str, folder: Path, runs: Path) -> object:
    """What a case gives there."""
    folder.mkdir(parents=True)
    AcceleratorState._reset_state(reset_partial_state=True)
    os.environ["ACCELERATE_TORCH_DEVICE"] = device
    torch.manual_seed(0)
    return case(Place(device, folder, runs))


def check(name: str, folder: Path, runs: Path) -> str:
    """What is wrong with a case, or nothing."""
    try:
        expected = run(CASES[name], "cpu", folder / "cpu", runs)
    except Exception:
        return f"on the CPU: {traceback.format_exc()}"
    WORK.clear()
    try:
        with pretend():
            found = run(CASES[name], "pretend:0", folder / "pretend", runs)
    except Exception:
        return f"on the device: {traceback.format_exc()}"
    return "\n".join(list(differences(found, expected))[:5])


def main(folder: Path, names: list[str]) -> None:
    runs = folder / "runs"
    runs.mkdir(parents=True)
    os.environ["ACCELERATE_TORCH_DEVICE"] = "cpu"
    names = names or list(CASES)
    if any(name.startswith(("command", "through")) for name in names):
        make_runs(runs)
    for i, name in enumerate(names):
        start = time.process_time()
        wrong = check(name, folder / str(i), runs)
        seconds = round(time.process_time() - start, 2)
        print(json.dumps({"case": name, "wrong": wrong, "work": dict(WORK), "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
