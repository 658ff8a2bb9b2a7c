"""scorefield evaluate as a user calls it: tables and JSON with stamps, stored samples, one clear line for
every mistake.
"""

import functools
import json
import os

import numpy as np
import pytest
import torch
from PIL import Image
from support import call

import scorefield as sf
import scorefield.cli
from scorefield.core.noise import NoiseSource
from scorefield.data.loading.epoch_order import permutation
from scorefield.evaluation import ModuleFeatures, train_classifier
from scorefield.evaluation.bits import flow_figures
from scorefield.runs.build import read_run
from scorefield.runtime.distributed import Processes

MLP = 'net={kind="mlp", hidden=32, layers=2}'
FAST = ["--steps", 2, "--sets", 2, "-n", 70, "--device", "cpu"]


def figures(capsys, *arguments):
    """The figures of an evaluation that must succeed, and what it said."""
    status, out, err = call(capsys, "evaluate", *arguments, "--json")
    assert status == 0, err
    return json.loads(out)["figures"], err


@pytest.fixture
def run(tiny_run, tmp_path):
    """A run of its own for every test, without stored samples."""
    return tiny_run.copy(tmp_path / "run", "digits", MLP, steps=3)


@pytest.fixture(autouse=True)
def quick_judge(monkeypatch):
    """One step of training in place of hundreds: these tests read no figure that depends on how good the
    judge is.
    """
    quick = functools.partial(train_classifier, examples=1, passes=(0, 1))
    monkeypatch.setattr("scorefield.evaluation.catalogue.train_classifier", quick)


def blocks(run):
    return {path.relative_to(run): path.read_bytes() for path in (run / "evaluation").rglob("block-*")}


def test_every_figure_carries_its_stamp(capsys, run, monkeypatch):
    # A network that has learnt nothing makes a stiff flow.
    loosely = functools.partial(flow_figures, tolerance=0.1)
    monkeypatch.setattr("scorefield.evaluation.evaluator.flow_figures", loosely)
    status, out, err = call(
        capsys,
        "evaluate",
        run,
        "--metrics",
        "fd, kid,is,pr,copies,palette,bpd,ode",
        "--bound-steps",
        5,
        *FAST,
        "--json",
    )
    assert status == 0, err
    result = json.loads(out)
    found = result["figures"]
    assert {name: figure["metric"] for name, figure in found.items()} == {
        **dict.fromkeys(("frechet", "nearest", "near", "agreement"), "fd"),
        "kid": "kid",
        "inception_score": "is",
        "precision": "pr",
        "recall": "pr",
        **dict.fromkeys(("copies", "copies_but"), "copies"),
        "palette": "palette",
        **dict.fromkeys(("bpd", "bpd_prior", "bpd_decoder", "bpd_others"), "bpd"),
        **dict.fromkeys(("ode", "ode_prior_error"), "ode"),
    }
    config, data = read_run(run)[0], sf.data.digits().split(0.2, 0)
    for name, figure in found.items():
        stamp = figure["stamp"]
        assert stamp["weights"]["average"] == "EMA"
        assert stamp["weights"]["decay"] == config.training.ema
        assert stamp["weights"]["step"] == 3
        assert stamp["data"]["fingerprint"] == data[0].fingerprint()
        if figure["metric"] in ("bpd", "ode"):
            how = stamp[{"bpd": "bound", "ode": "flow"}[figure["metric"]]]
            assert (how["examples"], how["split"], how["bins"], how["guidance"]) == (
                70,
                "heldout",
                17,
                "none",
            )
            continue
        how = stamp["sampling"]
        assert (how["samples"], how["sets"], how["sampler"], how["variance"]) == (70, 2, "Ancestral", "lower")
        assert (how["grid"], how["steps"], how["guidance"], how["clip"], how["seed"]) == (
            "uniform",
            2,
            "none",
            False,
            0,
        )
        assert how["precision"] in ("fp32", "bf16")
        if figure["metric"] in ("copies", "palette"):
            assert "features" not in stamp
            continue
        assert stamp["features"]["extractor"].startswith("classifier trained on 1437 digits images, seed 0")
        assert (figure["metric"] == "is") == ("reference" not in stamp)
        if name not in ("near", "agreement"):
            assert len(figure["sets"]) == 2
            assert figure["value"] == pytest.approx(sum(figure["sets"]) / 2)
            assert figure["error"] == pytest.approx(np.std(figure["sets"], ddof=1))
    assert found["frechet"]["stamp"]["reference"]["fingerprint"] == data[0].fingerprint()
    assert any("so the ratio is too high" in warning for warning in result["warnings"])
    (line,) = (run / "evaluation" / "results.jsonl").read_text().splitlines()
    assert json.loads(line)["figures"] == found
    pixels = np.asarray(Image.open(result["pictures"]["bpd"]).convert("L"))
    assert 0.005 < (pixels < 200).mean() < 0.5


