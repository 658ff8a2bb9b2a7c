"""Arguments of runs that make no sense are refused in words, before anything is computed."""

from typing import Any

import pytest
import torch

import scorefield as sf

load: Any = sf.load  # whose types forbid what is tried here


@pytest.fixture
def run(tiny_run):
    return sf.Run(tiny_run("digits"))


def test_more_samples_than_memory_holds(run):
    with pytest.raises(sf.InputError, match=r"GB of memory|from 1 to"):
        run.sample(n=10**18)
    with pytest.raises(
        sf.InputError, match=r"n = 1,000,000,000,000 samples at once .*save_samples.* needs .* GB"
    ):
        run.sample(n=10**12, steps=1, device="cpu")


def test_more_samples_than_memory_holds_are_refused_for_one_file(run, tmp_path):
    """Before the first of them is made: all are in memory when the file is written."""
    with pytest.raises(sf.InputError, match=r"n = 100,000,000,000 samples .*a folder takes .* needs .* GB"):
        run.save_samples(tmp_path / "all.npz", n=10**11, steps=1, device="cpu")
    assert not list(tmp_path.iterdir())


def test_more_images_than_an_evaluation_judges(run):
    with pytest.raises(sf.InputError, match=r"option n: .*less than or equal to 10000000"):
        run.evaluate("fd", n=10**9)


@pytest.mark.parametrize(
    ("use", "said"),
    [
        (lambda run: load(3), "a run is named by its path, got 3"),
        (
            lambda run: load(run.path, kind="x"),
            "kind must be a class of models",
        ),
        (lambda run: run.model("cpu", kind="x"), "kind must be a class of models"),
        (lambda run: load(run.path, net=torch.ones(2)), "net must be a torch.nn.Module"),
        (lambda run: load(run.path, process="cosine"), "process must be one such as"),
        (
            lambda run: sf.Run(run.path, net=3),  # type: ignore[arg-type]
            "net must be a torch.nn.Module",
        ),
        (lambda run: run.model("meta"), "device must be one of cpu, cuda, mps; got 'meta'"),
        (lambda run: run.model(torch.device("meta")), "device must be one of cpu, cuda, mps; got 'meta'"),
        (lambda run: run.evaluate("fd", sets=10**6), "option sets: .*less than or equal to 10000"),
        (lambda run: run.sample(2, seed=torch.Generator()), "a seed is an integer"),
        (lambda run: run.sample(2, seed=-1), "a seed is an integer"),
        (lambda run: run.sample(2, seed=1.5), "a seed is an integer"),
    ],
)
def test_refused_in_words(run, use, said):
    with pytest.raises(sf.InputError, match=said):
        use(run)


def test_weights_that_are_a_folder(tiny_run, tmp_path):
    run = tiny_run.copy(tmp_path / "run", "digits")
    (run / "model.safetensors").unlink()
    (run / "model.safetensors").mkdir()
    for use in (lambda: sf.load(run), lambda: sf.Run(run).sample(2, steps=1)):
        with pytest.raises(sf.InputError, match=r"model.safetensors"):
            use()


def test_a_grid_of_times_encodes(run):
    images = run.sample(2, steps=2, device="cpu").images
    times = [1000, 500, 0]
    assert torch.equal(
        run.encode(images, labels=[0, 1], grid=times, device="cpu").latents,
        run.encode(images, labels=[0, 1], steps=2, device="cpu").latents,
    )
    with pytest.raises(sf.InputError, match=r"remove steps"):
        run.encode(images, labels=0, grid=times, steps=2, device="cpu")
    with pytest.raises(sf.InputError, match=r"at least two times"):
        run.encode(images, labels=0, grid=[1000], device="cpu")


def test_weights_of_the_beginning_are_noted(run, monkeypatch):
    from scorefield.runs.opened import hardly_begun

    assert "of step 2 of 2" in (hardly_begun(run) or "")
    for step, noted in ((None, False), (99, True), (100, False), (5000, False)):
        monkeypatch.setitem(vars(run), "step", step)
        assert (hardly_begun(run) is not None) == noted
    monkeypatch.setitem(vars(run), "step", 159)
    training = run.recipe.training.model_copy(update={"steps": 100_000})
    monkeypatch.setitem(
        vars(run), "_described", (run.recipe.model_copy(update={"training": training}), run.data_spec)
    )
    assert "of step 159 of 100,000" in (hardly_begun(run) or "")
