"""What decides stored samples, pinned: folders that the first version wrote are found again, under their names."""

import json
from pathlib import Path

import pytest
from support import call

from scorefield.evaluation.generated import SampledSets
from scorefield.runs.build import build_sampling, load, read_run
from scorefield.runtime.distributed import Processes
from scorefield.runtime.progress import SILENT

OLD = Path(__file__).parent.parent / "old_runs"
DIGITS = {
    "model": "dd5e1127dae9a5fa",
    "sampler": "Ancestral(variance='lower')",
    "grid": [100, 80, 60, 40, 20, 0],
    "seed": 3,
    "labels": "3 in turn, a36b1f2c3f84522d",
    "precision": "fp32",
    "weights": "a" * 12,
    "start": "prior",
    "clip": False,
    "guidance": None,
    "guidance_at": "x_t",
    "classifier": None,
    "shape": [1, 8, 8],
    "range": [-1.0, 1.0],
    "bins": 17,
    "block": 64,
}
GUIDED = {**DIGITS, "guidance": 1.5, "classifier": "b" * 12}


def said(manifest):
    """What a manifest says: null is the same as nothing."""
    return {key: value for key, value in json.loads(manifest.read_text()).items() if value is not None}


@pytest.mark.parametrize(
    ("guided", "name", "expected"),
    [(False, "samples-8d444b95953ccac1", DIGITS), (True, "samples-63ad8f523f505c1c", GUIDED)],
)
def test_samples_of_an_evaluation(tmp_path, guided, name, expected):
    model, options = load(OLD / "digits"), read_run(OLD / "digits")[0].sampling
    options = options.model_copy(update={"steps": 5, "guidance": 1.5 if guided else None})
    guide = load(OLD / "classifier") if guided else None
    facts = {"labels": [1, 2, 3], "weights": "a" * 12}
    facts["classifier"] = {"run": "guide", "sha256": "b" * 12} if guided else None
    sampling = build_sampling(options, model, guide)
    sets = SampledSets(model, sampling, options, tmp_path, count=64, sets=1, seed=3, **facts)
    sets.make(Processes(), SILENT)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert said(tmp_path / name / "manifest.json") == {k: v for k, v in expected.items() if v is not None}


def test_samples_of_the_command(capsys, tmp_path):
    options = ["--steps", 5, "--label", 7, "--seed", 3, "--device", "cpu", "--out", tmp_path / "folder"]
    status, _, err = call(capsys, "sample", OLD / "digits", "-n", 2, *options)
    assert status == 0, err
    pinned = said(OLD / "digits" / "folder" / "manifest.json")
    assert said(tmp_path / "folder" / "manifest.json") == pinned
