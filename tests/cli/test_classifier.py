"""A classifier's recipe is an ordinary run: train, info, resume, evaluate, plot; and nothing pretends that it
can be sampled.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support import call, tiny

import scorefield as sf
import scorefield.cli
from scorefield.runs.build import build_net, build_process, expected_data, read_recipe, recipe_names

GOLDEN = Path(__file__).parent.parent / "golden"
TINY = tiny("digits-classifier")


@pytest.fixture(scope="module")
def run(tiny_run, tmp_path_factory):
    return tiny_run.copy(tmp_path_factory.mktemp("runs") / "classifier", "digits-classifier", steps=3)


def test_the_run_is_a_classifier(run):
    model = sf.load(run)
    assert isinstance(model, sf.NoisyClassifier)
    assert model.data.classes == tuple("0123456789")
    assert model(torch.zeros(2, 1, 8, 8), 500).shape == (2, 10)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    # The rate falls linearly, to 0 after the last step, from a warm-up that 3 steps hardly begin.
    training = read_recipe("digits-classifier").training
    expected = [training.lr * (k + 1) / training.warmup * (1 - k / 3) for k in range(3)]
    assert [line["lr"] for line in lines] == pytest.approx(expected)
    assert "[sampling]" not in (run / "config.toml").read_text()


def test_info(capsys, run):
    status, out, err = call(capsys, "info", run, "--json")
    assert status == 0, err
    facts = json.loads(out)
    assert "10 classes" in facts["network"]
    assert (facts["trained_on"]["examples"], facts["trained_on"]["source"]) == (1437, "digits")


@pytest.mark.parametrize("size", [64, 128, 256, 512])
def test_the_published_classifiers(size):
    """Parameters, and the settings of the published command and card."""
    card = json.loads((GOLDEN / "checkpoints.json").read_text())["checkpoints"][
        f"guided-diffusion: {size}x{size}_classifier.pt"
    ]
    recipe, flags = read_recipe(f"imagenet{size}-classifier"), card["flags"]
    spec, process = expected_data(recipe), build_process(recipe)
    assert (spec.shape, spec.num_classes) == ((3, size, size), 1000)
    with torch.device("meta"):
        net = build_net(recipe, spec, process)
    assert sum(parameter.numel() for parameter in net.parameters()) == card["parameters"]
    assert recipe.net["blocks"] == flags["classifier_depth"]
    assert recipe.net["channels"] == flags["classifier_width"]
    assert recipe.net["pool"] == flags["classifier_pool"]
    assert [size // factor for factor in recipe.net["attention"]] == [
        int(side) for side in flags["classifier_attention_resolutions"].split(",")
    ]
    assert recipe.process["kind"] == ("cosine" if size == 64 else "linear")
    assert recipe.training.anneal
    assert recipe.training.flip
    assert recipe.training.ema == recipe.training.clip == 0
    if size == 128:
        training = recipe.training
        assert (training.steps, training.batch_size, training.lr, training.weight_decay) == (
            300_000,
            256,
            3e-4,
            0.05,
        )


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_the_same_process_as_the_models_they_guide(name):
    model, classifier = read_recipe(name), read_recipe(f"{name}-classifier")
    assert classifier.process == model.process
    assert (classifier.data.holdout, classifier.data.split_seed) == (
        model.data.holdout,
        model.data.split_seed,
    )
    assert classifier.data.range == model.data.range
    assert all(
        read_recipe(other).objective["kind"] == "classifier"
        for other in recipe_names()
        if other.endswith("-classifier")
    )


def test_resume_is_exact(capsys, run, tmp_path):
    go_on = ["train", "digits-classifier", "--run", tmp_path / "parts"]
    assert call(capsys, *go_on, "--steps", 1, *TINY)[0] == 0
    late = ["--resume", "--device", "cpu", "--steps", 4, "--minutes", 1e-9]
    assert "time limit reached at step 2" in call(capsys, *go_on, *late)[2]
    status, _, err = call(capsys, *go_on, "--resume", "--device", "cpu")
    assert status == 0, err
    assert "scorefield evaluate" in err
    assert (
        call(capsys, "train", "digits-classifier", "--run", tmp_path / "whole", "--steps", 4, *TINY)[0] == 0
    )
    assert (tmp_path / "parts" / "model.safetensors").read_bytes() == (
        tmp_path / "whole" / "model.safetensors"
    ).read_bytes()


def test_evaluate_prints_and_draws_accuracy(capsys, run):
    status, out, err = call(capsys, "evaluate", run, "-n", 40, "--device", "cpu", "--json")
    assert status == 0, err
    result = json.loads(out)
    for part in ("heldout", "train"):
        assert result[part]["examples"] == 40
        assert result[part]["times"] == [1, *range(50, 1001, 50)]
        assert all(0 <= value <= 1 for value in result[part]["accuracy"])
        assert 0.1 <= result[part]["chance"] < 0.3
    pixels = np.asarray(Image.open(result["figure"]).convert("L"))
    assert min(pixels.shape) > 300
    assert 0.005 < (pixels < 200).mean() < 0.6
    status, out, err = call(capsys, "evaluate", run, "-n", 20, "--device", "cpu")
    assert status == 0, err
    assert "20 held-out and 20 training examples" in out
    assert "σ/α" in out


def test_plot_draws_its_training(capsys, run, tmp_path):
    status, _, err = call(capsys, "plot", run, "--out", tmp_path / "a.png")
    assert status == 0, err
    assert Image.open(tmp_path / "a.png").size[0] > 300


def no_labels(tmp_path):
    path = tmp_path / "plain.npz"
    np.savez(path, images=np.zeros((40, 8, 8), dtype=np.uint8))
    return path


MISTAKES = [
    (["sample", "{run}"], "cannot be sampled"),
    (["evaluate", "{run}", "--metrics", "bpd"], "evaluated by its accuracy"),
    (["train", "digits-classifier", "--data", "{plain}"], "no labels"),
    (["train", "digits-classifier", "--set", "net.kind=unet"], "one of mlp, classifier"),
    (["train", "digits", "--set", "net.kind=classifier"], "net.kind must be one of"),
    (["train", "digits-classifier", "--set", "training.shift=-1"], "training.shift"),
    (["train", "digits-classifier", "--set", 'process={{kind="cosin"}}'], "did you mean 'cosine'"),
    (["train", "toy-moons", "--set", "training.shift=1"], "shift moves images"),
    (["train", "digits", "--init", "{run}"], "another network"),
]


@pytest.mark.parametrize(
    ("arguments", "message"), MISTAKES, ids=[" ".join(arguments) for arguments, _ in MISTAKES]
)
def test_mistakes_get_one_line_and_a_status(capsys, run, tmp_path, arguments, message):
    words = {"run": run, "plain": no_labels(tmp_path)}
    status, out, err = call(capsys, *(text.format(**words) for text in arguments))
    assert status not in (0, None)
    assert message in err
    assert len([line for line in err.splitlines() if line.startswith("error: ")]) == 1
    assert "Traceback" not in err + out
