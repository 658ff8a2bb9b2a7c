"""A GPU's rules without a GPU: everything runs on a pretended device, whose tensors refuse to meet the CPU's, and gives what
the CPU gives. (A process of its own runs the cases, because the device changes torch: `device_job.py`.)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from device.cases import CASES

JOB = Path(__file__).with_name("device_job.py")
# What computes nothing by a network ; and what counts operations, looks at data or trains its judge on the CPU,
# wherever the model is.
WITHOUT_NETWORK = (
    "process",
    "oracle",
    "command recipes",
    "command options",
    "command import",
    "command export",
    "command studio",
)
ON_THE_CPU = ("command info", "command plan", "command plot", "command evaluate")


@pytest.fixture(scope="module")
def results(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """What the job says of the cases that pytest has chosen."""
    here = [item for item in request.session.items if item.path == request.path]
    chosen = [item.callspec.params["name"] for item in here]  # type: ignore[attr-defined]
    folder = tmp_path_factory.mktemp("device")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    command = [sys.executable, str(JOB), str(folder / "job"), *chosen]
    job = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1800, check=False)
    assert job.returncode == 0, job.stderr[-3000:]
    return {line["case"]: line for line in map(json.loads, job.stdout.splitlines())}


@pytest.mark.parametrize("name", CASES)
def test_the_device_gives_what_the_cpu_gives(results: dict[str, dict[str, Any]], name: str) -> None:
    """And networks compute there: on the CPU a forgotten `.to(device)` would give the same numbers."""
    found = results[name]
    assert not found["wrong"], found["wrong"]
    if not name.startswith(ON_THE_CPU):
        assert not found["work"].get("cpu"), f"{found['work']} products of matrices"
        assert name.startswith(WITHOUT_NETWORK) or found["work"]["pretend"]
