"""Runs that the first version wrote: they load, sample the same images, resume, and know what is stored
beside them.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support import call

import scorefield as sf
import scorefield.runs.build

OLD = Path(__file__).parent / "old_runs"
PLAIN = ["digits", "ncsn", "hybrid", "categorical", "moons", "upsampler", "python"]
RESUMED = ["digits", "classifier", "ncsn", "hybrid", "categorical", "moons"]
SETTINGS = {
    "ncsn": ["--set", "repeats=2"],
    "moons": ["--sampler", "langevin", "--set", "sampler.step=0.01", "--steps", 5],
    "upsampler": ["--low-res", OLD / "upsampler" / "small.npz", "--steps", 5],
}
DIGITS = {
    "guided": ["--sampler", "ddim", "--eta", 0.5, "--label", "3,5", "--guidance", 2],
    "classified": ["--classifier", OLD / "classifier", "--guidance", 1.5],
}


def sampled(capsys, run, out, *options):
    status, _, err = call(
        capsys, "sample", run, "-n", 4, "--seed", 3, "--device", "cpu", "--out", out, *options
    )
    assert status == 0, err
    return np.load(out)


def assert_same(found, expected):
    assert sorted(found.files) == sorted(expected.files)
    for name in expected.files:
        a, b = found[name], expected[name]
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        assert np.abs(a.astype(float) - b.astype(float)).max() <= (1 if a.dtype == np.uint8 else 1e-4), name


@pytest.mark.parametrize("name", PLAIN)
def test_samples_the_same(capsys, tmp_path, name):
    options = SETTINGS.get(name, ["--steps", 5])
    assert_same(sampled(capsys, OLD / name, tmp_path / "x.npz", *options), np.load(OLD / name / "plain.npz"))  # type: ignore[misc]


@pytest.mark.parametrize("name", DIGITS)
def test_guides_the_same(capsys, tmp_path, name):
    found = sampled(capsys, OLD / "digits", tmp_path / "x.npz", "--steps", 5, *DIGITS[name])
    assert_same(found, np.load(OLD / "digits" / f"{name}.npz"))


@pytest.mark.parametrize("name", RESUMED)
def test_resumes(capsys, tmp_path, name):
    run = tmp_path / "run"
    shutil.copytree(OLD / name, run)
    recipe = scorefield.runs.build.read_run(run)[0].name
    status, _, err = call(capsys, "train", recipe, "--run", run, "--steps", 6, "--resume", "--device", "cpu")
    assert status == 0, err
    lines, known = (
        [json.loads(line) for line in path.read_text().splitlines()]
        for path in (run / "metrics.jsonl", OLD / name / "resumed.jsonl")
    )
    assert [line["step"] for line in lines] == [line["step"] for line in known] == [1, 2, 3, 4, 5, 6]
    torch.testing.assert_close(
        [line["loss"] for line in lines], [line["loss"] for line in known], rtol=1e-3, atol=1e-5
    )
    torch.testing.assert_close(
        load_file(run / "model.safetensors"),
        load_file(OLD / name / "resumed.safetensors"),
        rtol=1e-3,
        atol=1e-4,
    )


def test_stored_samples_are_recognised(capsys, tmp_path):
    """Other settings would be refused as other samples, so the identity of stored samples has not changed."""
    folder = tmp_path / "folder"
    shutil.copytree(OLD / "digits" / "folder", folder)
    options = ["--steps", 5, "--label", 7, "--seed", 3, "--device", "cpu", "--out", folder]
    status, _, err = call(capsys, "sample", OLD / "digits", "-n", 2, *options)
    assert status == 0, err
    assert sorted(path.name for path in folder.glob("*.png")) == ["000000.png", "000001.png"]
    assert call(capsys, "sample", OLD / "digits", "-n", 2, *options, "--eta", 0.5)[0] == 1


def test_latents_decode(capsys, tmp_path):
    out = tmp_path / "x.npz"
    status, _, err = call(
        capsys, "decode", OLD / "digits", OLD / "digits" / "latents.npz", "--device", "cpu", "--out", out
    )
    assert status == 0, err
    assert_same(np.load(out), np.load(OLD / "digits" / "decoded.npz"))


def test_a_network_of_the_users_own_is_given():
    class Own(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x, c, y=None):
            return self.weight * x

    model = sf.load(OLD / "own-network", net=Own())
    assert float(model.net.weight.detach()) == pytest.approx(0.5, abs=0.01)  # type: ignore[attr-defined]
    assert model.process.T == 20