def test_tables_have_their_stamps_under_them(capsys, run):
    status, out, err = call(capsys, "evaluate", run, "--metrics", "bpd,is", "--terms", 2, *FAST)
    assert status == 0, err
    lines = out.splitlines()
    assert max(map(len, lines)) <= 120
    first, second = (
        next(i for i, line in enumerate(lines) if text in line)
        for text in ("variational bound", "Inception Score")
    )
    above, below = lines[first:second], lines[second:]
    assert any(line.startswith("bound ") and "examples 70" in line for line in above)
    assert any(
        line.startswith("sampling ") and "samples 70, sets 2, sampler Ancestral, variance lower" in line
        for line in below
    )
    for part in (above, below):
        assert any(line.startswith("weights ") and "EMA" in line and "step 3" in line for line in part)
        assert any("±" in line for line in part)
    assert not (run / "figures" / "bound.png").exists()  # an estimate has no terms


def test_stored_samples_serve_other_metrics_and_larger_sets(capsys, run, monkeypatch):
    first, err = figures(capsys, run, "--metrics", "is", *FAST)
    assert "reused" not in err
    before = blocks(run)
    assert len(before) == 4  # two sets of two blocks
    (run / "evaluation" / "results.jsonl").unlink()

    def never(*arguments, **options):
        raise AssertionError("nothing is to be sampled")

    with monkeypatch.context() as patch:
        patch.setattr("scorefield.generation.sampling.sample_blocks", never)
        again, err = figures(capsys, run, "--metrics", "kid,is", *FAST)
    assert "4 of 4 blocks of samples are stored" in err
    assert again["inception_score"] == first["inception_score"]
    larger, err = figures(capsys, run, "--metrics", "is", *FAST, "-n", 140)
    assert "4 of 6 blocks" in err
    assert before.items() < blocks(run).items()
    assert larger["inception_score"]["stamp"]["sampling"]["samples"] == 140
    figures(capsys, run, "--metrics", "is", *FAST, "--seed", 1)  # its first set is the second one of seed 0
    assert len(blocks(run)) == 8


def test_other_weights_are_other_samples(capsys, run):
    figures(capsys, run, "--metrics", "is", *FAST)
    before = set(blocks(run))
    weights = run / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + bytes([weights.read_bytes()[-1] ^ 1]))
    _, err = figures(capsys, run, "--metrics", "is", *FAST)
    assert "reused" not in err
    assert len(blocks(run)) == 2 * len(before)


def test_an_interrupted_evaluation_goes_on(capsys, run, monkeypatch):
    from scorefield.generation.sample_blocks import sample_blocks

    def interrupted(*arguments, **options):
        yield next(sample_blocks(*arguments, **options))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("scorefield.generation.sampling.sample_blocks", interrupted)
        status, _, err = call(capsys, "evaluate", run, "--metrics", "is", *FAST)
    assert status == 130
    assert "run the same command again to continue" in err
    assert len(blocks(run)) == 1
    _, err = figures(capsys, run, "--metrics", "is", *FAST)
    assert "1 of 4 blocks" in err


def test_each_process_makes_its_own_blocks_and_the_first_one_judges(run, monkeypatch):
    """As if there were two: the second one makes blocks 1, 3, … and leaves; the first makes the others and
    has the figures.
    """
    monkeypatch.setattr(Processes, "leave", lambda self: None)
    monkeypatch.setattr(Processes, "on_all", lambda self, work, what="": work())
    monkeypatch.setattr(Processes, "check_same", lambda self, facts, what: None)
    pixels = ModuleFeatures(lambda x: x.flatten(1), read_run(run)[1], "pixels")
    results, stored = [], []
    for rank in (1, 0):
        options = {"n": 70, "sets": 1, "steps": 2, "extractor": pixels, "processes": Processes(rank, 2)}
        results.append(sf.Run(run).evaluate("kid", **options))  # type: ignore[call-overload]
        stored.append(sorted(int(path.stem.removeprefix("block-")) for path in blocks(run)))
    assert stored == [[1], [0, 1]]
    assert not results[0].figures
    assert results[1].figures[0].stamp["features"]["extractor"] == "pixels"


