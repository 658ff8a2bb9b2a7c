"""What several test modules share: golden cases, the stub networks behind them, an exact comparison, and a
command.
"""

import importlib
import json
import os
from pathlib import Path
from typing import Protocol

import pytest
import torch
from PIL import Image, ImageSequence
from safetensors import safe_open

import scorefield as sf
import scorefield.cli

# The published code's names, and what they are called here: parametrization; variance head and variance of a
# step.
MEANS = {"EPSILON": "eps", "START_X": "x0", "PREVIOUS_X": "mean"}
VARIANCES = {
    "FIXED_SMALL": (None, "lower"),
    "FIXED_LARGE": (None, "upper"),
    "LEARNED": ("direct", "learned"),
    "LEARNED_RANGE": ("range", "learned"),
}


def import_for_forks() -> None:
    """Import once what the first step of training imports, or each fork would by itself, which takes seconds."""
    for name in ("torch._dynamo", "accelerate", "scorefield.cli.train", "scorefield.runs.open_training"):
        importlib.import_module(name)


def fork():
    """os.fork, with a child that computes by one thread: it has none of its parent's others, and would wait
    for them for ever.
    """
    pid = os.fork()
    if pid == 0:
        torch.set_num_threads(1)
    return pid


GOLDEN = Path(__file__).parent / "golden"


class Golden:
    """One golden case: tensors by name, and the configuration it was computed with."""

    def __init__(self, case: str):
        with safe_open(GOLDEN / f"{case}.safetensors", "pt") as file:
            self.tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            self.config = json.loads(file.metadata()["config"])

    def __getitem__(self, name):
        return self.tensors[name]

    def names(self, prefix):
        return [name for name in self.tensors if name.startswith(prefix)]

    def stub(self, group="model"):
        """f(x, t) = tanh(conv3x3(x; W) + b + 0.1 sin(t/50)), in float64; it receives the published 0-based
        timestep.
        """
        W, b = self[f"param.{group}.W"].double(), self[f"param.{group}.b"].double()

        def net(x, c, y=None):
            shift = 0.1 * torch.sin(c.double() / 50)
            return torch.tanh(torch.nn.functional.conv2d(x, W, b, padding=1) + shift.reshape(-1, 1, 1, 1))

        return net


def schedule(config):
    """The process that a golden case's `schedule` entry describes."""
    T = config["T"]
    if config.get("kind", config.get("schedule")) == "cosine":
        return sf.process.from_betas(sf.process.cosine_betas(T))
    if "start" in config:
        return sf.process.from_betas(sf.process.linear_betas(T, config["start"], config["end"]))
    return sf.process.from_betas(sf.process.linear_betas(T, 0.1 / T, 20 / T))


def relative_error(actual, expected):
    """The largest difference over the expected tensor's largest magnitude (1 where that is 0)."""
    expected = expected.double()
    scale = expected.abs().max().item() or 1.0
    return (actual.double() - expected).abs().max().item() / scale


def assert_close(actual, expected, tolerance, what=""):
    assert actual.shape == expected.shape, (
        f"{what}: shape {tuple(actual.shape)}, expected {tuple(expected.shape)}"
    )
    error = relative_error(actual, expected)
    assert error <= tolerance, f"{what}: relative error {error:.3g}, allowed {tolerance:.3g}"


def pattern(count, height, width):
    """Smooth RGB images (count, 3, height, width) in [0, 1], float64."""
    n, c, i, j = (torch.arange(size, dtype=torch.float64) for size in (count, 3, height, width))
    waves = 0.11 * (c + 1)[:, None, None] * i[:, None] + 0.07 * (c + 2)[:, None, None] * j
    return 0.5 + 0.5 * torch.sin(waves + 0.9 * n[:, None, None, None])


TINY = (
    "net.channels=32",
    "net.channel_mult=[1]",
    "net.blocks=1",
    "net.attention=[]",
    "training.batch_size=8",
    "training.sample_every=0",
    "training.log_every=1",
)
TINY_TOY = ("net.hidden=16", "training.batch_size=32", "training.log_every=1")
# Weights that differ from their beginning after a step or two, so that what is sampled depends on them.
LEARNS = ("training.precision=fp32", "training.lr=0.01", "training.warmup=0")


def tiny(recipe: str, *settings: str) -> list[str]:
    """The words of `scorefield train RECIPE` for a small network on the CPU; settings ("net.blocks=2") come last."""
    small = TINY_TOY if recipe.startswith("toy-") else TINY
    return ["--device", "cpu", *(word for setting in (*small, *settings) for word in ("--set", setting))]


class TinyRun(Protocol):
    """What the fixture tiny_run is: see tests/conftest.py."""

    def __call__(self, recipe: str, *settings: str, steps: int = 2) -> Path: ...
    def copy(self, target: Path, recipe: str, *settings: str, steps: int = 2) -> Path: ...


def loaded(data: object) -> torch.Tensor:
    """The values of a data set that is in memory, (N, *)."""
    assert isinstance(data, sf.Dataset)
    assert isinstance(data.values, torch.Tensor)
    return data.values


def frames(path: Path) -> int:
    """The number of frames of a .gif."""
    return sum(1 for _ in ImageSequence.Iterator(Image.open(path)))


def call(capsys, *arguments):
    """(exit status, stdout, stderr) of one command in this process."""
    with pytest.raises(SystemExit) as stop:
        scorefield.cli.main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return stop.value.code or 0, out, err
