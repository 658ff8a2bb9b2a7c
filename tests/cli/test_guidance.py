"""Guidance from the command line: by a classifier's run, or classifier-free; what does not fit is refused in
one line.
"""

import json

import numpy as np
import pytest
from support import LEARNS, call

from scorefield.runs.build import build_sampling, load, read_run

FEW = ["-n", 3, "--steps", 3, "--device", "cpu"]


@pytest.fixture(scope="module")
def runs(tiny_run, tmp_path_factory):
    """Folders of runs of two steps, by name."""
    folder = tmp_path_factory.mktemp("runs")
    several = {
        "conditional": ["digits"],
        "dropped": ["digits", "training.label_dropout=0.2"],
        "unconditional": ["digits", "model.conditional=false"],
        "classifier": ["digits-classifier"],
        "other-levels": ["digits-classifier", "process.kind=linear"],
        "other-range": ["digits-classifier", "data.range=[0, 1]"],
    }
    for name, (recipe, *settings) in several.items():
        (folder / name).symlink_to(tiny_run(recipe, *LEARNS, *settings))
    return folder


def sampled(capsys, runs, target, *arguments):
    """(arrays of the .npz, facts of --json, stderr)"""
    status, out, err = call(capsys, "sample", *arguments, *FEW, "--out", target, "--json")
    assert status == 0, err
    return np.load(target), json.loads(out), err


def test_classifier_free(capsys, runs, tmp_path):
    run, images = runs / "dropped", {}
    for scale in (None, 1, 8):
        flags = [] if scale is None else ["--guidance", scale]
        arrays, facts, _ = sampled(capsys, runs, tmp_path / "a.npz", run, "--label", "3,5", *flags)
        assert arrays["labels"].tolist() == [3, 5, 3]
        assert facts["guidance"] == (None if scale is None else f"classifier-free guidance, scale {scale}")
        images[scale] = arrays["images"].astype(int)
    assert np.abs(images[1] - images[None]).max() <= 1  # scale 1 is the conditional model
    assert np.abs(images[8] - images[None]).max() > 1


@pytest.mark.parametrize(
    ("name", "sampler"), [("conditional", "heun"), ("unconditional", "ancestral"), ("dropped", "ddim")]
)
def test_by_a_classifier(capsys, runs, tmp_path, name, sampler):
    guide = ["--classifier", runs / "classifier", "--sampler", sampler, "--label", "7"]
    strong, facts, err = sampled(capsys, runs, tmp_path / "a.npz", runs / name, *guide, "--guidance", 1e4)
    assert facts["guidance"].endswith(", scale 10000, gradient at x_t")
    assert f"classifier guidance by {runs / 'classifier'} (sha256 " in err
    assert strong["labels"].tolist() == [7, 7, 7]
    none, _, _ = sampled(capsys, runs, tmp_path / "b.npz", runs / name, *guide, "--guidance", 0)
    assert (strong["images"] != none["images"]).any()
    plain = ["--label", "7"] if name != "unconditional" else []
    unguided, facts, _ = sampled(capsys, runs, tmp_path / "c.npz", runs / name, "--sampler", sampler, *plain)
    assert facts["guidance"] is None
    assert np.array_equal(none["images"], unguided["images"])


@pytest.mark.parametrize(
    ("options", "noted"),
    [
        (["--sampler", "ddim"], True),
        (["--sampler", "ddim", "--grid", "leading"], False),
        (["--sampler", "ancestral"], False),
    ],
)
def test_deterministic_samplers_from_pure_noise_get_a_note(capsys, runs, tmp_path, options, noted):
    """On a cosine schedule ε̂-shifting multiplies the classifier's error by 20,000 at t = T; from t = 667 by
    less than 80.
    """
    guide = ["--classifier", runs / "classifier", "--label", 2]
    _, _, err = sampled(capsys, runs, tmp_path / "a.npz", runs / "unconditional", *guide, *options)
    assert ("note: this sampler adds the classifier's gradient" in err) == noted
    _, _, err = sampled(capsys, runs, tmp_path / "a.npz", runs / "unconditional", *options)
    assert "note: this sampler adds the classifier's gradient" not in err


