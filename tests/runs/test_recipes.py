"""Every recipe reads, builds without allocating, and says how it is trained and sampled; the toys train and
sample.
"""

import json

import numpy as np
import pytest
import torch
from support import call, loaded

import scorefield as sf
import scorefield.cli
from scorefield.planning.facts import recipe_facts
from scorefield.runs.build import (
    build_model,
    build_net,
    build_objective,
    build_process,
    build_sampling,
    expected_data,
    read_recipe,
    recipe_names,
    with_overrides,
)
from scorefield.runtime.registry import TOYS

TOY_RECIPES = [f"toy-{name}" for name in TOYS]


def meta_model(recipe):
    spec, process = expected_data(recipe), build_process(recipe)
    with torch.device("meta"):
        net = build_net(recipe, spec, process)
    return build_model(recipe, spec, net)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_builds_whole(name):
    recipe = read_recipe(name)
    assert recipe.title
    assert recipe.paper
    model = meta_model(recipe)
    objective = build_objective(recipe, model)
    assert objective.config["kind"] == recipe.objective["kind"]
    if not recipe.is_classifier:
        sampling = build_sampling(recipe.sampling, model)
        assert sampling.sampler.calls(sampling.grid.tolist()) >= 20


def test_the_list_of_recipes_is_whole():
    facts = {entry["name"]: entry for entry in recipe_facts()}
    assert set(facts) == set(recipe_names())
    assert {*TOY_RECIPES, "digits-ncsn", "mnist-ncsn", "cifar10-ncsn"} <= set(facts)
    assert all(facts[name]["shape"] == [2] for name in TOY_RECIPES)


def test_cifar10_ncsn_is_the_papers():
    """NCSN §5 and its published configuration; the code's step_lr 2e-5 is our step 4e-5."""
    recipe = read_recipe("cifar10-ncsn")
    model = meta_model(recipe)
    assert torch.equal(
        model.process.level(torch.arange(1, 11)).sigma, sf.process.geometric_sigmas(1.0, 0.01, 10)
    )
    assert model.net.config["filters"] == 128
    assert recipe.data.range == (0.0, 1.0)
    assert (recipe.training.batch_size, recipe.training.steps, recipe.training.lr) == (128, 200_000, 1e-3)
    assert recipe.training.flip
    assert recipe.training.dequantize
    assert (recipe.training.weight_decay, recipe.training.clip, recipe.training.ema) == (0.0, 0.0, 0.0)
    sampling = build_sampling(recipe.sampling, model)
    assert sampling.sampler == sf.samplers.Langevin(4e-5)
    assert len(sampling.grid) == 10 * 100 + 1
    start = sampling.start((1000, 3, 4, 4), sf.noise.NoiseSource(0))
    assert 0 <= start.min() < 0.01 < 0.99 < start.max() <= 1


def test_the_noise_of_digits_ncsn_spans_the_digits():
    recipe = read_recipe("digits-ncsn")
    data, _ = scorefield.runs.build.open_data(recipe.data)  # type: ignore[attr-defined]
    x, _ = data.batch(torch.arange(len(data)))
    everything, _ = sf.data.digits().split(0.0, 0)
    digits = (
        everything.spec.from_bins(loaded(everything)).flatten(1) / 2
    )  # distances do not see the shift to [0, 1]
    process = build_process(recipe)
    assert isinstance(process, sf.process.GaussianProcess)
    assert process.level(process.T).sigma >= torch.cdist(digits, digits).max()
    assert abs(process.prior_mean - x.mean()) < 0.002
    assert abs(recipe.process["std"] - x.std()) < 0.002


@pytest.mark.parametrize("name", TOY_RECIPES)
def test_the_noise_of_a_toy_spans_it(name):
    recipe = read_recipe(name)
    data, _ = scorefield.runs.build.open_data(recipe.data)  # type: ignore[attr-defined]
    assert recipe.process["sigma_max"] >= torch.cdist(data.values[:2000], data.values[:2000]).max()
    assert abs(recipe.process["mean"] - data.values.mean()) < 0.1
    assert abs(recipe.process["std"] / data.values.std() - 1) < 0.05


@pytest.mark.parametrize("name", TOY_RECIPES)
def test_a_toy_trains_and_samples(capsys, tiny_run, tmp_path, name):
    run = tiny_run.copy(tmp_path / "run", name)
    status, out, err = call(capsys, "sample", run, "-n", 5, "--json")
    assert status == 0, err
    target = run / "samples" / "seed-0-n-5.npz"
    assert json.loads(out)["out"] == str(target)
    arrays = np.load(target)
    assert arrays.files == ["samples"]
    assert arrays["samples"].shape == (5, 2)
    assert arrays["samples"].dtype == np.float32
    assert np.isfinite(arrays["samples"]).all()


OBJECTIVES = [
    (["objective.method=sliced"], "Denoiser"),
    (["objective.method=sliced-vr"], "Denoiser"),
    (["objective.kind=simple"], "Denoiser"),
    *(
        (["objective.kind=score-matching", f"objective.method={method}"], "ScoreModel")
        for method in ("implicit", "sliced", "sliced-vr")
    ),
    (["objective.kind=score-matching", "objective.method=denoising", "objective.sigma=0.1"], "ScoreModel"),
    (["objective.kind=score-matching", "model.energy=true"], "ScoreModel"),
]


