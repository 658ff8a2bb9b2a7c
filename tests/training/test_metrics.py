"""What a run tells of itself while it trains: metrics.jsonl and trackers."""

import json
import resource
import time
from typing import Any

import pytest
import torch
from torch import nn

import scorefield as sf
from scorefield.training.meter import Meter

OPTIONS: dict[str, Any] = {"batch_size": 8, "device": "cpu", "precision": "fp32", "log_every": 2}
POINTS = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))


def objective():
    torch.manual_seed(0)
    process = sf.process.from_betas(sf.process.cosine_betas(20))
    return sf.objectives.Simple(sf.Denoiser(sf.nets.MLP(2, hidden=16, layers=1), process, "v"))


def test_a_line_of_metrics(tmp_path):
    steps = list(sf.train(objective(), POINTS, run=tmp_path / "r", steps=5, **OPTIONS))
    lines = [json.loads(line) for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 5]
    for line in lines:
        step = steps[line["step"] - 1]
        assert (line["loss"], line["grad_norm"], line["lr"]) == (step.loss, step.grad_norm, step.lr)
        assert line["skipped"] == 0
        assert 0 < line["data_wait"] < 1
        assert line["examples_per_second"] > 0
        assert 0 < line["memory_bytes"] <= 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_the_gradient_norm_is_that_before_clipping(tmp_path):
    clipped, free = (next(sf.train(objective(), POINTS, steps=1, clip=clip, **OPTIONS)) for clip in (1e-4, 0))
    same = objective()
    noise = sf.noise.NoiseSource(0, range(8), 0)
    order = sf.data.EpochOrder(64, 8, 0).indices(0)
    same(POINTS[order], None, noise).per_example.mean().backward()
    expected = nn.utils.parameters_to_vector([parameter.grad for parameter in same.parameters()]).norm()
    assert clipped.grad_norm == free.grad_norm == pytest.approx(float(expected), rel=1e-6)


def test_the_meter_counts_steps_and_not_what_is_between_them(monkeypatch):
    clock = iter([0.0, 2.0, 10.0, 12.0])  # two steps of two seconds, eight seconds apart
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    meter = Meter(torch.device("cpu"))
    for waited in (0.5, 0.7):
        meter.start()
        assert meter.stop(10, waited) == 2.0
    values = meter.read()
    assert values["examples_per_second"] == pytest.approx(20 / 4)
    assert values["data_wait"] == pytest.approx(1.2 / 4)


def test_tensorboard_receives_the_metrics(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = tmp_path / "r"
    list(sf.train(objective(), POINTS, run=run, steps=4, trackers=["tensorboard"], **OPTIONS))
    events = accumulator.EventAccumulator(str(run / "scorefield")).Reload()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for name in ("loss", "grad_norm", "lr", "examples_per_second", "data_wait", "memory_bytes", "skipped"):
        scalars = events.Scalars(name)
        assert [scalar.step for scalar in scalars] == [2, 4]
        assert [scalar.value for scalar in scalars] == pytest.approx([line[name] for line in lines], rel=1e-6)