def test_guided_samples_are_others_and_say_so(capsys, run, tmp_path):
    guide = tmp_path / "guide"
    small = ["--set", "net.channel_mult=[1,1]", "--set", "training.batch_size=16", "--device", "cpu"]
    assert call(capsys, "train", "digits-classifier", "--steps", 1, "--run", guide, *small)[0] == 0
    once = ["--metrics", "is", "--steps", 2, "--sets", 1, "-n", 20, "--device", "cpu"]
    plain, _ = figures(capsys, run, *once)
    guided, err = figures(capsys, run, *once, "--classifier", guide, "--guidance", 3)
    assert "reused" not in err
    assert len(blocks(run)) == 2
    assert plain["inception_score"]["stamp"]["sampling"]["guidance"] == "none"
    said = guided["inception_score"]["stamp"]["sampling"]["guidance"]
    assert said.startswith(f"classifier guidance by {guide} (sha256 ")
    assert "scale 3, gradient at x_t" in said


def test_several_scales_of_guidance(capsys, run, tmp_path):
    """One figure a scale, each that of the scale alone; scale 0 is the unguided model asked for the same
    labels; a picture.
    """
    guide = tmp_path / "guide"
    small = ["--set", "net.channel_mult=[1,1]", "--set", "training.batch_size=16", "--device", "cpu"]
    assert call(capsys, "train", "digits-classifier", "--steps", 1, "--run", guide, *small)[0] == 0
    once = [run, "--steps", 2, "--sets", 1, "-n", 70, "--device", "cpu", "--classifier", guide]
    status, out, err = call(capsys, "evaluate", *once, "--guidance", "0,0.5,400", "--json")
    assert status == 0, err
    result = json.loads(out)
    assert [row["scale"] for row in result["guidance"]] == [0, 0.5, 400]
    for row in result["guidance"]:
        assert set(row["figures"]) == {"frechet", "nearest", "near", "agreement", "precision", "recall"}
        alone, err = figures(capsys, *once, "--metrics", "fd,pr", "--guidance", row["scale"])
        assert "2 of 2 blocks of samples are stored" in err
        assert alone == row["figures"]
    values = [row["figures"]["frechet"]["value"] for row in result["guidance"]]
    assert len(set(values)) == 3
    plain, _ = figures(capsys, *once[:-2], "--metrics", "fd")
    assert plain["frechet"]["value"] == pytest.approx(values[0])
    assert Image.open(result["pictures"]["guidance"]).size[0] > 600
    status, out, _ = call(capsys, "evaluate", *once, "--guidance", "0,0.5,400", "--metrics", "pr")
    assert status == 0
    lines = [line.split() for line in out.splitlines() if "%" in line]
    assert [line[0] for line in lines] == ["0", "0.5", "400", "held-out"]
    assert "scale of the row" in " ".join(out.split())
    assert "Fréchet" not in out


def test_given_samples(capsys, run, tmp_path):
    """The run's own samples from an .npz file and from a folder are judged like the run itself, sampled in
    the same order.
    """
    made, _ = figures(capsys, run, "--metrics", "fd", *FAST)
    labels = sf.data.digits().split(0.2, 0)[1].labels[permutation(360, seed=0)][:140].tolist()
    options = ["--steps", 2, "--label", ",".join(map(str, labels)), "--device", "cpu"]
    for name in ("a.npz", "folder"):
        assert call(capsys, "sample", run, "-n", 70, *options, "--out", tmp_path / name)[0] == 0
        given, _ = figures(capsys, run, "--samples", tmp_path / name, "-n", 70, "--device", "cpu")
        assert given["frechet"]["value"] == pytest.approx(
            made["frechet"]["sets"][0], rel=0.02
        )  # a grey level here and there
        assert given["frechet"]["stamp"]["sampling"]["images of"] == str(tmp_path / name)
        assert given["frechet"]["stamp"]["sampling"]["sets"] == 1
        assert "weights" not in given["frechet"]["stamp"]
        assert "agreement" in given  # labels are kept in the one and beside the other
    assert not blocks(run / "nothing")