def test_an_unconditional_run_takes_the_classifiers_classes_in_turn(capsys, runs, tmp_path):
    arrays, facts, _ = sampled(
        capsys, runs, tmp_path / "a.npz", runs / "unconditional", "--classifier", runs / "classifier"
    )
    assert arrays["labels"].tolist() == [0, 1, 2]
    assert facts["guidance"].endswith("scale 1, gradient at x_t")


def test_a_scale_of_the_runs_own_is_for_classifier_free_guidance(capsys, runs, tmp_path):
    run = [runs / "dropped", "--set", "guidance=3"]
    assert (
        sampled(capsys, runs, tmp_path / "a.npz", *run)[1]["guidance"] == "classifier-free guidance, scale 3"
    )
    recipe, _ = read_run(runs / "dropped")
    own = recipe.sampling.model_copy(update={"guidance": 3.0})
    assert own.changed().guidance == 3
    assert own.changed(guidance=0.5).guidance == 0.5
    assert own.changed(by_other=True).guidance is None


def test_unguided_runs_are_wrapped_as_before(runs):
    """Bound and clipped, in this order, with nothing else around."""
    recipe, _ = read_run(runs / "conditional")
    model = load(runs / "conditional")
    stack = build_sampling(recipe.sampling.model_copy(update={"clip": True}), model).wrap(model, [1, 2])
    assert [type(layer).__name__ for layer in stack.layers()] == [
        "ClipX0",
        "Given",
        "Denoiser",
    ]
    bare = build_sampling(recipe.sampling, model).wrap(model, [1, 2])
    assert [type(layer).__name__ for layer in bare.layers()] == [
        "Given",
        "Denoiser",
    ]


MISTAKES = [
    (["conditional", "--guidance", "2"], "label_dropout"),
    (["unconditional", "--guidance", "2"], "label_dropout"),
    (["unconditional", "--label", "3"], "--classifier RUN"),
    (["classifier"], "--classifier RUN"),
    (["conditional", "--classifier", "{runs}/conditional"], "takes the run of a classifier"),
    (["conditional", "--classifier", "{runs}/none"], "not a run"),
    (["conditional", "--classifier", "{runs}/other-levels"], "other noise levels"),
    (["conditional", "--classifier", "{runs}/other-range"], "values in the range (0.0, 1.0)"),
    (["conditional", "--classifier", "{runs}/classifier", "--label", "11"], "0 … 9"),
    (["unconditional", "--classifier", "{runs}/classifier", "--label", "eleven"], "no class 'eleven'"),
    (
        [
            "conditional",
            "--classifier",
            "{runs}/classifier",
            "--set",
            "guidance_at=mean",
            "--sampler",
            "ddim",
        ],
        "Ancestral",
    ),
    (["conditional", "--classifier", "{runs}/classifier", "--set", "guidance_at=t"], "guidance_at"),
]


@pytest.mark.parametrize(
    ("arguments", "message"), MISTAKES, ids=[" ".join(arguments) for arguments, _ in MISTAKES]
)
def test_mistakes_get_one_line(capsys, runs, tmp_path, arguments, message):
    run, *rest = (text.format(runs=runs) for text in arguments)
    status, _, err = call(capsys, "sample", runs / run, *FEW, *rest, "--out", tmp_path / "a.npz")
    assert status not in (0, None)
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert message in line
    assert not (tmp_path / "a.npz").exists()


def test_the_gradient_at_the_mean(capsys, runs, tmp_path):
    guide = [
        runs / "unconditional",
        "--classifier",
        runs / "classifier",
        "--guidance",
        1e4,
        "--sampler",
        "ancestral",
    ]
    here, _, _ = sampled(capsys, runs, tmp_path / "a.npz", *guide)
    there, _, _ = sampled(capsys, runs, tmp_path / "b.npz", *guide, "--set", "guidance_at=mean")
    assert (here["images"] != there["images"]).any()
