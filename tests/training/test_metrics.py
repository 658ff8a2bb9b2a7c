"""What a run tells of itself while it trains: metrics.jsonl and trackers."""

import contextlib
import json
import resource
import statistics
import time
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import scorefield as sf
from scorefield.store.run_folder import RunFolder
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
        since = steps[2 * ((line["step"] - 1) // 2) : line["step"]]
        assert line["loss"] == pytest.approx(statistics.mean(step.loss for step in since), rel=1e-12)
        assert line["grad_norm"] == pytest.approx(
            statistics.mean(step.grad_norm for step in since), rel=1e-12
        )
        assert line["lr"] == since[-1].lr
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


def lines_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_that_is_stopped_before_its_first_line_has_one(tmp_path):
    """And goes on with the lines that it would have had."""
    options = {**OPTIONS, "log_every": 4}
    trainer = sf.train(objective(), POINTS, run=tmp_path / "r", steps=8, **options)
    losses = [next(trainer).loss for _ in range(3)]
    trainer.stop()
    trainer.close()
    (line,) = lines_of(tmp_path / "r")
    assert (line["step"], line["loss"]) == (3, pytest.approx(statistics.mean(losses), rel=1e-12))
    list(sf.train(objective(), POINTS, run=tmp_path / "r", resume=True, steps=8, **options))
    assert [line["step"] for line in lines_of(tmp_path / "r")] == [3, 4, 8]


HELDOUT = sf.data.tensor(torch.randn(40, 2, generator=torch.Generator().manual_seed(1)))


def test_the_loss_on_held_out_examples_changes_nothing(tmp_path):
    """After every checkpoint and at the end; the same bytes with and without it, in one go or resumed."""
    options = {**OPTIONS, "checkpoint_every": 4, "batch_size": 16}
    for name, heldout in (("with", HELDOUT), ("without", None)):
        list(sf.train(objective(), POINTS, run=tmp_path / name, steps=10, heldout=heldout, **options))
    first = sf.train(objective(), POINTS, run=tmp_path / "resumed", steps=10, heldout=HELDOUT, **options)
    for _ in range(5):
        next(first)
    first.save()
    list(
        sf.train(
            objective(), POINTS, run=tmp_path / "resumed", steps=10, heldout=HELDOUT, resume=True, **options
        )
    )
    with_, without, resumed = (lines_of(tmp_path / name) for name in ("with", "without", "resumed"))
    assert [line["step"] for line in with_ if "heldout_loss" in line] == [4, 8, 10]
    assert not any("heldout_loss" in line for line in without)
    assert [line.get("heldout_loss") for line in resumed] == [line.get("heldout_loss") for line in with_]
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("with", "without", "resumed")]
    assert files[0] == files[1] == files[2]
    place = "checkpoints/step-00000010/state.json"
    assert (tmp_path / "with" / place).read_bytes() == (tmp_path / "without" / place).read_bytes()


def test_it_is_the_mean_loss_of_these_examples(tmp_path):
    """Without dropout and without the random changes of training; against the objective itself."""
    same = objective()
    trainer = sf.train(
        same, POINTS, run=tmp_path / "r", steps=2, heldout=HELDOUT, **{**OPTIONS, "batch_size": 64}
    )
    list(trainer)
    x0 = HELDOUT.batch(torch.arange(40))[0]
    noise = sf.noise.NoiseSource(0, range(40), 2**63)
    expected = float(same.eval()(x0, None, noise).per_example.detach().double().mean())
    assert lines_of(tmp_path / "r")[-1]["heldout_loss"] == pytest.approx(expected, rel=1e-6)


def test_held_out_examples_are_like_those_of_training(tmp_path):
    for wrong, said in ((torch.randn(8, 3), "shape"), (HELDOUT.subset(torch.arange(0)), None)):
        with pytest.raises(sf.InputError, match=said) if said else contextlib.nullcontext():
            list(sf.train(objective(), POINTS, run=tmp_path / "r", steps=2, heldout=wrong, **OPTIONS))
    assert "heldout_loss" not in lines_of(tmp_path / "r")[-1]


class Broken:
    """A tracker whose disk is full from its first line on."""

    name = "broken"

    def log(self, values, step):
        raise OSError(28, "No space left on device")

    def finish(self):
        raise AssertionError("it was left out")


def test_a_tracker_that_cannot_write_does_not_end_the_training(tmp_path, caplog):
    trainer = sf.train(objective(), POINTS, run=tmp_path / "r", steps=4, **OPTIONS)
    trainer.accelerator.trackers = [Broken()]
    assert len(list(trainer)) == 4
    assert "the tracker broken of" in caplog.text
    assert "No space left on device" in caplog.text
    assert len(lines_of(tmp_path / "r")) == 2


def test_tensorboard_receives_the_metrics(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = tmp_path / "r"
    trainer = sf.train(
        objective(), POINTS, run=run, steps=4, trackers=["tensorboard"], heldout=HELDOUT, **OPTIONS
    )
    next(trainer)
    trainer.show("samples", np.full((4, 6, 3), 200, dtype=np.uint8))
    list(trainer)
    events = accumulator.EventAccumulator(str(run / "scorefield")).Reload()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for name in ("loss", "grad_norm", "lr", "examples_per_second", "data_wait", "memory_bytes", "skipped"):
        scalars = events.Scalars(name)
        assert [scalar.step for scalar in scalars] == [2, 4]
        assert [scalar.value for scalar in scalars] == pytest.approx([line[name] for line in lines], rel=1e-6)
    assert [(held.step, held.value) for held in events.Scalars("heldout_loss")] == [
        (4, pytest.approx(lines[-1]["heldout_loss"], rel=1e-6))
    ]
    (picture,) = events.Images("samples")
    assert (picture.step, picture.width, picture.height) == (1, 6, 4)
    (told,) = run.rglob("hparams.yml")
    assert "training.batch_size: 8" in told.read_text()
    assert "net.hidden: 16" in told.read_text()


def test_the_lines_before_a_step_are_kept_whatever_others_hold(tmp_path):
    """Also lines longer than any of ours, of which no more than a piece is ever in memory."""
    folder = RunFolder(tmp_path)
    lines = [
        '{"step": 1}',
        "\0" * 3_000_000,
        "no line",
        '{"step": 2, "loss": "é"}',
        '{"step": 3}',
        '{"step": 2',
    ]
    folder.metrics.write_text("\n".join(lines))
    folder.truncate_metrics(2)
    assert folder.metrics.read_text() == '{"step": 1}\n{"step": 2, "loss": "é"}\n'
    folder.truncate_metrics(0)
    assert folder.metrics.read_text() == ""
    with open(folder.metrics, "wb") as file:
        file.truncate(50_000_000)
    tracemalloc.start()
    folder.truncate_metrics(2)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert folder.metrics.read_text() == ""
    assert peak < 10_000_000
