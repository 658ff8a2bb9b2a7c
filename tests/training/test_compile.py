"""torch.compile behind a switch: the same numbers, in training and in sampling, and a word where it cannot be
had.
"""

import json
import shutil
from typing import Any

import numpy as np
import pytest
import torch
import torch._dynamo
from support import call

import scorefield as sf
from scorefield.generation.sampling import Sampling

OPTIONS: dict[str, Any] = {"steps": 3, "batch_size": 8, "lr": 1e-3, "device": "cpu", "precision": "fp32"}


def objective():
    torch.manual_seed(0)
    net = sf.nets.UNet(1, channels=32, channel_mult=(1,), blocks=1, attention=(), num_classes=10)
    model = sf.Denoiser(
        net, sf.process.from_betas(sf.process.cosine_betas(50)), "v", data=sf.data.digits().spec
    )
    return sf.objectives.Simple(model, weighting="v")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_a_compiled_network_is_the_network(capsys, tmp_path):
    data, graphs = sf.data.digits(), torch._dynamo.utils.counters["stats"]
    losses, images = [], []
    for compiled in (False, True):
        run = tmp_path / f"{compiled}"
        trainer = sf.train(objective(), data, run=run, compile=compiled, **OPTIONS)
        losses.append([step.loss for step in trainer])
        assert trainer.objective.model.is_compiled == compiled
        trained = graphs["unique_graphs"]
        assert bool(trained) == compiled
        assert not trainer.ema_model().is_compiled
        model = sf.load(run)  # under its own names: nothing of the compiler is saved
        if compiled:
            model.compile_network()
        x_T = sf.noise.NoiseSource(0).normal((4, 1, 8, 8))
        graphs["unique_graphs"] = 0
        images.append(
            sf.sample(
                model.given([0, 1, 2, 3]), sf.samplers.DDIM(), sf.grids.uniform(model.process, 4), x_T=x_T
            )
        )
        assert bool(graphs["unique_graphs"]) == compiled
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    torch.testing.assert_close(*images, rtol=1e-3, atol=1e-3)
    for options in ([], ["--compile"]):
        command = [
            "sample",
            tmp_path / "True",
            "-n",
            4,
            "--steps",
            3,
            "--device",
            "cpu",
            *options,
            "--out",
            tmp_path / f"{len(options)}.npz",
        ]
        assert call(capsys, *command)[0] == 0
    pixels = [np.load(tmp_path / f"{k}.npz")["images"].astype(int) for k in (0, 1)]
    assert np.abs(pixels[0] - pixels[1]).max() <= 255 / 16  # a level of the digits, at a rounding's edge


def test_without_a_compiler_or_a_module_it_is_said(monkeypatch):
    def none():
        raise RuntimeError("No working C++ compiler found")

    monkeypatch.setattr("torch._inductor.cpp_builder.get_cpp_compiler", none)
    with pytest.raises(sf.InputError, match=r"needs a C\+\+ compiler"):
        sf.train(objective(), sf.data.digits(), compile=True, **OPTIONS)
    bare = sf.Denoiser(lambda x, c, y=None: x, sf.process.from_betas(sf.process.cosine_betas(50)))
    with pytest.raises(sf.InputError, match="needs a torch"):
        bare.compile_network()
    with pytest.raises(sf.InputError, match="compile and shard"):
        sf.train(objective(), sf.data.digits(), compile=True, shard=True, **OPTIONS)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_compiled_samples_are_other_samples():
    """A manifest tells them apart, since they differ by rounding."""
    model = objective().model
    sampling = Sampling(model, sf.samplers.DDIM(), torch.tensor([2, 1, 0]))
    plain = sampling.identity(seed=0)
    model.compile_network()  # which compiles at the first call only
    assert json.dumps(sampling.identity(seed=0)) != json.dumps(plain)
