"""The time left, and progress in a notebook."""

import inspect
import sys
import time
import types

import pytest
import torch

import scorefield as sf
from scorefield.runs.open_training import open_training
from scorefield.runs.recipe import read_recipe
from scorefield.runtime import progress
from scorefield.runtime.progress import SILENT, Pace, notebook_or_silent


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_the_time_left_is_at_the_speed_since_the_first_update(clock):
    """Work that comes in portions of 64, after half a minute of preparation."""
    pace = Pace()
    clock[0] += 30
    assert pace.left(64, 6400) == ""
    clock[0] += 2
    assert pace.left(128, 6400) == "3 min 16 s"  # 98 portions of 2 s
    clock[0] += 4
    assert pace.left(192, 6400) == "4 min 51 s"  # 97 portions of 3 s


@pytest.mark.parametrize(("seconds", "left"), [(480.0, "7 min 50 s"), (5.0, "0 s"), (None, "27 h 46 min")])
def test_the_time_left_is_at_most_what_was_given(clock, seconds, left):
    pace = Pace(seconds)
    pace.left(5000, 5000 + 100_000)
    clock[0] += 10
    assert pace.left(5010, 5000 + 100_000) == left


class Shown:
    """What IPython.display.display returns: a line that is written anew."""

    lines: list[list[str]] = []

    def __init__(self, data, raw, display_id):
        assert raw
        assert display_id
        self.lines.append([data["text/plain"]])

    def update(self, data, raw):
        self.lines[-1].append(data["text/plain"])


@pytest.fixture
def notebook(monkeypatch):
    class ZMQInteractiveShell:
        pass

    ipython, display = types.ModuleType("IPython"), types.ModuleType("IPython.display")
    ipython.get_ipython = ZMQInteractiveShell  # type: ignore[attr-defined]
    display.display = Shown  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr(Shown, "lines", [])
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_UPDATES", -1.0)
    return Shown


def training(**options):
    torch.manual_seed(0)
    model = sf.Denoiser(sf.nets.MLP(2, hidden=16, layers=1), sf.process.cosine(20), "v")
    return sf.train(
        sf.objectives.Simple(model), torch.randn(64, 2), steps=3, batch_size=8, device="cpu", **options
    )


def test_training_shows_its_progress_in_a_notebook(notebook):
    *_, last = training()
    read, line = notebook.lines
    assert read == ["examples of shape 2; values -2.204 … 2.747 in the model; no classes"]
    assert line[0] == "training: 0/3"
    assert line[-1].startswith(f"training: 3/3  loss {last.loss:.4f}  ")
    assert [text[:13] for text in line[1:4]] == ["training: 1/3", "training: 2/3", "training: 3/3"]
    assert " left" in line[2]


def test_a_training_that_is_closed_early_shows_where(notebook):
    trainer = training()
    next(trainer)
    trainer.close()
    assert notebook.lines[-1][-1].startswith("training: 1/3")


def test_nothing_is_shown_where_that_is_not_wanted_or_not_a_notebook(notebook, monkeypatch, capfd):
    list(training(progress=SILENT))
    assert notebook.lines == []
    for shell in (lambda: None, object):
        monkeypatch.setattr(sys.modules["IPython"], "get_ipython", shell)
        assert notebook_or_silent() is SILENT
    monkeypatch.delitem(sys.modules, "IPython")
    assert notebook_or_silent() is SILENT
    list(training())
    assert capfd.readouterr() == ("", "")


def takes_progress():
    """The public callables that report progress, each with arguments up to there."""
    run = sf.Run("no run")
    return {
        "train": training,
        "sample": run.sample,
        "save_samples": run.save_samples,
        "sampling": run.sampling,
        "encode": lambda **how: run.encode("images.npz", **how),
        "decode": lambda **how: run.decode("latents.npz", **how),
        "interpolate": lambda **how: run.interpolate(0, 1, **how),
        "open_training": lambda **how: open_training(read_recipe("toy-moons"), "new", device="cpu", **how),
    }


@pytest.mark.parametrize("name", takes_progress())
@pytest.mark.parametrize("wrong", [3, True, [], "bar", type(SILENT)], ids=repr)
def test_what_receives_no_progress_is_refused(name, wrong):
    with pytest.raises(sf.InputError, match="progress is an object with the methods"):
        takes_progress()[name](progress=wrong)


def test_every_method_of_a_run_that_reports_progress_is_tried():
    methods = inspect.getmembers(sf.Run, inspect.isfunction)
    found = {name for name, method in methods if "progress" in inspect.signature(method).parameters}
    assert {name for name in found if not name.startswith("_")} <= set(takes_progress())
