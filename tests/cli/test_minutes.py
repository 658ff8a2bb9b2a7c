"""`scorefield train --minutes`: a trial sets the number of steps once, and what follows depends on that number alone.

No test depends on how fast this machine is: where a number follows from the speed, the clocks that measure it are replaced.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support import call, tiny

import scorefield as sf
from scorefield.runs.open_training import open_training
from scorefield.runs.recipe import read_recipe, with_overrides
from scorefield.runs.time_limit import TimeLimit
from scorefield.training.speed import Speed

CLOCKS = ("scorefield.training.speed.monotonic", "scorefield.runs.time_limit.monotonic")
SETTINGS = ("training.anneal=true", "training.checkpoint_every=1000")
SMALL = tiny("toy-moons", *SETTINGS)


def ticking(seconds: float) -> Callable[[], float]:
    """A clock that goes on by so many seconds each time it is read, as it is before and after a step."""
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += seconds
        return now

    return clock


@pytest.fixture
def a_second_a_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets how long a step takes by the clocks that measure it."""

    def set_clocks(seconds: float) -> None:
        clock = ticking(seconds)
        for name in CLOCKS:
            monkeypatch.setattr(name, clock)

    set_clocks(1.0)
    return set_clocks


def training(run: Path) -> dict[str, object]:
    found: dict[str, object] = tomllib.loads((run / "config.toml").read_text())["training"]
    return found


def files(run: Path) -> list[bytes]:
    (last,) = (run / "checkpoints").glob("step-*[1-9]*")
    return [
        path.read_bytes()
        for path in (run / "config.toml", run / "model.safetensors", *sorted(last.iterdir()))
    ]


def said_steps(err: str) -> int:
    return int(re.search(r"32 examples/s: ([\d,]+) steps of 32 fit into 2 minutes", err)[1].replace(",", ""))


def test_the_number_of_steps_is_said_and_written_and_equals_steps(capsys, tmp_path, a_second_a_step):
    words = ["train", "toy-moons", *SMALL, "--run"]
    status, _, err = call(capsys, *words, tmp_path / "timed", "--minutes", 2)
    assert status == 0, err
    steps = said_steps(err)
    assert 50 <= steps < 120  # seconds, of which some are the trial's
    assert training(tmp_path / "timed")["steps"] == steps
    assert f"done: {steps:,} steps" in err
    assert "the recipe's default is" in err
    assert call(capsys, *words, tmp_path / "counted", "--steps", steps)[0] == 0
    assert files(tmp_path / "timed") == files(tmp_path / "counted")
    # Stopped and gone on with, it is the same again.
    a_second_a_step(1.0)
    recipe = with_overrides(read_recipe("toy-moons"), [word for word in SMALL if "=" in word])
    trainer = open_training(recipe, tmp_path / "parts", device="cpu", limit=TimeLimit(2))
    assert abs(trainer.options.steps - steps) <= 1  # the command reads its clock as often
    for _ in range(5):
        next(trainer)
    trainer.stop()
    trainer.close()
    go_on = ["train", "toy-moons", "--run", tmp_path / "parts", "--resume", "--device", "cpu"]
    assert call(capsys, *go_on)[0] == 0
    assert call(capsys, *words, tmp_path / "whole", "--steps", trainer.options.steps)[0] == 0
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("parts", "whole")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("given", [["--steps", 7], ["--set", "training.steps=7"]])
def test_the_smaller_number_of_both(capsys, tmp_path, a_second_a_step, given):
    words = ["train", "toy-moons", *SMALL, *given, "--run", tmp_path / "r", "--minutes", 2]
    status, _, err = call(capsys, *words)
    assert status == 0, err
    assert said_steps(err) > 7
    assert "; 7 were requested" in err
    assert training(tmp_path / "r")["steps"] == 7
    assert "done: 7 steps" in err