def test_the_bound_is_that_of_the_library(capsys, run):
    """40 held-out images in a seeded shuffle, under their own labels; x̂0 clipped as the run's sampling says."""
    for clip in ("false", "true"):
        options = [
            "--metrics",
            "bpd",
            "--bound-steps",
            4,
            "-n",
            40,
            "--seed",
            7,
            "--set",
            f"clip={clip}",
            "--device",
            "cpu",
        ]
        found, _ = figures(capsys, run, *options)
        model, heldout = sf.load(run), sf.data.digits().split(0.2, 0)[1]
        chosen = torch.from_numpy(permutation(360, seed=0)[:40])
        x0, y = heldout.batch(chosen)
        given = sf.guidance.ClipX0(model.given(y)) if clip == "true" else model.given(y)  # type: ignore[arg-type]
        whole = sf.likelihood.bits_per_dim(
            given,  # type: ignore[arg-type]
            x0,
            NoiseSource(7, chosen),
            sf.grids.uniform(model.process, 4),  # type: ignore[arg-type]
        )
        assert found["bpd"]["value"] == pytest.approx(float(whole.total.mean()), rel=1e-4)
        assert found["bpd"]["terms"] == pytest.approx(whole.terms.mean(dim=0).tolist(), rel=1e-4)
        assert found["bpd"]["times"] == [250, 500, 750, 1000]
        assert found["bpd"]["stamp"]["bound"]["clip"] == (clip == "true")
    train, _ = figures(capsys, run, *options[:6], "--split", "train", "--device", "cpu")
    assert train["bpd"]["stamp"]["bound"]["split"] == "train"
    assert train["bpd"]["value"] != found["bpd"]["value"]


def test_points_have_likelihoods_in_nats(capsys, tiny_run, tmp_path, monkeypatch):
    loosely = functools.partial(flow_figures, tolerance=0.1)
    monkeypatch.setattr("scorefield.evaluation.evaluator.flow_figures", loosely)
    tiny_run.copy(tmp_path / "run", "toy-moons")
    found, _ = figures(capsys, tmp_path / "run", "--metrics", "bpd,ode", "-n", 30, "--device", "cpu")
    assert found["bpd"]["unit"] == found["ode"]["unit"] == "nats"
    assert found["bpd"]["stamp"]["bound"]["decoder"] == "density"
    assert found["ode"]["stamp"]["flow"]["trace"] == "exact"


def test_reference_statistics_are_written_and_used(capsys, run, tmp_path):
    first, err = figures(
        capsys, run, "--metrics", "kid", "--reference", tmp_path / "digits.safetensors", *FAST
    )
    assert "wrote the reference statistics" in err
    again, err = figures(
        capsys, run, "--metrics", "fd,kid", "--reference", tmp_path / "digits.safetensors", *FAST
    )
    assert "wrote the reference" not in err
    assert first["kid"] == again["kid"]


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """Folders and files to make mistakes with, which no command changes."""
    tmp_path = tmp_path_factory.mktemp("broken")
    rng = np.random.default_rng(0)
    for name in ("empty", "large"):
        (tmp_path / name).mkdir()
    Image.fromarray(rng.integers(0, 256, (16, 16), dtype=np.uint8)).save(tmp_path / "large" / "a.png")
    (tmp_path / "odd").mkdir()
    os.mkfifo(tmp_path / "odd" / "pipe.png")
    Image.new("1", (20_000, 10_000)).save(tmp_path / "odd" / "bomb.png")
    np.savez(tmp_path / "large.npz", images=np.zeros((80, 16, 16), dtype=np.uint8))
    np.savez(tmp_path / "few.npz", images=np.zeros((3, 8, 8), dtype=np.uint8))
    np.savez(
        tmp_path / "bytes.npz",
        images=rng.integers(0, 256, (80, 8, 8), dtype=np.uint8),
        labels=np.arange(80) % 10,
    )
    return tmp_path