@pytest.mark.parametrize(
    ("settings", "kind"), OBJECTIVES, ids=[" ".join(settings) for settings, _ in OBJECTIVES]
)
def test_the_objective_of_a_toy_is_an_option(capsys, tiny_run, tmp_path, settings, kind):
    run = tiny_run("toy-moons", *settings)
    assert type(sf.load(run)).__name__ == kind
    assert call(capsys, "sample", run, "-n", 3, "--steps", 40, "--out", tmp_path / "a.npz")[0] == 0


@pytest.fixture(scope="module")
def bare(tiny_run, tmp_path_factory):
    """A run of a score without noise levels."""
    folder = tmp_path_factory.mktemp("bare")
    return tiny_run.copy(folder / "run", "toy-moons", "objective.kind=score-matching")


def test_a_bare_score_is_saved_whole_and_goes_on(capsys, bare):
    model = sf.load(bare)
    x = torch.randn(4, 2, generator=torch.Generator().manual_seed(0))
    assert model.score(x).shape == (4, 2)
    assert "process" not in (bare / "config.toml").read_text()
    status, out, _ = call(capsys, "info", bare, "--json")
    assert status == 0
    assert "none" in json.loads(out)["noise_levels"]
    assert (
        call(capsys, "train", "toy-moons", "--run", bare, "--resume", "--steps", 4, "--device", "cpu")[0] == 0
    )


def test_a_bare_score_starts_uniformly_and_repeats(capsys, bare, tmp_path):
    for n, name in ((3, "a"), (8, "b")):
        assert call(capsys, "sample", bare, "-n", n, "--steps", 5, "--out", tmp_path / f"{name}.npz")[0] == 0
    few, many = (np.load(tmp_path / f"{name}.npz")["samples"] for name in "ab")
    assert np.abs(few - many[:3]).max() < 1e-4
    sampling = build_sampling(read_recipe("toy-moons").sampling, sf.load(bare))
    low, high = sf.load(bare).data.range
    start = sampling.start((2000, 2), sf.noise.NoiseSource(0))
    assert low <= start.min() < low + 0.02
    assert high - 0.02 < start.max() <= high
    assert len(sampling.grid) == 1001


@pytest.mark.parametrize("sampler", ["ddim", "ancestral", "euler", "heun"])
def test_a_bare_score_is_refused_by_what_needs_levels(capsys, bare, sampler):
    status, _, err = call(capsys, "sample", bare, "--sampler", sampler)
    assert status == 1
    assert "needs a model with noise levels" in err
    assert "Langevin" in err


def test_points_are_not_pictures(capsys, bare, tmp_path):
    for arguments in (["--out", tmp_path / "a.png"], ["--trajectory", tmp_path / "a.gif"]):
        status, _, err = call(capsys, "sample", bare, "--steps", 2, *arguments)
        assert status == 1
        assert "scorefield plot" in err
    status, _, err = call(capsys, "evaluate", bare)
    assert status == 1
    assert "scorefield plot" in err


def test_samplers_by_name_on_levels(capsys, tiny_run, tmp_path):
    run = tiny_run.copy(tmp_path / "run", "toy-moons")
    for sampler, calls in (("ddim", 20), ("ancestral", 20), ("euler", 20), ("heun", 39), ("langevin", 400)):
        status, out, err = call(capsys, "sample", run, "-n", 2, "--sampler", sampler, "--json")
        assert status == 0, err
        assert json.loads(out)["calls"] == calls
    status, out, _ = call(capsys, "sample", run, "-n", 2, "--grid", "staircase", "--steps", 100, "--json")
    assert json.loads(out)["calls"] == 100
    status, _, err = call(capsys, "sample", run, "-n", 2, "--steps", 30)
    assert status == 1
    assert "multiple of 20" in err


def test_langevin_by_name_takes_the_published_ratio():
    """step/σ_1² = 4e-5/0.01² = 0.4 in NCSN's settings, on any process.  [NCSN §5]"""
    recipe = with_overrides(
        read_recipe("digits"),
        ['sampling.sampler={kind="langevin"}', "sampling.grid=staircase", "sampling.steps=100"],
    )
    model = meta_model(recipe)
    first = model.process.level(1)
    sampling = build_sampling(recipe.sampling, model)
    assert abs(sampling.sampler.step_size / float(first.sigma / first.alpha) ** 2 - 0.4) < 1e-12  # type: ignore[attr-defined]
    assert len(sampling.grid) == 101
    assert sampling.grid[0] == model.process.T


def test_an_objective_without_levels_leaves_the_process_out_and_says_so(capsys, tmp_path):
    settings = ["--set", "objective.kind=score-matching", "--steps", 2, "--run", tmp_path / "run"]
    status, _, err = call(capsys, "train", "toy-moons", *settings, "--device", "cpu")
    assert status == 0
    assert "note: the objective score-matching trains a score without noise levels" in err
    assert "[process] (geometric) is ignored" in err
    assert "[process]" not in (tmp_path / "run" / "config.toml").read_text()
    assert read_recipe("toy-moons").leaves_out is None
