"""`scorefield import`: published checkpoints become runs that every command takes; every mistake is one line."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from support import Golden, call

NCSN = "image_size=8 channels=1 ngf=8 num_classes=10 sigma_begin=1 sigma_end=0.01"
DDPM = "image_size=8 model.ch=32 model.ch_mult=2,1 model.num_res_blocks=1 model.attn_resolutions=4"
UNET = "--image_size 16 --num_channels 32 --channel_mult 1,2,1 --num_res_blocks 1 --attention_resolutions 8,4 --num_heads 2"
UNET += " --class_cond True --learn_sigma True --noise_schedule cosine"


class Canary:
    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


def weights(case: str, prefix: str = "") -> dict[str, torch.Tensor]:
    golden = Golden(case)
    return {prefix + name.removeprefix("state_dict."): golden[name] for name in golden.names("state_dict.")}


@pytest.fixture
def files(tmp_path):
    """One small checkpoint of each repository, as it saves them."""
    torch.save(
        [weights("C11_cond_refinenet_dilated", "module."), {"state": {}, "param_groups": []}],
        tmp_path / "ncsn.pth",
    )
    torch.save(
        {name: value.half() for name, value in weights("C12_unet_ddim").items()}, tmp_path / "ddpm.ckpt"
    )
    torch.save(weights("C01_unet_guided_0"), tmp_path / "unet.pt")
    torch.save({"weight": torch.zeros(2), "extra": Canary(tmp_path / "trace")}, tmp_path / "canary.pt")
    whole = (tmp_path / "unet.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    return tmp_path


def test_help(capsys):
    status, out, _ = call(capsys, "import", "--help")
    assert status == 0
    assert "--card" in out
    assert "import" in call(capsys, "--help")[1]


def test_ncsn_is_imported_sampled_and_judged(capsys, files):
    run = files / "run"
    status, out, err = call(
        capsys, "import", "ncsn", files / "ncsn.pth", "--run", run, "--flags", NCSN, "--json"
    )
    assert status == 0, err
    assert json.loads(out)["parameters"] == 143_505  # golden C11
    assert "note: took the model's weights" in err
    assert "143,505 parameters of the ncsn checkpoint ncsn.pth" in err
    status, out, err = call(
        capsys, "sample", run, "-n", 2, "--set", "repeats=2", "--out", files / "a.npz", "--json"
    )
    assert status == 0, err
    assert json.loads(out)["calls"] == 20
    assert np.load(files / "a.npz")["images"].shape == (2, 8, 8)
    rng = np.random.default_rng(0)
    np.savez(
        files / "data.npz", images=rng.integers(0, 256, (40, 8, 8), dtype=np.uint8), labels=np.arange(40) % 2
    )
    judged = ["--data", files / "data.npz", "--samples", files / "a.npz", "-n", 2, "--sets", 1]
    status, out, err = call(capsys, "evaluate", run, *judged, "--json")
    assert status == 0, err
    status, _, err = call(capsys, "evaluate", run, "--samples", files / "a.npz")
    assert status == 1
    assert "--data" in err


def test_half_precision_is_said_and_flags_may_have_sections(capsys, files):
    run = files / "run"
    status, _, err = call(capsys, "import", "ddpm", files / "ddpm.ckpt", "--run", run, "--flags", DDPM)
    assert status == 0, err
    assert "converted 146 of 146 tensors from float16 to float32" in err
    status, out, _ = call(capsys, "info", run, "--json")
    assert status == 0
    assert json.loads(out)["parameters"] == 525_091  # golden C12
    assert "ddpm.ckpt" in json.loads(out)["imported_from"]
    assert call(capsys, "sample", run, "-n", 2, "--steps", 2, "--out", files / "a.png")[0] == 0


def test_guided_diffusion_with_the_scripts_own_flags(capsys, files):
    run = files / "run"
    status, _, err = call(
        capsys,
        "import",
        "guided-diffusion",
        files / "unet.pt",
        "--run",
        run,
        "--flags",
        UNET,
        "--flags",
        "timestep_respacing=4",
    )
    assert status == 0, err
    status, out, err = call(capsys, "sample", run, "-n", 2, "--label", 3, "--out", files / "a.npz", "--json")
    assert status == 0, err
    assert json.loads(out)["calls"] == 4
    assert "learned" in json.loads(out)["sampler"]
    assert np.load(files / "a.npz")["labels"].tolist() == [3, 3]


MISTAKES = [
    (["guided-diffusion", "unet.pt"], "(--card NAME or --flags)"),
    (["guided-diffusion", "unet.pt", "--card", "64x64_difusion"], "did you mean '64x64_diffusion'"),
    (
        ["guided-diffusion", "unet.pt", "--card", "64x64_diffusion"],
        "num_channels is 32 in the file but 192 in the flags",
    ),
    (
        ["guided-diffusion", "unet.pt", "--card", "64x64_classifier"],
        "the kind is a model of images in the file",
    ),
    (
        ["guided-diffusion", "unet.pt", "--flags", UNET, "--flags", "learn_sigma=no"],
        "learn_sigma is true in the file",
    ),
    (
        ["guided-diffusion", "unet.pt", "--flags", UNET, "--classifier"],
        "no option image_size, did you mean|no option num_channels",
    ),
    (["guided-diffusion", "unet.pt", "--flags", "image_size"], "written a=b"),
    (["guided-diffusion", "ddpm.ckpt", "--flags", UNET], "these are weights of ddpm"),
    (["ncsn", "ncsn.pth", "--flags", "image_size=8"], "is missing"),
    (["ncsn", "ncsn.pth", "--card", "cifar10"], "none of this origin, give flags (--card, --flags)"),
    (["ncsn", "ncsn.pth", "--flags", NCSN, "--classifier"], "no classifiers"),
    (["ddpm", "canary.pt", "--flags", DDPM], "Nothing in it was run"),
    (["ddpm", "cut.pt", "--flags", DDPM], "damaged, cut off"),
    (["ddpm", "none.pt", "--flags", DDPM], "there is no such file"),
    (["stable-diffusion", "unet.pt"], "must be one of guided-diffusion, improved-diffusion"),
]


@pytest.mark.parametrize(
    ("arguments", "message"), MISTAKES, ids=[" ".join(arguments)[:60] for arguments, _ in MISTAKES]
)
def test_mistakes_get_one_line_and_no_run(capsys, files, arguments, message):
    origin, file, *rest = arguments
    status, out, err = call(capsys, "import", origin, files / file, "--run", files / "run", *rest)
    assert status == 1
    assert any(part in err for part in message.split("|")), err
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert len(line) < 700
    assert not out
    assert not (files / "run").exists()
    assert not (files / "trace").exists()
