"""The files that cases run among: small runs, pictures, arrays, weights, recipes, and what must not be touched."""

import contextlib
import io
import os
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

import scorefield.cli

__all__ = ["FORGED", "build"]

ROOT = Path(__file__).parent.parent
RUNS = ("digits", "moons", "classifier", "ncsn", "categorical", "own-network")
FORGED = "\x1b[31mred\x1b[0m\nerror: forged.png"  # a file name that colours the terminal and forges a line
SPARSE = 6 * 2**30

RECIPE = """
name = "mine"
title = "mine"
[data]
source = "images.npz"
[process]
kind = "cosine"
T = 20
[net]
kind = "unet"
channels = 32
channel_mult = [1]
blocks = 1
attention = []
[model]
conditional = true
[objective]
kind = "simple"
[training]
steps = 2
batch_size = 4
sample_every = 0
log_every = 1
"""
# A perceptron, which trains in no time: of the same sizes as the run digits.
MLP = """
title = "small"
[data]
source = "digits"
holdout = 0.2
[process]
kind = "cosine"
T = 100
[net]
kind = "mlp"
hidden = 12
layers = 1
embed_dim = 8
[model]
parametrization = "v"
conditional = true
[objective]
kind = "simple"
weighting = "v"
[training]
steps = 2
batch_size = 8
label_dropout = 0.1
sample_every = 0
log_every = 1
[sampling]
sampler = { kind = "ancestral", variance = "lower" }
steps = 4
"""
OWN = """
import torch

class Own(torch.nn.Module):
    def __init__(self, dim=2):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x, c, y=None):
        return self.weight * x
"""


def build(folder: Path) -> None:
    """folder/work and folder/outside, always the same."""
    work, outside = folder / "work", folder / "outside"
    work.mkdir(parents=True)
    (outside / "checkpoints" / "step-00000001").mkdir(parents=True)
    (outside / "thesis.tex").write_text("three years of work\n")
    (outside / "checkpoints" / "step-00000001" / "weights.safetensors").write_bytes(b"someone else's")
    for name in RUNS:
        shutil.copytree(
            ROOT / "old_runs" / name, work / name, ignore=shutil.ignore_patterns("resumed.*", "plain.npz")
        )
    _pictures(work)
    _arrays(work)
    (work / "recipe.toml").write_text(RECIPE)
    (work / "mlp.toml").write_text(MLP)
    _weights(work)
    (work / "own.py").write_text(OWN)
    (work / "broken.py").write_text("def Own(:\n")
    (work / "thesis.tex").write_text("the same three years\n")
    (work / "empty").mkdir()
    (work / "empty.npz").write_bytes(b"")
    os.mkfifo(work / "fifo")
    os.mkfifo(work / "fifo.npz")
    (work / "link").symlink_to("../outside/thesis.tex")
    (work / "link.npz").symlink_to("../outside/thesis.tex")
    (work / "dangling.npz").symlink_to("../outside/new.npz")
    (work / "outside").symlink_to("../outside")
    (work / "loop").symlink_to("loop")
    for name in ("huge.npz", "huge.pt", "huge.png", "huge.toml"):
        with open(work / name, "wb") as file:
            file.truncate(SPARSE)
    (work / FORGED).write_bytes(b"no picture")


def _pictures(work: Path) -> None:
    random = np.random.default_rng(0)
    for kind in ("cats", "dogs"):
        (work / "pictures" / kind).mkdir(parents=True)
        for i in range(6):
            image = Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8))
            image.save(work / "pictures" / kind / f"{i}.png")
    image.save(work / "picture.png")
    image.convert("L").resize((8, 8)).save(work / "grey.png")
    Image.fromarray(np.eye(8, dtype=np.uint8) * 255).save(work / "mask.png")
    (work / "labels.csv").write_text("file,label\ncats/0.png,cats\ndogs/0.png,dogs\n")


def _arrays(work: Path) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (12, 8, 8), dtype=np.uint8)
    np.savez(work / "images.npz", images=images, labels=np.arange(12) % 3)
    np.savez(work / "colour.npz", images=random.integers(0, 256, (8, 8, 8, 3), dtype=np.uint8))
    np.savez(work / "points.npz", samples=random.normal(size=(32, 2)).astype(np.float32))
    shutil.copy(ROOT / "old_runs" / "digits" / "latents.npz", work / "latents.npz")


def _weights(work: Path) -> None:
    """A checkpoint of the NCSN repository as it saves one, and a folder of diffusers."""
    with safe_open(ROOT / "golden" / "C11_cond_refinenet_dilated.safetensors", "pt") as file:
        state = {
            f"module.{name.removeprefix('state_dict.')}": file.get_tensor(name)
            for name in file.keys()  # noqa: SIM118
            if name.startswith("state_dict.")
        }
    torch.save([state, {"state": {}, "param_groups": []}], work / "ncsn.pth")
    small = {"weight": torch.zeros(2), "bias": torch.ones(3)}
    torch.save(small, work / "small.pt")
    save_file(small, work / "small.safetensors")
    _command(work, "train", "recipe.toml", "--run", "unet", "--set", "model.conditional=false")
    _command(work, "export", "diffusers", "unet", "diffusers")


def _command(work: Path, *words: str) -> None:
    said, before = io.StringIO(), Path.cwd()
    os.chdir(work)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            scorefield.cli.main([*words])
    except SystemExit as stop:
        if stop.code:
            raise RuntimeError(said.getvalue()) from None
    finally:
        os.chdir(before)
