"""Importance-sampled times in training: saved and restored. (test_processes.py: the same on one process and
on two.)
"""

from typing import Any

import torch

import scorefield as sf
from scorefield.objectives.times import ImportanceTimes
from scorefield.training import checkpoint


def objective():
    torch.manual_seed(0)
    data = sf.data.digits().split(0.2, 0)[0]
    net = sf.nets.UNet(1, channels=32, channel_mult=(1,), blocks=1, attention=(), out_channels=2)
    process = sf.process.from_betas(sf.process.cosine_betas(5))
    model = sf.Denoiser(net, process, variance="range", data=data.spec)
    return sf.objectives.VLB(model, times={"kind": "importance", "history": 3}), data


def test_resumes_exactly(tmp_path):
    """Stopped once the history is full, so that the draws after it depend on it."""
    options: dict[str, Any] = {
        "batch_size": 16,
        "lr": 1e-3,
        "precision": "fp32",
        "device": "cpu",
        "checkpoint_every": 100,
    }
    whole = sf.train(*objective(), steps=9, run=tmp_path / "whole", **options)
    losses = [step.loss for step in whole]
    first = sf.train(*objective(), steps=6, run=tmp_path / "parts", **options)
    parts = [step.loss for step in first]
    assert isinstance(first.objective.times, ImportanceTimes)
    assert first.objective.times.warm
    saved = checkpoint.newest(tmp_path / "parts" / "checkpoints").groups["times"]
    assert torch.equal(saved["losses"], first.objective.times.state_dict()["losses"])
    second = sf.train(*objective(), steps=9, run=tmp_path / "parts", resume=True, **options)
    parts += [step.loss for step in second]
    assert parts == losses
    ours, theirs = second.objective.times, whole.objective.times
    assert isinstance(ours, ImportanceTimes)
    assert isinstance(theirs, ImportanceTimes)
    assert torch.equal(ours.probabilities(), theirs.probabilities())
    assert not torch.equal(ours.probabilities(), torch.full((5,), 0.2, dtype=torch.float64))
