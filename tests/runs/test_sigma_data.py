"""model.sigma_data="data": estimated from the training examples once, and a number from then on."""

import pytest
from support import call

import scorefield as sf
from scorefield.runs.build import build_model, expected_data, meta_model, open_training_data, read_recipe
from scorefield.runs.recipe import with_overrides

ESTIMATED = ("--set", "model.sigma_data=data", "--set", "net.hidden=16", "--set", "training.batch_size=8")


def test_the_run_records_what_was_estimated(capsys, tmp_path):
    run = tmp_path / "run"
    words = ["train", "toy-moons", "--run", run, "--steps", 1, "--device", "cpu"]
    status, _, err = call(capsys, *words, *ESTIMATED)
    assert status == 0, err
    assert "standard deviation of the data: " in err
    recorded = sf.Run(run).recipe.model.sigma_data
    examples, _ = open_training_data(read_recipe("toy-moons").data)
    everything = examples.some(10**6).x0.double()
    assert recorded == pytest.approx(float(everything.std()), rel=0.03)
    assert sf.load(run, kind=sf.Denoiser).sigma_data == recorded
    status, _, err = call(
        capsys, "train", "toy-moons", "--run", run, "--resume", "--steps", 2, "--device", "cpu"
    )
    assert status == 0, err
    assert sf.Run(run).recipe.model.sigma_data == recorded


def test_without_examples_there_is_only_a_description(capsys):
    recipe = with_overrides(read_recipe("toy-moons"), {"model.sigma_data": "data"})
    assert meta_model(recipe, expected_data(recipe)) is not None
    with pytest.raises(sf.InputError, match="estimated from the examples when training starts"):
        build_model(recipe, expected_data(recipe))
    with pytest.raises(sf.InputError, match="sigma_data"):
        with_overrides(recipe, {"model.sigma_data": "mean"})
    status, out, _ = call(capsys, "options", "model")
    assert status == 0
    assert '"data"' in out
