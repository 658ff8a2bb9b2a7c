"""Importance-sampled times in training: saved, restored, and the same on one process and on two."""

import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

import scorefield as sf
from scorefield.training import checkpoint

JOB = Path(__file__).with_name("importance_job.py")


def objective():
    torch.manual_seed(0)
    data = sf.data.digits().split(0.2, 0)[0]
    net = sf.nets.UNet(1, channels=32, channel_mult=(1,), blocks=1, attention=(), out_channels=2)
    process = sf.process.from_betas(sf.process.cosine_betas(5))
    model = sf.Denoiser(net, process, variance="range", data=data.spec)
    return sf.objectives.VLB(model, times={"kind": "importance", "history": 3}), data


def test_resumes_exactly(tmp_path):
    """Stopped once the history is full, so that the draws after it depend on it."""
    options = {"batch_size": 16, "lr": 1e-3, "precision": "fp32", "device": "cpu", "checkpoint_every": 100}
    whole = sf.train(*objective(), steps=9, run=tmp_path / "whole", **options)
    losses = [step.loss for step in whole]
    first = sf.train(*objective(), steps=6, run=tmp_path / "parts", **options)
    parts = [step.loss for step in first]
    assert first.objective.times.warm
    saved = checkpoint.newest(tmp_path / "parts" / "checkpoints").groups["times"]
    assert torch.equal(saved["losses"], first.objective.times.state_dict()["losses"])
    second = sf.train(*objective(), steps=9, run=tmp_path / "parts", resume=True, **options)
    parts += [step.loss for step in second]
    assert parts == losses
    ours, theirs = second.objective.times, whole.objective.times
    assert torch.equal(ours.probabilities(), theirs.probabilities())
    assert not torch.equal(ours.probabilities(), torch.full((5,), 0.2, dtype=torch.float64))


def test_two_processes_draw_and_remember_what_one_does(tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    for command in ([sys.executable], launch):
        done = subprocess.run([*command, str(JOB), str(tmp_path)], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
    alone = load_file(tmp_path / "rank-0-of-1.safetensors")
    assert alone["world"] == 1
    assert bool((alone["counts"] == 3).all())
    for rank in (0, 1):
        state = load_file(tmp_path / f"rank-{rank}-of-2.safetensors")
        assert state["world"] == 2
        assert torch.equal(state["losses"], alone["losses"])
        assert torch.equal(state["counts"], alone["counts"])
        assert torch.allclose(state["drawn"], alone["drawn"], rtol=1e-6)
