"""`scorefield export`: a run becomes a folder that diffusers loads, comes back as the same run, or is refused
in one line.
"""

import json
import os
import signal
import stat

import pytest
import torch
from support import call, fork

import scorefield as sf
import scorefield.cli
from scorefield.core.shapes import DataSpec
from scorefield.interop import diffusers
from scorefield.interop.importing import Imported, write_run
from scorefield.runs.build import read_run


@pytest.fixture
def run(tmp_path):
    """Makes a run of a small network."""

    def make(**options):
        net = sf.nets.UNet(
            1, out_channels=1, channels=32, channel_mult=(1, 2), blocks=1, attention=(2,), heads=4, **options
        )
        generator = torch.Generator().manual_seed(0)
        for parameter in net.parameters():
            parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
        process = sf.process.cosine(1000)
        model = sf.Denoiser(net, process, "v", data=DataSpec((1, 8, 8), (-1.0, 1.0), (), 17))
        sampling = {"sampler": {"kind": "ddim", "eta": 0.0}, "steps": 10, "clip": True}
        write_run(
            Imported(model, "small", "Small", "", "a test", "none", sampling=sampling), tmp_path / "run"
        )
        return tmp_path / "run"

    return make


def test_there_and_back(capsys, tmp_path, run):
    status, out, err = call(capsys, "export", "diffusers", run(), tmp_path / "out", "--json")
    assert status == 0, err
    assert json.loads(out)["directory"] == str(tmp_path / "out")
    assert "pipeline(num_inference_steps=10, use_clipped_model_output=True)" in err
    status, out, err = call(
        capsys, "import", "diffusers", tmp_path / "out", "--run", tmp_path / "back", "--json"
    )
    assert status == 0, err
    ours, back = sf.load(tmp_path / "run"), sf.load(tmp_path / "back")
    assert all(torch.equal(value, back.state_dict()[name]) for name, value in ours.state_dict().items())
    (first, data), (second, data_back) = read_run(tmp_path / "run"), read_run(tmp_path / "back")
    assert (first.net, first.model, first.process, first.sampling, data) == (
        second.net,
        second.model,
        second.process,
        second.sampling,
        data_back,
    )
    assert (
        call(capsys, "sample", tmp_path / "back", "-n", 1, "--steps", 2, "--out", tmp_path / "a.png")[0] == 0
    )
    status, out, _ = call(capsys, "info", tmp_path / "back", "--json")
    assert "the diffusers weights out/" in json.loads(out)["imported_from"]


def test_refusals_are_one_line(capsys, tmp_path, run):
    folder = run(rescale_residual=True)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").write_text("")
    for arguments, message in (
        (["diffusers", folder, tmp_path / "out"], "cannot express residual rescaling"),
        (["onnx", folder, tmp_path / "out"], "unknown target 'onnx'"),
        (["diffusers", tmp_path / "none", tmp_path / "out"], "is not a run"),
    ):
        status, out, err = call(capsys, "export", *arguments)
        (line,) = err.splitlines()
        assert (status, out) == (1, "")
        assert line.startswith("error: ")
        assert message in line
        assert not (tmp_path / "out").exists()


def test_help(capsys):
    assert "DIR" in call(capsys, "export", "--help")[1]
    assert "export" in call(capsys, "--help")[1]


@pytest.mark.parametrize("there", [False, True])
def test_an_export_that_was_killed_leaves_nothing_for_good(capsys, tmp_path, run, monkeypatch, there):
    source, out = run(), tmp_path / "out"
    if there:
        out.mkdir()
    before = set(os.listdir(tmp_path))
    pid = fork()
    if pid == 0:
        monkeypatch.setattr(diffusers, "save_file", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        call(capsys, "export", "diffusers", source, out)
        os._exit(1)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    assert not (out / "model_index.json").exists()
    assert call(capsys, "export", "diffusers", source, out)[0] == 0
    assert sorted(os.listdir(out)) == ["model_index.json", "scheduler", "unet"]
    assert set(os.listdir(tmp_path)) == before | {"out"}
    (weights,) = out.rglob("*.safetensors")
    assert weights.stat().st_mode == (out / "model_index.json").stat().st_mode
    assert stat.S_IMODE(weights.stat().st_mode) != 0o600


def test_into_the_folder_where_one_is(capsys, tmp_path, run, monkeypatch):
    source = run()
    (tmp_path / "out").mkdir()
    monkeypatch.chdir(tmp_path / "out")
    assert call(capsys, "export", "diffusers", source, ".")[0] == 0
    assert sorted(os.listdir(".")) == ["model_index.json", "scheduler", "unet"]
