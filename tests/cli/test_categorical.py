"""A categorical run is an ordinary run: train, info, sample, evaluate, resume; samples are on the data's own
levels.
"""

import json

import numpy as np
import pytest
import torch
from support import call, frames, tiny

import scorefield as sf
import scorefield.cli
from scorefield.runs.build import build_model, build_sampling, expected_data, read_recipe, with_overrides

TINY = tiny("digits-categorical")


@pytest.fixture(scope="module")
def run(tiny_run, tmp_path_factory):
    return tiny_run.copy(tmp_path_factory.mktemp("runs") / "categorical", "digits-categorical")


def test_the_run_describes_itself(capsys, run):
    model = sf.load(run)
    assert isinstance(model, sf.CategoricalDenoiser)
    assert model.process.config == {
        "kind": "uniform-categorical",
        "classes": 17,
        "schedule": "cosine",
        "T": 100,
    }
    assert model.data.bins == 17
    line = json.loads((run / "metrics.jsonl").read_text().splitlines()[0])
    assert 0 < line["cross_entropy"] < 5
    assert line["loss"] == pytest.approx(line["vlb"] + 0.001 * 100 * line["cross_entropy"], rel=1e-6)
    status, out, err = call(capsys, "info", run, "--json")
    assert status == 0, err
    facts = json.loads(out)
    assert "17 categories" in facts["network"]
    assert "values kept from 0.999 to 0" in facts["noise_levels"]
    assert facts["parameters"] == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("options", [[], ["--sampler", "ddim", "--eta", "0.5"], ["--eta", "0"]])
def test_samples_lie_on_the_levels(capsys, run, tmp_path, options):
    for n in (3, 5):
        words = ["-n", n, "--steps", 4, "--label", "3,1", "--out", tmp_path / f"{n}.npz", *options]
        status, _, err = call(capsys, "sample", run, *words)
        assert status == 0, err
    assert ("CategoricalDDIM" if options else "CategoricalAncestral") in err
    few, many = (np.load(tmp_path / f"{n}.npz") for n in (3, 5))
    assert many["labels"].tolist() == [3, 1, 3, 1, 3]
    assert np.array_equal(few["images"], many["images"][:3])
    grey = np.round(np.arange(17) * 255 / 16).astype(np.uint8)
    assert set(np.unique(many["images"])) <= set(grey)


def test_pictures_of_the_way(capsys, run, tmp_path):
    status, _, err = call(
        capsys,
        "sample",
        run,
        "-n",
        4,
        "--steps",
        4,
        "--out",
        tmp_path / "a.png",
        "--trajectory",
        tmp_path / "a.gif",
    )
    assert status == 0, err
    assert frames(tmp_path / "a.gif") >= 4


def test_bits_per_dim(capsys, run):
    words = ["--metrics", "bpd", "-n", 6, "--set", "grid=uniform", "--device", "cpu", "--json"]
    status, out, err = call(capsys, "evaluate", run, *words)
    assert status == 0, err
    figures = json.loads(out)["figures"]
    parts = [figures[f"bpd_{name}"]["value"] for name in ("prior", "decoder", "others")]
    assert figures["bpd"]["value"] == pytest.approx(sum(parts), rel=1e-9)
    assert figures["bpd"]["unit"] == "bits/dim"
    assert 1 < figures["bpd"]["value"] < 20
    assert parts[0] == 0  # nothing is left at t = T


def test_resume_is_exact(capsys, tmp_path):
    go_on = ["train", "digits-categorical", "--run", tmp_path / "parts"]
    assert call(capsys, *go_on, "--steps", 1, *TINY)[0] == 0
    late = ["--resume", "--device", "cpu", "--steps", 3, "--minutes", 1e-9]
    assert "time limit reached at step 2" in call(capsys, *go_on, *late)[2]
    status, _, err = call(capsys, *go_on, "--resume", "--device", "cpu")
    assert status == 0, err
    assert (
        call(capsys, "train", "digits-categorical", "--run", tmp_path / "whole", "--steps", 3, *TINY)[0] == 0
    )
    assert (tmp_path / "parts" / "model.safetensors").read_bytes() == (
        tmp_path / "whole" / "model.safetensors"
    ).read_bytes()


def test_an_absorbing_recipe_samples_no_erased_value():
    recipe = with_overrides(
        read_recipe("digits-categorical"),
        ['process={kind="absorbing", classes=17, T=100}', "net.channel_mult=[1,1]"],
    )
    data = expected_data(recipe)
    model = build_model(recipe, data).eval()
    assert (model.net.config["in_channels"], model.net.config["out_channels"]) == (18, 17)  # type: ignore[attr-defined]
    sampling = build_sampling(recipe.sampling, model)
    x = sf.sample(
        sampling.wrap(model, [1, 2]), sampling.sampler, [100, 50, 0], n=2, noise=sf.noise.NoiseSource(0)
    )
    assert x.shape == (2, 1, 8, 8)
    assert int(x.max()) < 17
    erased = data.to_uint8(torch.full((1, 1, 8, 8), 17))
    assert erased.unique().tolist() == [255]  # in pictures of the way an erased value is white


MISTAKES = [
    (["sample", "{run}", "--sampler", "heun"], "one of ancestral, ddim"),
    (["sample", "{run}", "--guidance", "2"], "guidance needs a score"),
    (["sample", "{run}", "--set", "start=uniform"], 'start="prior"'),
    (["evaluate", "{run}", "--metrics", "bpd", "--terms", "3"], "sum of all its terms"),
    (["evaluate", "{run}", "--metrics", "ode"], "is categorical"),
    (["train", "digits-categorical", "--set", 'objective={{kind="simple"}}'], "use CategoricalVLB"),
    (["train", "digits-categorical", "--set", "model.parametrization=eps"], "one of x0, bayes"),
    (["train", "digits-categorical", "--set", "model.variance=range"], "no variance"),
    (["train", "digits-categorical", "--set", "process.classes=16"], "17 levels"),
    (["train", "digits-categorical", "--set", "process.schedule=quadratic"], "process.schedule"),
    (["train", "digits-categorical", "--set", "training.dequantize=true", "--steps", "1"], "grid of 17 bins"),
    (["train", "digits", "--set", 'objective={{kind="categorical-vlb"}}'], "trains a CategoricalDenoiser"),
    (["train", "digits-classifier", "--set", 'process={{kind="absorbing", classes=17}}'], "Gaussian noise"),
]


@pytest.mark.parametrize(
    ("arguments", "message"), MISTAKES, ids=[" ".join(arguments) for arguments, _ in MISTAKES]
)
def test_mistakes_get_one_line_and_a_status(capsys, run, tmp_path, arguments, message):
    words = [text.format(run=run) for text in arguments]
    status, out, err = call(capsys, *words, *(["--run", tmp_path / "new"] if words[0] == "train" else []))
    assert status not in (0, None)
    assert message in err
    assert len([line for line in err.splitlines() if line.startswith("error: ")]) == 1
    assert "Traceback" not in err + out
