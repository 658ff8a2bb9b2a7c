"""scorefield plot: points of the plane become data, samples, arrows and paths; other runs their curve of
training.
"""

import json

import numpy as np
import pytest
from PIL import Image
from support import call

import scorefield as sf
import scorefield.cli


def check_picture(path):
    """A picture with something on it: not all of one colour."""
    pixels = np.asarray(Image.open(path).convert("L"))
    assert min(pixels.shape) > 300
    assert 0.005 < (pixels < 200).mean() < 0.6


SETTINGS = [[], ["objective.kind=score-matching"], ["objective.kind=score-matching", "model.energy=true"]]


@pytest.mark.parametrize("settings", SETTINGS, ids=["levels", "score", "energy"])
def test_a_plane(capsys, tiny_run, tmp_path, settings):
    run = tiny_run.copy(tmp_path / "run", "toy-moons", "sampling.repeats=1", "sampling.steps=20", *settings)
    status, out, err = call(capsys, "plot", run)
    assert status == 0, err
    assert out.strip() == str(run / "figures" / "plane.png")
    check_picture(run / "figures" / "plane.png")


def test_points_from_python_have_no_data_to_read_again(capsys, tmp_path):
    """Tensors are not kept in the run, so the picture shows its samples in their place."""
    data = sf.data.toy("moons", 200).values
    model = sf.ScoreModel(sf.nets.MLP(2, hidden=16, noise_levels=False))
    for _ in sf.train(
        sf.objectives.ScoreMatching(model),
        data,  # type: ignore[arg-type]
        steps=2,
        batch_size=8,
        run=tmp_path / "run",
        device="cpu",  # type: ignore[arg-type]
    ):
        pass
    config = tmp_path / "run" / "config.toml"
    config.write_text(
        config.read_text() + '\n[sampling]\nsteps = 5\nsampler = { kind = "langevin", step = 0.01 }\n'
    )
    status, out, err = call(capsys, "plot", tmp_path / "run", "--out", tmp_path / "a.png", "--json")
    assert status == 0, err
    assert json.loads(out) == {"figure": str(tmp_path / "a.png")}
    check_picture(tmp_path / "a.png")


def test_images_show_their_training(capsys, tiny_run, tmp_path):
    run = tiny_run.copy(tmp_path / "run", "digits-ncsn", steps=3)
    status, out, err = call(capsys, "plot", run)
    assert status == 0, err
    assert out.strip() == str(run / "figures" / "training.png")
    assert np.asarray(Image.open(run / "figures" / "training.png").convert("L")).min() < 200
    (run / "metrics.jsonl").unlink()
    status, _, err = call(capsys, "plot", run)
    assert status == 1
    assert "metrics.jsonl" in err


@pytest.mark.parametrize("figure", ["noising", "steps", "variances", "training"])
def test_named_figures(capsys, tiny_run, tmp_path, figure):
    run = tiny_run("digits-iddpm")
    status, out, err = call(capsys, "plot", run, "--figure", figure, "--out", tmp_path / "a.png")
    assert status == 0, err
    assert out.strip() == str(tmp_path / "a.png")
    assert np.asarray(Image.open(tmp_path / "a.png").convert("L")).min() < 200


def test_figures_that_a_run_does_not_have(capsys, tiny_run, tmp_path):
    for run, figure, message in (
        (tiny_run("toy-moons"), "noising", "is for images"),
        (tiny_run("digits-iddpm"), "plane", "is for points of the plane"),
        (tiny_run("digits-iddpm"), "portrait", "figure"),
        (tiny_run("digits-ncsn", steps=3), "variances", "variance"),
    ):
        status, _, err = call(capsys, "plot", run, "--figure", figure, "--out", tmp_path / "a.png")
        assert status == 1
        assert message in err
        assert not (tmp_path / "a.png").exists()


def test_mistakes(capsys, tiny_run, tmp_path):
    run = tiny_run("toy-moons")
    for arguments, message in (
        ([tmp_path], "not a run"),
        ([run, "--out", tmp_path / "a.jpg"], ".png"),
        ([run, "--out", tmp_path / "no" / "a.png"], "there is no folder"),
    ):
        status, _, err = call(capsys, "plot", *arguments)
        assert status == 1
        assert message in err
