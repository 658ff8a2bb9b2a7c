"""What decides stored samples, pinned: folders that the first version wrote are found again, under their names."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support import call

from scorefield.core.shapes import DataSpec
from scorefield.evaluation.generated import SampledSets
from scorefield.generation.sampling import Guide
from scorefield.generation.sampling_options import SamplingOptions
from scorefield.runs.build import build_sampling, load, read_run
from scorefield.runtime.distributed import Processes
from scorefield.runtime.progress import SILENT
from scorefield.store.block_store import Block, StoredSamples

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
    """What a manifest says of the samples: null is the same as nothing."""
    what = json.loads(manifest.read_text())
    return {
        key: value for key, value in what.items() if value is not None and key not in ("format", "scorefield")
    }


@pytest.mark.parametrize(
    ("guided", "name", "expected"),
    [(False, "samples-8d444b95953ccac1", DIGITS), (True, "samples-63ad8f523f505c1c", GUIDED)],
)
def test_samples_of_an_evaluation(tmp_path, guided, name, expected):
    model, options = load(OLD / "digits"), read_run(OLD / "digits")[0].sampling
    options = options.model_copy(update={"steps": 5, "guidance": 1.5 if guided else None})
    guide = Guide(load(OLD / "classifier"), "guide", "b" * 12) if guided else None  # type: ignore[arg-type]
    sampling = replace(build_sampling(options, model, guide), labels=[1, 2, 3], weights="a" * 12)
    sets = SampledSets(sampling, tmp_path, count=64, sets=1, seed=3)
    sets.make(Processes(), SILENT)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert said(tmp_path / name / "manifest.json") == {k: v for k, v in expected.items() if v is not None}


def test_samples_of_the_command(capsys, tmp_path):
    options = ["--steps", 5, "--label", 7, "--seed", 3, "--device", "cpu", "--out", tmp_path / "folder"]
    status, _, err = call(capsys, "sample", OLD / "digits", "-n", 2, *options)
    assert status == 0, err
    pinned = said(OLD / "digits" / "folder" / "manifest.json")
    assert said(tmp_path / "folder" / "manifest.json") == pinned


def test_every_option_is_in_the_identity():
    """A field that is added to the options tells samples apart without a further line: by its value, or because
    another sampler or grid is built of it.
    """
    model, options = load(OLD / "ncsn"), read_run(OLD / "ncsn")[0].sampling
    plain = build_sampling(options, model).identity(seed=0)
    others = {
        "sampler": {"kind": "ddim"},
        "grid": "uniform",
        "steps": 10,
        "repeats": 3,
        "levels": 2,
        "start": "prior" if options.start == "uniform" else "uniform",
        "clip": not options.clip,
        "guidance": 2.0,
        "guidance_at": "mean",
        "guidance_low": 0.2,
        "guidance_high": 5.0,
        "guidance_schedule": "linear",
        "guidance_rescale": 0.7,
    }
    assert set(others) == set(SamplingOptions.model_fields)
    for name, value in others.items():
        changed = options.model_copy(update={name: value})
        sampling = replace(build_sampling(options, model), options=changed)
        if name in ("sampler", "grid", "steps", "repeats", "levels"):
            sampling = build_sampling(changed, model)
        assert sampling.identity(seed=0) != plain, name
    newer = {
        "guidance_low",
        "guidance_high",
        "guidance_schedule",
        "guidance_rescale",
    }  # absent where they are None
    assert {*SamplingOptions.model_fields} <= {*plain, "steps", "repeats", "levels", *newer}


def test_null_is_the_same_as_nothing(tmp_path):
    """A store that says null of what another one leaves out, and the other way round, is found again."""
    spec = DataSpec((2,))
    old = StoredSamples.within(tmp_path, {"seed": 0, "low_res": None}, spec, 32)
    old.make(32, lambda numbers: [Block(range(32), torch.zeros(32, 2), None)])
    new = StoredSamples.within(tmp_path, {"seed": 0, "compiled": None}, spec, 32)
    assert new.missing(32) == []
    assert new.make(32, lambda numbers: []) == 0
    assert StoredSamples.within(tmp_path, {"seed": 1}, spec, 32).missing(32) == [0]
