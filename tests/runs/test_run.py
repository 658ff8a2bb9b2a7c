"""sf.Run: the bytes of the command, lazily and of one moment; mistakes teach."""

import functools
import json
import os
import pydoc
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from support import call

import scorefield as sf
import scorefield.cli
from scorefield.evaluation import ModuleFeatures, train_classifier
from scorefield.runtime.weights import file_sha256

TINY = [
    "net.channels=32",
    "net.channel_mult=[1]",
    "net.blocks=1",
    "net.attention=[]",
    "training.batch_size=8",
]
TINY += ["training.sample_every=0", "training.lr=0.01", "training.warmup=0"]
RECIPES = {
    "conditional": ["digits", "training.label_dropout=0.2", "training.precision=bf16"],
    "unconditional": ["digits", "model.conditional=false", "training.precision=fp32"],
    "classifier": ["digits-classifier", "training.precision=fp32"],
    "upsampler": ["digits-upsampler", "training.precision=fp32"],
    "labelled": ["digits", "training.precision=fp32"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of two steps, by name."""
    folder = tmp_path_factory.mktemp("runs")
    recipes = {name: [recipe, *TINY, *rest] for name, (recipe, *rest) in RECIPES.items()}
    recipes["moons"] = ["toy-moons", "net.hidden=16"]
    for name, (recipe, *settings) in recipes.items():
        words = [word for setting in settings for word in ("--set", setting)]
        words += ["--steps", "2", "--device", "cpu", "--run", str(folder / name)]
        with pytest.raises(SystemExit) as stop:
            scorefield.cli.main(["train", recipe, *words])
        assert not stop.value.code
    return folder


def how(options: dict[str, Any]) -> Any:
    """Keywords that are written once for several calls."""
    return options


def command(capsys, *words):
    status, out, err = call(capsys, *words, "--device", "cpu")
    assert status == 0, err
    return out


def assert_same(samples, path):
    """Samples in memory are those of an .npz, with its types."""
    arrays = np.load(path)
    name = "samples" if "samples" in arrays.files else "images"
    found = getattr(samples, name)
    assert found.dtype == arrays[name].dtype
    assert found.tobytes() == arrays[name].tobytes()
    assert found.shape == arrays[name].shape
    assert ("labels" in arrays.files) == (samples.labels is not None)
    if samples.labels is not None:
        assert samples.labels.dtype == arrays["labels"].dtype
        assert samples.labels.tolist() == arrays["labels"].tolist()


CASES: dict[str, Any] = {
    "with labels": ("conditional", {"n": 8, "labels": [3, "5"]}, ["-n", 8, "--label", "3,5"]),
    "every class": ("conditional", {"n": 70}, ["-n", 70]),
    "without labels": ("unconditional", {"n": 70}, ["-n", 70]),
    "few": ("unconditional", {}, []),
    "classifier-free": (
        "conditional",
        {"n": 4, "labels": 7, "guidance": 2},
        ["-n", 4, "--label", 7, "--guidance", 2],
    ),
    "eta": ("conditional", {"n": 3, "eta": 0.5}, ["-n", 3, "--eta", 0.5]),
    "settings": (
        "unconditional",
        {"n": 3, "settings": {"clip": True, "start": "uniform"}},
        ["-n", 3, "--set", "clip=true", "--set", "start=uniform"],
    ),
    "sampler and grid": (
        "unconditional",
        {"n": 3, "sampler": "heun", "grid": "quadratic"},
        ["-n", 3, "--sampler", "heun", "--grid", "quadratic"],
    ),
    "points": ("moons", {"n": 70}, ["-n", 70]),
}


@pytest.mark.parametrize("name", CASES)
def test_samples_are_those_of_the_command(capsys, runs, tmp_path, name):
    run, options, words = CASES[name]
    steps = 20 if run == "moons" else 3  # bf16 is slow where the processor has no instructions for it
    command(capsys, "sample", runs / run, "--seed", 3, "--steps", steps, *words, "--out", tmp_path / "x.npz")
    samples = sf.Run(runs / run).sample(seed=3, steps=steps, device="cpu", **options)
    assert_same(samples, tmp_path / "x.npz")
    samples.save(tmp_path / "y.npz")
    assert (tmp_path / "y.npz").read_bytes() == (tmp_path / "x.npz").read_bytes()


def test_guided_by_a_classifier(capsys, runs, tmp_path):
    words = ["-n", 4, "--steps", 3, "--classifier", runs / "classifier", "--guidance", 5]
    command(capsys, "sample", runs / "unconditional", *words, "--out", tmp_path / "x.npz")
    run = sf.Run(runs / "unconditional")
    options: dict[str, Any] = {"n": 4, "steps": 3, "guidance": 5, "device": "cpu"}
    assert_same(run.sample(classifier=runs / "classifier", **options), tmp_path / "x.npz")
    assert_same(run.sample(classifier=sf.Run(runs / "classifier"), **options), tmp_path / "x.npz")


def test_upsampling(capsys, runs, tmp_path):
    small = np.random.default_rng(0).integers(0, 256, (3, 4, 4), dtype=np.uint8)
    np.savez(tmp_path / "small.npz", images=small, labels=[7, 1, 1])
    words = ["--low-res", tmp_path / "small.npz", "--steps", 3, "--out", tmp_path / "x.npz"]
    command(capsys, "sample", runs / "upsampler", *words)
    run = sf.Run(runs / "upsampler")
    options: dict[str, Any] = {"steps": 3, "device": "cpu"}
    assert_same(run.sample(low_res=tmp_path / "small.npz", **options), tmp_path / "x.npz")
    assert_same(run.sample(low_res=small, labels=[7, 1, 1], **options), tmp_path / "x.npz")
    first = sf.Run(runs / "conditional").sample(n=2, labels=[4, 2], **options)
    with pytest.raises(sf.InputError, match="4×4 pixels, and these are 8×8"):
        run.sample(low_res=first, **options)
    first._values = first._values[:, :, ::2, ::2]  # what a run of smaller images would have made
    assert run.sample(low_res=first, **options).labels.tolist() == [4, 2]


def test_inpainting(capsys, runs, tmp_path):
    image = sf.Run(runs / "unconditional").sample(n=1, steps=2, device="cpu").images[0]
    mask = np.zeros((8, 8), dtype=np.uint8)
    mask[4:] = 255
    Image.fromarray(image).save(tmp_path / "image.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    words = ["-n", 3, "--steps", 3, "--inpaint", tmp_path / "image.png", tmp_path / "mask.png"]
    command(capsys, "sample", runs / "unconditional", *words, "--out", tmp_path / "x.npz")
    run = sf.Run(runs / "unconditional")
    options: dict[str, Any] = {"n": 3, "steps": 3, "device": "cpu"}
    assert_same(run.sample(inpaint=(image, mask), **options), tmp_path / "x.npz")
    assert_same(run.sample(inpaint=(image, mask > 0), **options), tmp_path / "x.npz")
    files = (tmp_path / "image.png", tmp_path / "mask.png")
    assert_same(run.sample(inpaint=files, **options), tmp_path / "x.npz")


def test_the_steps_of_the_first_block(runs):
    run, options = sf.Run(runs / "conditional"), how({"n": 5, "seed": 2, "labels": [3], "device": "cpu"})
    steps = list(run.trajectory(steps=4, **options))
    assert [step.s for step in steps] == [750, 500, 250, 0]
    assert all(step.x.shape == step.x0.shape == (5, 1, 8, 8) for step in steps)
    images = run.sample(steps=4, **options).images
    assert np.array_equal(run.data_spec.to_uint8(steps[-1].x)[:, 0].numpy(), images)
    with pytest.raises(sf.InputError, match="got n = 65"):
        run.trajectory(n=65, device="cpu")


def test_arrays_that_no_network_takes(capsys, runs, tmp_path):
    np.savez(tmp_path / "given.npz", mask=np.zeros((3, 1, 8, 8), np.float32))
    run = sf.Run(runs / "conditional")
    with pytest.raises(sf.InputError, match="takes no array 'mask'"):
        run.sample(n=2, conditions={"mask": np.zeros((3, 1, 8, 8), np.float32)}, device="cpu")
    for given in (tmp_path / "given.npz", str(tmp_path / "given.npz")):
        with pytest.raises(sf.InputError, match="holds no array that this run's network takes"):
            run.sample(n=2, conditions=given, device="cpu")
    status, _, err = call(capsys, "sample", run.path, "--given", tmp_path / "given.npz")
    assert (status, "it takes none" in err) == (1, True)


def test_objects_in_place_of_names(runs):
    run = sf.Run(runs / "unconditional")
    options: dict[str, Any] = {"n": 3, "seed": 1, "device": "cpu"}
    named = run.sample(sampler="heun", grid="uniform", steps=4, **options)
    grid = sf.grids.uniform(run.model("cpu").process, 4)
    assert np.array_equal(run.sample(sampler=sf.samplers.Heun(), grid=grid, **options).images, named.images)
    with pytest.raises(sf.InputError, match="remove eta and variance"):
        run.sample(sampler=sf.samplers.DDIM(), eta=0.5)
    with pytest.raises(sf.InputError, match="remove steps"):
        run.sample(grid=grid, steps=5)


def test_saved_samples(capsys, runs, tmp_path):
    """A folder, an archive and a picture, each of the bytes of the command; what is there is kept."""
    run = sf.Run(runs / "labelled")
    for target in ("a", "a.npz", "a.png"):
        command(capsys, "sample", runs / "labelled", "-n", 70, "--steps", 3, "--out", tmp_path / target)
        saved = run.save_samples(tmp_path / f"b{target}", 70, steps=3, device="cpu")
        assert (saved.n, saved.kept, saved.target) == (70, 0, tmp_path / f"b{target}")
        first, second = tmp_path / target, tmp_path / f"b{target}"
        paths = [path.relative_to(first) for path in first.rglob("*") if path.is_file()] or [Path()]
        assert all((first / path).read_bytes() == (second / path).read_bytes() for path in paths)
    assert run.save_samples(tmp_path / "ba", 70, steps=3, device="cpu").kept == 2
    with pytest.raises(sf.InputError, match="with other settings"):
        run.save_samples(tmp_path / "ba", 70, steps=4, device="cpu")
    assert run.save_samples(n=2, steps=2, device="cpu").target == run.folder.samples / "seed-0-n-2.png"


def test_the_block_is_recorded(runs, tmp_path):
    run = sf.Run(runs / "conditional")
    options: dict[str, Any] = {"steps": 2, "device": "cpu"}
    small = run.sample(40, block=32, **options)
    run.save_samples(tmp_path / "a", 40, block=32, **options)
    assert json.loads((tmp_path / "a" / "manifest.json").read_text())["block"] == 32
    pictures = [np.asarray(Image.open(path)) for path in sorted((tmp_path / "a").glob("*.png"))]
    assert np.array_equal(np.stack(pictures), small.images)
    with pytest.raises(sf.InputError, match="must be a positive integer"):
        run.sample(40, block=0, **options)


def test_latents(capsys, runs, tmp_path):
    run = sf.Run(runs / "conditional")
    images = run.sample(n=3, labels=[7, 1, 1], steps=3, device="cpu")
    images.save(tmp_path / "images.npz")
    words = [tmp_path / "images.npz", "--steps", 4, "--out", tmp_path / "z.npz"]
    command(capsys, "encode", run.path, *words)
    latents = run.encode(tmp_path / "images.npz", steps=4, device="cpu")
    latents.save(tmp_path / "y.npz")
    assert (tmp_path / "y.npz").read_bytes() == (tmp_path / "z.npz").read_bytes()
    for given in ((images,), (images.images, [7, 1, 1])):
        assert torch.equal(run.encode(*given, steps=4, device="cpu").latents, latents.latents)
    command(capsys, "decode", run.path, tmp_path / "z.npz", "--out", tmp_path / "back.npz")
    assert_same(run.decode(latents, device="cpu"), tmp_path / "back.npz")
    assert_same(run.decode(tmp_path / "z.npz", device="cpu"), tmp_path / "back.npz")
    with pytest.raises(sf.InputError, match="different weights"):
        sf.Run(runs / "unconditional").decode(latents, device="cpu")


def test_interpolation(capsys, runs, tmp_path):
    run = sf.Run(runs / "conditional")
    image = run.sample(n=1, steps=2, device="cpu").images[0]
    Image.fromarray(image).save(tmp_path / "a.png")
    words = [tmp_path / "a.png", "5", "--frames", 4, "--label", 3, "--steps", 3]
    for target in ("x.gif", "x.png"):
        command(capsys, "interpolate", run.path, *words, "--out", tmp_path / target)
        walk = run.interpolate(image, 5, frames=4, label=3, steps=3, device="cpu")
        walk.save(tmp_path / f"y{target}")
        assert (tmp_path / f"y{target}").read_bytes() == (tmp_path / target).read_bytes()
    assert walk.images.shape == (4, 8, 8)
    assert (walk.steps, walk.label) == (3, 3)


def test_evaluation(capsys, runs, tmp_path, monkeypatch):
    quick = functools.partial(train_classifier, passes=(1, 1))
    monkeypatch.setattr("scorefield.evaluation.catalogue.train_classifier", quick)
    shutil.copytree(runs / "conditional", tmp_path / "run")
    run = sf.Run(tmp_path / "run")
    words = ["--metrics", "bpd,is", "--bound-steps", 3, "--steps", 2, "--sets", 1, "-n", 20, "--json"]
    found = run.evaluate("bpd,is", bound_steps=3, steps=2, sets=1, n=20, device="cpu").as_dict()
    printed = json.loads(command(capsys, "evaluate", run.path, *words))
    assert json.loads(json.dumps(found["figures"], default=str)) == printed["figures"]
    pixels = ModuleFeatures(lambda x: x.flatten(1), run.data_spec, "pixels")
    options: dict[str, Any] = {"steps": 2, "sets": 1, "n": 20, "extractor": pixels, "device": "cpu"}
    several = run.evaluate(["kid"], guidance=[1, 2], **options)
    assert several[0] == run.evaluate(["kid"], guidance=1, **options)
    assert several[0] != several[1]
    with pytest.raises(sf.InputError, match="finite numbers, each once"):
        run.evaluate(["kid"], guidance=[1, 1], **options)


def test_a_classifier_has_an_accuracy(capsys, runs):
    found = sf.Run(runs / "classifier").evaluate(n=50, device="cpu")
    printed = json.loads(command(capsys, "evaluate", runs / "classifier", "-n", 50, "--json"))
    assert json.loads(json.dumps(found.as_dict())) == {name: printed[name] for name in ("heldout", "train")}


def test_nothing_is_read_before_it_is_asked_for(runs, tmp_path):
    """A run is described once, and a Run of nothing can be made, but not asked."""
    run = sf.Run(tmp_path / "later")
    assert repr(run) == f"Run({str(tmp_path / 'later')!r}: no run)"
    shutil.copytree(runs / "moons", tmp_path / "later")
    assert run.recipe.name == "toy-moons"
    (run.path / "config.toml").unlink()
    assert run.data_spec.shape == (2,)
    assert run.step == 2
    assert repr(run) == f"Run({str(run.path)!r}: toy-moons, 2, step 2 of 2)"


def test_hash_and_weights_are_of_one_moment(runs, tmp_path):
    shutil.copytree(runs / "moons", tmp_path / "run")
    path = tmp_path / "run" / "model.safetensors"
    run, weights, digest = sf.Run(tmp_path / "run"), load_file(path), file_sha256(path)
    before = run.sample(5, seed=1, steps=20, device="cpu").samples
    assert run.weights_sha256 == digest
    save_file({name: value * 1.1 for name, value in weights.items()}, tmp_path / "new")
    (tmp_path / "new").replace(path)
    assert run.weights_sha256 == digest
    torch.testing.assert_close(dict(run.model("cpu").state_dict()), weights, rtol=0, atol=0)
    assert np.array_equal(run.sample(5, seed=1, steps=20, device="cpu").samples, before)
    again = sf.Run(tmp_path / "run")
    assert again.weights_sha256 == file_sha256(path) != digest
    assert not np.array_equal(again.sample(5, seed=1, steps=20, device="cpu").samples, before)


def test_the_model_is_in_the_runs_precision(runs):
    run = sf.Run(runs / "conditional")
    model = run.model("cpu")
    assert model.autocast_dtype is torch.bfloat16
    assert not model.training
    assert run.model("cpu", precision="fp32").autocast_dtype is None
    assert run.model("cpu") is not model


MISTAKES = [
    (lambda runs, run: sf.Run(runs / "none").sample(), "not a run"),
    (lambda runs, run: sf.Run(runs / "none").weights_sha256, "not a run"),
    (lambda runs, run: sf.Run(runs / "classifier").sample(device="cpu"), "cannot be sampled"),
    (lambda runs, run: run.sample(labels="seven", device="cpu"), "no class 'seven'"),
    (lambda runs, run: run.sample(labels=[10], device="cpu"), "0 … 9"),
    (lambda runs, run: run.sample(labels=[], device="cpu"), "empty list"),
    (lambda runs, run: run.sample(n=0, device="cpu"), "number of samples"),
    (lambda runs, run: run.sample(sampler="ddimm", device="cpu"), "did you mean 'ddim'"),
    (lambda runs, run: run.sample(settings={"stepz": 3}, device="cpu"), "did you mean 'steps'"),
    (lambda runs, run: run.sample(classifier=run, device="cpu"), "takes the run of a classifier"),
    (lambda runs, run: run.sample(low_res=np.zeros((1, 4, 4), np.uint8), device="cpu"), "remove low_res"),
    (lambda runs, run: run.sample(device="gpu"), "cpu, cuda, mps"),
    (lambda runs, run: run.sample(n=1, steps=2, device="cpu").samples, "use .images"),
    (lambda runs, run: sf.Run(runs / "moons").sample(n=1, steps=20, device="cpu").images, "use .samples"),
    (lambda runs, run: sf.Run(runs / "unconditional").sample(labels=3, device="cpu"), "is unconditional"),
    (lambda runs, run: sf.Run(runs / "upsampler").sample(device="cpu"), "give low_res"),
    (lambda runs, run: sf.Run(runs / "upsampler").evaluate(), "no metrics yet"),
    (lambda runs, run: sf.Run(runs / "moons").encode(np.zeros((1, 2, 1), np.uint8)), "of images"),
    (lambda runs, run: run.interpolate(1, np.zeros((8, 8), np.uint8), device="cpu"), "class-conditional"),
    (lambda runs, run: run.evaluate("fidd", device="cpu"), "did you mean 'fd'"),
]


@pytest.mark.parametrize(("act", "message"), MISTAKES, ids=[message for _, message in MISTAKES])
def test_mistakes_teach(runs, act, message):
    with pytest.raises(sf.ScorefieldError, match=message):
        act(runs, sf.Run(runs / "conditional"))


def test_the_example_of_the_documents_runs(runs, tmp_path, monkeypatch):
    """Every line of it, with fewer samples and steps; several scales of guidance have tests of their own."""
    text = (Path(__file__).parents[2] / "docs" / "howto" / "python.md").read_text()
    code = re.findall(r"```py\n(.*?)```", text, flags=re.DOTALL)[0]
    for name in ("digits-1", "dropped"):
        shutil.copytree(runs / "conditional", tmp_path / "runs" / name)
    monkeypatch.chdir(tmp_path)
    for said, quick in (
        ("steps=20", "steps=3"),
        ('grid="log_snr")', 'grid="log_snr", n=2, steps=3)'),
        (", 50_000)", ", 2, steps=3)"),
        ("encode(samples)", "encode(samples, steps=3)"),
        ("frames=10", "frames=2, steps=3"),
        ('dropped.evaluate("fd,pr", guidance=[1, 2, 4])', "None"),
        ('evaluate("fd,pr")', 'evaluate("bpd", n=2, terms=2)'),
        ("guidance=2)", "guidance=2, n=2, steps=3)"),
    ):
        assert said in code
        code = code.replace(said, quick)
    exec(compile(code, "python.md", "exec"), {"sf": sf})


def test_help_is_readable():
    text = pydoc.render_doc(sf.Run.sample, renderer=pydoc.plaintext)  # type: ignore[attr-defined]
    for word in ("labels:", "guidance:", "Args:", "Returns:", "Raises:", "steps: int | None = None"):
        assert word in text.replace("'", "")
    assert max(map(len, sf.Run.sample.__doc__.splitlines())) <= 130


def test_a_command_imports_its_own_module_only():
    code = (
        "import sys, scorefield.cli\n"
        "try: scorefield.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print([m for m in sys.modules if m == 'torch' or m.startswith('scorefield.cli.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert eval(done.stdout.splitlines()[-1]) == ["scorefield.cli.console", "scorefield.cli.malloc"]
    assert "…" not in done.stdout
    assert all(len(summary) <= 45 for _, summary in scorefield.cli.COMMANDS.values())


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"steps": 0}, "greater than or equal to 1"),
    ({"grid": ""}, "grid must be one of"),
    ({"grid": 3}, "a grid is a list or tensor of times"),
    ({"labels": 2.5}, "no class 2.5"),
    ({"labels": np.array([[1, 2]])}, r"no class \[1, 2\]"),
    ({"labels": [1.0]}, "no class 1.0"),
    ({"settings": 3}, "settings are"),
    ({"classifier": 3}, "a run is named by its path, got 3"),
    ({"conditions": 3}, "arrays by name"),
    ({"conditions": {"mask": [1, 2]}}, "got \\[1, 2\\] under 'mask'"),
    ({"conditions": {3: np.zeros(2)}}, "under 3"),
    ({"inpaint": 3}, "inpaint takes two"),
    ({"inpaint": (np.zeros((8, 8), np.uint8), None)}, "or the path of a file or folder; got None"),
    ({"block": 0}, "block, the samples computed at once, must be a positive integer"),
    ({"block": 64.0}, "block, the samples computed at once, must be a positive integer"),
]


@pytest.mark.parametrize(("wrong", "message"), WRONG, ids=[str(list(wrong)) for wrong, _ in WRONG])
def test_values_of_a_wrong_type_or_size_are_refused_in_words(runs, wrong, message):
    with pytest.raises(sf.InputError, match=message):
        sf.Run(runs / "conditional").sample(
            n=2, device="cpu", **how({"steps": 2, **wrong} if "grid" not in wrong else wrong)
        )


def test_one_label_of_numpy_or_torch_is_a_label(runs):
    run = sf.Run(runs / "conditional")
    plain = run.sample(n=2, labels=3, steps=2, device="cpu").images
    for label in (np.int64(3), torch.tensor(3), "3"):
        assert np.array_equal(
            run.sample(n=2, labels=how({"of": label})["of"], steps=2, device="cpu").images, plain
        )


def test_encode_and_decode_refuse_what_is_no_image_and_no_latents(runs):
    run = sf.Run(runs / "conditional")
    for wrong in (3, torch.zeros(2, 8, 8)):
        with pytest.raises(sf.InputError, match="images must be a NumPy array"):
            run.encode(how({"of": wrong})["of"], labels=1, steps=2, device="cpu")
        with pytest.raises(sf.InputError, match="latents must be the result of `encode`"):
            run.decode(how({"of": wrong})["of"], device="cpu")
    with pytest.raises(sf.InputError, match="check, the number"):
        run.encode(np.zeros((1, 8, 8), np.uint8), labels=1, steps=2, check=-1, device="cpu")
    with pytest.raises(sf.InputError, match="frames = '2'"):
        run.interpolate(0, 1, frames=how({"of": "2"})["of"], label=1, steps=2, device="cpu")


def test_one_setting_may_be_a_text_of_its_own(runs):
    run = sf.Run(runs / "conditional")
    plain = run.sample(n=2, settings=["clip=false"], steps=2, device="cpu").images
    assert np.array_equal(run.sample(n=2, settings="clip=false", steps=2, device="cpu").images, plain)


def test_weights_that_do_not_fit_are_named(runs, tmp_path):
    shutil.copytree(runs / "moons", tmp_path / "run")
    config = tmp_path / "run" / "config.toml"
    config.write_text(config.read_text().replace("hidden = 16", "hidden = 17"))
    with pytest.raises(
        sf.InputError, match=r"does not fit this run: \d+ tensors are of another shape \(net\."
    ):
        sf.load(tmp_path / "run")
    config.write_text(config.read_text().replace("hidden = 17", "hidden = -17"))
    with pytest.raises(sf.InputError, match=r"\[net\].* hidden must be a positive integer, got -17"):
        sf.load(tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda value: value != 0, "of another type .*bool instead of float32"),
        (lambda value: value.to(torch.complex64), "of another type .*complex64 instead of float32"),
        (lambda value: value.to(torch.int32), "of another type .*int32 instead of float32"),
        (lambda value: value * float("nan"), "holds NaN or infinite values"),
    ],
)
def test_weights_of_another_type_or_not_finite_are_refused(runs, tmp_path, change, said):
    """By casting, any of them would load."""
    shutil.copytree(runs / "moons", tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints", "samples"))
    path = tmp_path / "run" / "model.safetensors"
    weights = load_file(path)
    last = list(weights)[-1]
    save_file({**weights, last: change(weights[last])}, path)
    for load in (sf.load, lambda run: sf.Run(run).model(device="cpu")):
        with pytest.raises(sf.InputError, match=said):
            load(tmp_path / "run")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("range = .*?]", "range = [-inf, inf]", "range"),
        ("range = .*?]", "range = [-1.0, nan]", "range"),
        ('"9",', '"9", "ten", "eleven",', r"has 10 classes, but the data have 12"),
    ],
)
def test_a_description_that_its_weights_cannot_belong_to_is_refused(runs, tmp_path, old, new, said):
    shutil.copytree(
        runs / "conditional", tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints", "samples")
    )
    config = tmp_path / "run" / "config.toml"
    before, trained = config.read_text().split("[trained_on]")
    before = before.replace("[net]", "[net]\nnum_classes = 10", 1) if "num_classes" not in before else before
    changed = re.sub(old, new, trained, count=1, flags=re.DOTALL)
    assert changed != trained
    config.write_text(f"{before}[trained_on]{changed}")
    with pytest.raises(sf.InputError, match=said) as error:
        sf.load(tmp_path / "run")
    assert "config.toml" in str(error.value)


@pytest.mark.parametrize("name", ["model.safetensors", "config.toml"])
def test_a_pipe_in_the_place_of_a_file_is_refused_at_once(runs, tmp_path, name):
    shutil.copytree(runs / "moons", tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints", "samples"))
    (tmp_path / "run" / name).unlink()
    os.mkfifo(tmp_path / "run" / name)
    with pytest.raises(sf.InputError):
        sf.load(tmp_path / "run")


def test_a_foreign_folder_among_the_checkpoints_is_passed_over(runs, tmp_path):
    shutil.copytree(runs / "moons", tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "step-old").mkdir()
    assert sf.Run(tmp_path / "run").step == 2


@pytest.mark.parametrize("n", [torch.zeros(2, 1, 8, 8), 1.5, "2"])
def test_a_start_in_place_of_n_is_refused_in_words(n):
    model = sf.Denoiser(sf.nets.MLP(2), sf.process.cosine(10), data=sf.DataSpec((2,)))
    with pytest.raises(sf.InputError, match="n is a number of samples"):
        sf.sample(model, sf.samplers.DDIM(), sf.grids.uniform(model.process, 2), n)


def test_what_is_no_objective_no_array_and_no_label_is_refused_in_words():
    x: Any = torch.zeros(8, 2)
    wrong: Any = sf.objectives.Simple
    with pytest.raises(sf.InputError, match="and Simple is not"):
        sf.train(wrong, x, steps=1)
    words: Any = ["mask"]
    with pytest.raises(sf.InputError, match="must be an array or a tensor, got a list"):
        sf.data.tensor(x, mask=words)