MISTAKES = [
    (["--metrics", "fidd"], "got 'fidd', did you mean 'fd'"),
    (["--metrics", "fd,kid,fd"], "fd is given twice"),
    (["--metrics", ""], "a metric must be one of"),
    (["--metrics", "bpd", "--variance", "learned"], "needs a model with a variance head"),
    (["--metrics", "bpd", "--variance", "larger"], "option variance"),
    (["--metrics", "bpd", "--bound-steps", "2000"], "from 1 to 1000"),
    (["--metrics", "bpd", "--terms", "1"], "--terms"),
    (["--metrics", "bpd", "--split", "test"], "option split"),
    (
        ["--metrics", "bpd", "--data", "{tmp}/bytes.npz"],
        "bytes.npz has bins 256, the run was trained on bins 17",
    ),
    (["--data", "toy:moons"], "has shape (2,), the run was trained on shape (1, 8, 8)"),
    (["--samples", "{tmp}/large"], "a.png has 16×16 pixels, but the run makes 8×8"),
    (["--samples", "{tmp}/large.npz"], "images of shape (1, 16, 16), but the run makes (1, 8, 8)"),
    (["--samples", "{tmp}/few.npz", "-n", "70"], "holds 3 images, fewer than one set of 70"),
    (["--samples", "{tmp}/empty"], "no images found"),
    (["--samples", "{tmp}/odd"], "2 of 2 images cannot be read (bomb.png"),
    (["--samples", "{tmp}/none"], "no such folder or .npz file"),
    (["--features", "classifer"], "did you mean 'classifier'"),
    (["--features", "inception:{tmp}/none.pth"], "there is no such file"),
    (["--reference", "{tmp}/none/r.safetensors"], "create it first"),
    (["--reference", "{tmp}/few.npz"], "compute the reference again"),
    (["--sampler", "ancestral", "--variance", "learned"], "variance head"),
    (["--guidance", "2"], "guidance"),
    (["--guidance", "0,a"], "0,a"),
    (["--guidance", "1,1"], "each once"),
    (["--guidance", "0,nan"], "finite"),
    (["--guidance", "0,1", "--metrics", "pr,bpd"], "bpd ignore guidance"),
    (["--guidance", "0,1", "--samples", "{tmp}/few.npz"], "not sampled at several scales"),
    (["-n", "1"], "-n"),
    (["--metrics", "fd,pr", "-n", "3"], "pr needs sets of at least 4 images; n is 3"),
    (["--sets", "99999999999"], "option sets"),
]


@pytest.mark.parametrize(
    ("arguments", "message"), MISTAKES, ids=[" ".join(arguments) for arguments, _ in MISTAKES]
)
def test_mistakes_get_one_line(capsys, run, broken, arguments, message):
    status, out, err = call(
        capsys, "evaluate", run, *(text.format(tmp=broken) for text in arguments), "--device", "cpu"
    )
    assert status not in (0, None)
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert message in line
    assert "Traceback" not in err + out
    assert not blocks(run)  # nothing was sampled before it was found
    assert not (run / "evaluation" / "results.jsonl").exists()


def test_runs_that_cannot_be_judged(capsys, run, tiny_run, tmp_path):
    """Likelihoods without held-out data; points; a folder where nothing can be written; weights that have diverged."""
    moons = tiny_run("toy-moons")
    status, _, err = call(capsys, "evaluate", moons, "--metrics", "bpd,kid", "--device", "cpu")
    assert (status, "kid compares images" in err) == (1, True)
    config = (run / "config.toml").read_text()
    (run / "config.toml").write_text(config.replace("holdout = 0.2", "holdout = 0.0"))
    status, _, err = call(capsys, "evaluate", run, "--metrics", "bpd", "--device", "cpu")
    assert (status, "there are no heldout examples" in err, "data.holdout" in err) == (1, True, True)
    (run / "config.toml").write_text(config)
    assert not (run / "evaluation").exists()
    (run / "evaluation").write_text("")
    status, _, err = call(capsys, "evaluate", run, *FAST)
    assert (status, "copy the run to a writable folder" in err) == (1, True)
    (run / "evaluation").unlink()
    weights = sf.load(run).state_dict()
    weights = {name: torch.full_like(value, float("nan")) for name, value in weights.items()}
    sf.training.checkpoint.save_weights(run / "model.safetensors", weights)
    status, _, err = call(capsys, "evaluate", run, *FAST)
    assert (status, "holds NaN or infinite values" in err) == (1, True)
