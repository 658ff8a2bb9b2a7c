"""Checkpoints are whole or absent."""

import json
import resource
import signal
import subprocess
import sys

import pytest
import torch

import scorefield as sf
from scorefield.training import checkpoint

GROUPS = {
    "weights": {"a": torch.arange(1000.0), "b": torch.ones(2, 3)},
    "optimizer": {"0.step": torch.tensor(3.0)},
}


def test_round_trip_and_keep(tmp_path):
    for step in (1, 2, 3, 10):
        saved = checkpoint.save(tmp_path, step, GROUPS, {"step": step})
        checkpoint.prune(tmp_path, saved, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003", "step-00000010"]
    found = checkpoint.newest(tmp_path)
    assert found.state == {"step": 10}
    assert found.groups.keys() == GROUPS.keys()
    assert torch.equal(found.groups["weights"]["a"], GROUPS["weights"]["a"])
    assert checkpoint.newest(tmp_path / "none") is None


@pytest.mark.parametrize("damage", ["truncate", "flip", "delete", "no manifest", "broken manifest"])
def test_damaged_checkpoints_are_passed_over_and_named(tmp_path, damage):
    for step in (1, 2):
        checkpoint.save(tmp_path, step, GROUPS, {"step": step})
    broken = tmp_path / "step-00000002"
    data = (broken / "weights.safetensors").read_bytes()
    {
        "truncate": lambda: (broken / "weights.safetensors").write_bytes(data[: len(data) // 2]),
        "flip": lambda: (broken / "weights.safetensors").write_bytes(data[:-1] + bytes([data[-1] ^ 1])),
        "delete": lambda: (broken / "optimizer.safetensors").unlink(),
        "no manifest": lambda: (broken / "manifest.json").unlink(),
        "broken manifest": lambda: (broken / "manifest.json").write_text('{"state.json": 3}'),
    }[damage]()
    found = checkpoint.newest(tmp_path)
    assert found.state == {"step": 1}
    assert "step-00000002" in found.skipped[0]
    (tmp_path / "step-00000001" / "state.json").write_text(json.dumps({"step": 7}))
    with pytest.raises(sf.InputError, match="every checkpoint"):
        checkpoint.newest(tmp_path)


FULL_DISK = """
import resource, signal, sys, torch
from pathlib import Path
import scorefield as sf
from scorefield.training import checkpoint
folder, limit = Path(sys.argv[1]), int(sys.argv[2])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
checkpoint.save(folder, 1, {"weights": {"a": torch.ones(1000)}}, {"step": 1})
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    checkpoint.save(folder, 2, {"weights": {"a": torch.ones(100_000)}}, {"step": 2})
except sf.InputError as error:
    print(error)
"""


def test_full_disk_leaves_the_checkpoint_before_it(tmp_path):
    assert resource.RLIMIT_FSIZE
    assert signal.SIGXFSZ
    result = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path), "50000"], capture_output=True, text=True, check=False
    )
    assert "step 2 could not be saved" in result.stdout, result.stderr
    assert "step-00000001" in result.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert checkpoint.newest(tmp_path).state == {"step": 1}
