"""A training stopped at random moments ends with the bytes of one left alone, and nothing partial is taken
for whole.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

JOB = Path(__file__).with_name("killed_training.py")


@pytest.mark.parametrize(
    ("stops", "kind"),
    [
        (2, "BOTH"),
        pytest.param(50, "KILL", marks=pytest.mark.slow),
        pytest.param(50, "TERM", marks=pytest.mark.slow),
    ],
)
def test_stopped_at_random_moments(tmp_path, stops, kind):
    seed = 8
    job = [sys.executable, str(JOB), str(stops), kind, str(seed), str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(job, capture_output=True, text=True, timeout=1800, env=environment)
    assert done.returncode == 0, f"seed {seed}: {done.stdout[-1000:]} {done.stderr[-2000:]}"
    assert f"stopped {stops} times" in done.stdout
    assert done.stderr.count("and saved; resume with: scorefield train digits --run") <= stops