def test_a_time_that_hardly_a_step_fits_into_is_refused(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, err = call(capsys, "train", "digits", *tiny("digits"), "--minutes", 1e-9)
    assert status == 1
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "0 steps of 8 examples" in line
    assert re.search(r"give [\d.e+-]+ minutes or more, smaller images \(data.size\)", line)
    assert not [*tmp_path.glob("runs/*")]
    status, _, err = call(capsys, "train", "toy-moons", *SMALL, "--steps", 4, "--minutes", 1e-9)
    assert status == 1
    assert "data.size" not in err


def test_the_minutes_that_are_said_to_be_needed_are_enough(capsys, tmp_path, a_second_a_step):
    words = ["train", "toy-moons", *SMALL, "--run", tmp_path / "r", "--minutes"]
    status, _, err = call(capsys, *words, 0.5)
    assert status == 1
    enough = re.search(r"give ([\d.e+-]+) minutes or more", err)[1]
    a_second_a_step(1.0)
    status, _, err = call(capsys, *words, enough)
    assert status == 0, err
    assert training(tmp_path / "r")["steps"] >= 50


def test_a_resumed_run_is_stopped_by_the_clock(capsys, tmp_path):
    run = ["train", "toy-moons", "--run", tmp_path / "r"]
    assert call(capsys, *run, *SMALL, "--steps", 1)[0] == 0
    go_on = [*run, "--resume", "--device", "cpu", "--steps", 9]
    status, _, err = call(capsys, *go_on, "--minutes", 1e-9)
    assert status == 0, err
    assert "time limit reached at step 2; resume with: scorefield train toy-moons" in err
    assert training(tmp_path / "r")["steps"] == 9
    recipe = read_recipe("toy-moons")
    with pytest.raises(sf.InputError, match="keeps its number of steps"):
        open_training(recipe, tmp_path / "r", device="cpu", resume=True, limit=TimeLimit(1))


def objective() -> sf.objectives.Simple:
    net = sf.nets.MLP(2, hidden=16, layers=1)
    return sf.objectives.Simple(sf.Denoiser(net, sf.process.cosine(20), "v"))


def test_a_trial_changes_nothing():
    trained, data = objective(), sf.data.toy("moons", 64)
    before = {name: weight.clone() for name, weight in trained.state_dict().items()}
    state = torch.get_rng_state()
    speed = sf.training.measure_speed(trained, data, device="cpu", seconds=1e-9, batch_size=8, ema=0.5)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(weight, before[name]) for name, weight in trained.state_dict().items())
    assert trained.training == objective().training
    assert speed.step > 0
    assert speed.batch_size == 8
    with pytest.raises(sf.InputError, match="seconds"):
        sf.training.measure_speed(trained, data, seconds=0)
    with pytest.raises(sf.InputError, match="did you mean 'batch_size'"):
        sf.training.measure_speed(trained, data, batchsize=8)  # type: ignore[call-arg]


def test_it_is_measured_where_the_loss_is_not_finite():
    """A trial ends neither for that nor after the steps of the recipe: training says it."""
    found = sf.training.measure_speed(
        objective(),
        sf.data.toy("moons", 64),
        device="cpu",
        seconds=1e-9,
        lr=1e39,
        bad_steps=1,
        steps=1,
        batch_size=8,
    )
    assert found.step > 0


@pytest.mark.parametrize(("seconds", "steps"), [(0.25, 6), (0.125, 10), (0.75, 5), (1.0, 2)])
def test_the_counted_steps_take_the_seconds_of_the_trial_and_are_three_at_least(
    monkeypatch: pytest.MonkeyPatch, seconds: float, steps: int
) -> None:
    """Two more come before them; of a step as long as the trial one is enough."""
    made = []
    next_step = sf.Trainer.__next__
    monkeypatch.setattr(sf.Trainer, "__next__", lambda self: made.append(1) or next_step(self))
    monkeypatch.setattr(CLOCKS[0], ticking(seconds))
    speed = sf.training.measure_speed(
        objective(), sf.data.toy("moons", 64), device="cpu", seconds=1.0, batch_size=8
    )
    assert len(made) == steps
    assert speed.step == seconds
    assert speed.examples_per_second == 8 / seconds


@pytest.mark.parametrize("start", [0.0, 7.5])
@pytest.mark.parametrize("steps", [1, 50, 12_345])
def test_the_steps_of_a_time_fit_into_it(steps: int, start: float) -> None:
    speed = Speed(64, step=0.25, start=start)
    seconds = speed.seconds_of(steps)
    assert start + steps * 0.25 < seconds
    assert speed.steps_in(seconds) in (steps - 1, steps)  # by rounding
    assert speed.steps_in(seconds + 0.3) == steps + 1
    assert speed.steps_in(0) == speed.steps_in(-1) == 0
