"""`grid="fitted"` of a run: made once for its weights, steps and labels, kept in the run, its cost said beforehand."""

import json
from typing import Any

import numpy as np
import pytest
from support import call

import scorefield as sf

HOW: dict[str, Any] = {"sampler": "unipc", "grid": "fitted", "steps": 3, "labels": [0]}


@pytest.fixture
def trained(tiny_run, tmp_path):
    return tiny_run.copy(tmp_path / "run", "digits")


def test_it_is_kept_and_made_again_for_other_steps_and_labels(capsys, trained, tmp_path):
    run = sf.Run(trained)
    command = [
        "sample",
        trained,
        "-n",
        2,
        "--label",
        0,
        "--sampler",
        "unipc",
        "--grid",
        "fitted",
        "--steps",
        3,
    ]
    status, _, err = call(capsys, *command, "--out", tmp_path / "x.npz")
    assert status == 0, err
    assert "fitting a grid of 3 steps to this run: at most" in err
    (kept,) = run.folder.grids.iterdir()
    found = json.loads(kept.read_text())
    assert (len(found["times"]), found["times"][-1], found["made_for"]["steps"]) == (4, 0, 3)
    status, _, err = call(capsys, *command, "--out", tmp_path / "y.npz")
    assert status == 0
    assert "fitting a grid" not in err
    images = np.load(tmp_path / "x.npz")["images"]
    assert np.array_equal(images, np.load(tmp_path / "y.npz")["images"])
    assert np.array_equal(images, run.sample(2, **HOW).images)
    assert run.sampling(**HOW).grid.tolist() == found["times"]
    assert len(list(run.folder.grids.iterdir())) == 1
    run.sampling(**{**HOW, "labels": [1]})
    run.sampling(**{**HOW, "steps": 4})
    assert len(list(run.folder.grids.iterdir())) == 3


def test_what_it_cannot_do_is_refused(trained):
    run = sf.Run(trained)
    with pytest.raises(sf.InputError, match="needs a number of steps"):
        run.sampling(sampler="unipc", grid="fitted", settings={"steps": None})
    with pytest.raises(sf.IncompatibleModel, match="adds noise"):
        run.sampling(**{**HOW, "sampler": "ancestral"})
    with pytest.raises(sf.InputError, match="belongs to the weights of a run"):
        run.encode(np.zeros((1, 8, 8), dtype=np.uint8), [0], grid="fitted", steps=3)
