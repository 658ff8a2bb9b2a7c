"""~ is the home folder wherever a path is given: to be read and to be written, in the command and in Python."""

from pathlib import Path

import numpy as np
import pytest
import torch
from support import call, tiny

import scorefield as sf


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home folder; the working folder is another one, and must stay empty."""
    elsewhere = tmp_path / "elsewhere"
    (tmp_path / "home").mkdir()
    elsewhere.mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.chdir(elsewhere)
    yield tmp_path / "home"
    assert not list(elsewhere.iterdir())


def test_commands(capsys, home, tiny_run):
    tiny_run.copy(home / "run", "digits")
    first = ("sample", "~/run", "-n", "2", "--steps", "2", "--device", "cpu")
    for words in (
        (*first, "--out", "~/a.npz"),
        (*first, "--out=~/b.png", "--trajectory=~/b.gif"),
        (*first, "--out", "~/folder"),
        ("encode", "~/run", "~/folder", "--label", "0", "--steps", "2", "--out", "~/latents.npz"),
        ("decode", "~/run", "~/latents.npz", "--out", "~/c.npz"),
        ("plot", "~/run", "--figure", "training", "--out", "~/d.png"),
        ("info", "~/run"),
        ("train", "digits", "--init", "~/run", "--run", "~/more/run", "--steps", "1", *tiny("digits")),
    ):
        status, _, err = call(capsys, *words)
        assert status == 0, (words, err)
    for name in (
        "a.npz",
        "b.png",
        "b.gif",
        "folder",
        "latents.npz",
        "c.npz",
        "d.png",
        "more/run/config.toml",
    ):
        assert (home / name).exists(), name


def test_python(home, tiny_run):
    tiny_run.copy(home / "run", "digits")
    run = sf.Run("~/run")
    assert run.path == home / "run"
    assert sf.load("~/run").num_classes == 10
    run.sample(n=2, steps=2).save("~/a.npz")
    run.save_samples(target="~/b.npz", n=2, steps=2)
    sf.plots.plot_run("~/run", Path("~/c.png"), "training")
    run.encode(np.zeros((2, 8, 8), np.uint8), labels=[0, 1], steps=2).save("~/d.npz")
    objective = sf.objectives.Simple(sf.Denoiser(sf.nets.MLP(2, hidden=8, layers=1), sf.process.cosine(10)))
    list(sf.train(objective, torch.randn(8, 2), steps=1, run="~/points", device="cpu", batch_size=4))
    for name in ("a.npz", "b.npz", "c.png", "d.npz", "points/config.toml"):
        assert (home / name).exists(), name
