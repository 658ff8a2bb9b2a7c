"""The command as a user calls it: results, exit statuses, one clear line for every mistake."""

import functools
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image
from support import call, fork, frames, import_for_forks, tiny

import scorefield.cli
from scorefield.evaluation import train_classifier
from scorefield.nets import fused

TINY = tiny("digits")


@pytest.fixture(scope="module")
def run(tiny_run):
    return tiny_run("digits", steps=3)


def test_help_lists_only_what_works(capsys):
    status, out, _ = call(capsys, "--help")
    assert status == 0
    for command in ("recipes", "info", "train", "sample", "evaluate", "studio"):
        assert command in out
        assert call(capsys, command, "--help")[0] == 0


def test_version(capsys):
    assert call(capsys, "--version")[:2] == (0, scorefield.__version__ + "\n")


def test_recipes_and_info(capsys, run):
    status, out, _ = call(capsys, "recipes", "--json")
    recipes = {recipe["name"]: recipe for recipe in json.loads(out)["recipes"]}
    assert status == 0
    assert recipes["cifar10-ddpm"]["parameters"] == 35_746_307
    assert recipes["digits"]["shape"] == [1, 8, 8]
    assert "digits" in call(capsys, "recipes")[1]
    assert "35,746,307" in call(capsys, "info", "cifar10-ddpm")[1]
    status, out, _ = call(capsys, "info", run, "--json")
    assert status == 0
    facts = json.loads(out)
    assert facts["trained_on"]["examples"] == 1437
    assert facts["training"] == {"step": 3, "steps": 3, "batch_size": 8, "seed": 0}
    assert facts["parameters"] == sum(p.numel() for p in scorefield.load(run).parameters())
    assert "1,437 examples of digits" in call(capsys, "info", run)[1]


def test_sample_writes_npz_png_folder_and_gif(capsys, run, tmp_path):
    status, out, err = call(
        capsys, "sample", run, "-n", 7, "--label", "3,5", "--out", tmp_path / "a.npz", "--json"
    )
    assert status == 0, err
    assert "EMA" in err
    assert json.loads(out)["weights"] == "ema"
    arrays = np.load(tmp_path / "a.npz")
    assert arrays["images"].shape == (7, 8, 8)
    assert arrays["images"].dtype == np.uint8
    assert arrays["labels"].tolist() == [3, 5, 3, 5, 3, 5, 3]
    assert (
        call(
            capsys,
            "sample",
            run,
            "-n",
            4,
            "--steps",
            2,
            "--out",
            tmp_path / "a.png",
            "--trajectory",
            tmp_path / "a.gif",
        )[0]
        == 0
    )
    assert Image.open(tmp_path / "a.png").mode == "L"
    assert frames(tmp_path / "a.gif") == 2
    assert call(capsys, "sample", run, "-n", 2, "--steps", 2, "--out", tmp_path / "folder")[0] == 0
    assert len(list((tmp_path / "folder").glob("*.png"))) == 2


def test_samples_do_not_depend_on_their_count_and_repeat(capsys, run, tmp_path):
    for n, name in ((3, "a"), (8, "b"), (8, "c")):
        assert call(capsys, "sample", run, "-n", n, "--steps", 3, "--out", tmp_path / f"{name}.npz")[0] == 0
    few, many = (np.load(tmp_path / f"{name}.npz")["images"].astype(int) for name in "ab")
    assert np.abs(few - many[:3]).max() <= 1
    assert (tmp_path / "b.npz").read_bytes() == (tmp_path / "c.npz").read_bytes()
    options = [
        "--sampler",
        "ancestral",
        "--variance",
        "upper",
        "--grid",
        "quadratic",
        "--steps",
        3,
        "--seed",
        4,
    ]
    assert call(capsys, "sample", run, "-n", 2, *options, "--out", tmp_path / "d.npz")[0] == 0


def test_evaluate_given_samples(capsys, tiny_run, tmp_path, monkeypatch):
    quick = functools.partial(train_classifier, passes=(2, 2))
    monkeypatch.setattr("scorefield.evaluation.catalogue.train_classifier", quick)
    run = tiny_run.copy(tmp_path / "run", "digits", steps=3)
    assert call(capsys, "sample", run, "-n", 30, "--steps", 2, "--out", tmp_path / "a.npz")[0] == 0
    status, out, err = call(capsys, "evaluate", run, "--samples", tmp_path / "a.npz", "-n", 15, "--json")
    assert status == 0, err
    frechet = json.loads(out)["figures"]["frechet"]
    assert len(frechet["sets"]) == 2
    assert frechet["value"] > frechet["heldout"] > 0
    assert frechet["stamp"]["features"]["extractor"].startswith("classifier")


def test_resume_continues_and_refuses_a_second_run(capsys, tmp_path):
    arguments = ["train", "digits", "--run", tmp_path / "r", *TINY]
    assert call(capsys, *arguments, "--steps", 2)[0] == 0
    status, _, err = call(capsys, *arguments, "--steps", 2)
    assert status == 1
    assert "already holds a run" in err
    assert (
        call(capsys, "train", "digits", "--run", tmp_path / "r", "--steps", 4, "--resume", "--device", "cpu")[
            0
        ]
        == 0
    )
    assert call(capsys, "train", "digits", "--run", tmp_path / "whole", *TINY, "--steps", 4)[0] == 0
    assert (tmp_path / "r" / "model.safetensors").read_bytes() == (
        tmp_path / "whole" / "model.safetensors"
    ).read_bytes()


def test_train_on_a_folder_of_mixed_images(capsys, tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for i, mode in enumerate(["L", "RGB", "RGBA", "P"] * 3):
        picture = Image.fromarray(rng.integers(0, 256, (40 + i, 50, 3), dtype=np.uint8)).convert(mode)
        picture.save(tmp_path / "images" / f"{i}.png")
    Image.fromarray(rng.integers(0, 256, (64, 40, 3), dtype=np.uint8)).save(tmp_path / "images" / "x.jpg")
    (tmp_path / "images" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    small = tiny(
        "images", "net.channel_mult=[1,1]", "net.attention=[2]", "data.size=16", "training.batch_size=4"
    )
    arguments = ["train", "images", "--data", tmp_path / "images", "--steps", 2, *small]
    status, _, err = call(capsys, *arguments, "--run", tmp_path / "r")
    assert status == 0, err
    assert "broken.png" in err
    assert "skipped 1 broken" in err
    status, _, err = call(capsys, *arguments, "--run", tmp_path / "s", "--strict")
    assert status == 1
    assert "broken.png" in err
    assert not (tmp_path / "s").exists()


def test_a_resumed_run_stays_what_it_is(capsys, run, tmp_path):
    go_on = ["train", "digits", "--run", run, "--resume", "--device", "cpu"]
    before = (run / "config.toml").read_bytes(), (run / "model.safetensors").read_bytes()
    np.savez(tmp_path / "other.npz", images=np.zeros((40, 8, 8), dtype=np.uint8), labels=np.arange(40) % 10)
    for change, message in [
        (["--set", "model.parametrization=eps"], "keeps its model"),
        (["--set", "sampling.steps=5"], "keeps its model"),
        (["--data", tmp_path / "other.npz"], "trained on other data"),
        (["--seed", 5], "same seed"),
    ]:
        status, _, err = call(capsys, *go_on, "--steps", 9, *change)
        assert status == 1
        assert message in err
    assert ((run / "config.toml").read_bytes(), (run / "model.safetensors").read_bytes()) == before


def test_init_starts_from_another_runs_weights(capsys, run, tmp_path):
    arguments = [
        "train",
        "digits",
        "--steps",
        1,
        *TINY,
        "--init",
        run,
        "--set",
        "training.lr=1e-30",
        "--run",
        tmp_path / "r",
    ]
    assert call(capsys, *arguments)[0] == 0
    assert (tmp_path / "r" / "model.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    status, _, err = call(capsys, "train", "digits", "--steps", 1, "--init", run, "--run", tmp_path / "s")
    assert status == 1
    assert "belong to another network" in err


def test_sampling_of_a_run_can_be_changed(capsys, run, tmp_path):
    stairs = ["--sampler", "langevin", "--set", "levels=2", "--set", "repeats=2", "--json"]
    status, out, err = call(capsys, "sample", run, "-n", 2, *stairs, "--out", tmp_path / "a.npz")
    assert status == 0, err
    assert json.loads(out)["calls"] == 4
    status, out, _ = call(
        capsys,
        "sample",
        run,
        "-n",
        2,
        "--sampler",
        "heun",
        "--steps",
        3,
        "--out",
        tmp_path / "b.npz",
        "--json",
    )
    assert json.loads(out)["sampler"] == "Heun()"
    assert (
        json.loads(out)["calls"] == 4
    )  # of three steps the first starts far above σ/α = 80, and the last goes to 0
    status, out, _ = call(
        capsys, "sample", run, "-n", 2, "--eta", 0.5, "--steps", 3, "--out", tmp_path / "c.npz", "--json"
    )
    assert json.loads(out)["sampler"] == "DDIM(eta=0.5)"


MISTAKES = [
    (["sample", "{run}", "--grid", "10,,20"], "counts of sections"),
    (["sample", "{run}", "--grid", "10,20", "--steps", "5"], "remove steps (--steps)"),
    (["sample", "{run}", "--eta", "1", "--variance", "upper"], "remove one of them"),
    (["sample", "{run}", "--set", "stepz=5"], "did you mean 'steps'"),
    (["sample", "{run}", "--device", "cpu:foo"], "cpu, cuda, mps"),
    (["sample", "{run}", "--trajectory", "{tmp}/x.mp4"], ".gif"),
    (["sample", "{run}", "--trajectory", "{tmp}/no/x.gif"], "no folder"),
    (["train", "digits", "--set", "sampling.steps=2000"], "from 1 to 1000"),
    (["train", "digits", "--set", "sampling.sampler={{eta=1.0}}"], "sampling.sampler.kind"),
    (["train", "digits", "--set", 'training.trackers=["foo"]'], "foo"),
    (["train", "digits", "--minutes", "nan"], "--minutes must be positive"),
    (["train", "digits", "--set", f"data.split_seed={2**64}"], "data.split_seed"),
    (["plan", "digits", "--flops", "inf"], "flops must be positive and finite"),
    (["plan", "digits", "--memory", "nan"], "memory must be positive and finite"),
    (["train", "toy-moons", "--set", "training.flip=true"], "flip mirrors images"),
    (["train", "toy-moons", "--set", "training.dequantize=true"], "dequantize needs"),
    (["train", "digit"], "did you mean 'digits'"),
    (["train", "digits", "--set", "net.chanels=3"], "did you mean 'channels'"),
    (["train", "digits", "--set", "training.lr=fast"], "training.lr"),
    (["train", "digits", "--set", "nonsense"], "a.b=c"),
    (["train", "digits", "--set", "trainin.lr=1"], "did you mean 'training'"),
    (["train", "digits", "--steps", "0"], "--steps"),
    (["train", "digits", "--minutes", "0"], "--minutes"),
    (["train", "digits", "--data", "{tmp}/none"], "no such file or folder"),
    (["train", "images"], "--data"),
    (["train", "images", "--data", "{tmp}"], "no"),
    (["train", "digits", "--resume"], "--run"),
    (["train", "digits", "--resume", "--run", "{tmp}/none"], "not a run"),
    (["train", "mnist", "--resume", "--run", "{run}"], "not of mnist"),
    (["train", "digits", "--device", "gpu"], "cpu, cuda, mps"),
    (["sample", "{tmp}/none"], "not a run"),
    (["sample", "{run}", "--label", "11"], "0 … 9"),
    (["sample", "{run}", "--label", "seven"], "no class 'seven'"),
    (["sample", "{run}", "-n", "0"], "-n"),
    (["sample", "{run}", "--steps", "2000"], "from 1 to 1000"),
    (["sample", "{run}", "--eta", "2"], "of at most 1"),
    (["sample", "{run}", "--sampler", "magic"], "ancestral, ddim"),
    (["sample", "{run}", "--out", "{tmp}/x.jpg"], "written as"),
    (["sample", "{run}", "--sampler", "ancestral", "--variance", "learned"], "variance head"),
    (["evaluate", "{run}", "--metrics", "fidd"], "got 'fidd'"),
    (["info", "{tmp}"], "is not a run"),
    (["nonsense"], "No such command"),
]


@pytest.mark.parametrize(
    ("arguments", "message"), MISTAKES, ids=[" ".join(arguments) for arguments, _ in MISTAKES]
)
def test_mistakes_get_one_line_and_a_status(capsys, run, tmp_path, arguments, message):
    status, out, err = call(capsys, *(text.format(tmp=tmp_path, run=run) for text in arguments))
    assert status not in (0, None)
    assert message in err
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in err + out
    assert len(line) < 500


def in_a_process(words, number, said):
    """Begin a command as a user does; `number` is a signal that this process may ignore, and the command shall hear."""
    return subprocess.Popen(
        [sys.executable, "-m", "scorefield", *words],
        stderr=said,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    ).pid


def in_a_fork(words, number, said):
    """As `in_a_process`, without the seconds that imports take."""
    import_for_forks()
    pid = fork()
    if pid == 0:
        status = 99
        try:
            os.dup2(said.fileno(), 2)
            sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
            signal.signal(number, signal.SIG_DFL)
            fused.switch(False)  # it has threads of its own, which a fork has none of
            scorefield.cli.main(words)
        except SystemExit as stop:
            status = int(stop.code or 0)
        finally:
            os._exit(status)
    return pid


@pytest.mark.parametrize(
    ("begin", "number", "status"),
    [
        (in_a_process, signal.SIGINT, 130),
        (in_a_fork, signal.SIGTERM, 75),
        (in_a_fork, signal.SIGUSR1, 75),
        (in_a_fork, signal.SIGHUP, 75),
    ],
)
def test_signals_save_and_say_how_to_go_on(tmp_path, begin, number, status):
    run = tmp_path / "a run"
    with (tmp_path / "said").open("w+b") as said:
        pid = begin(["train", "digits", "--run", str(run), "--steps", "100000", *TINY], number, said)
        began, ended, sent = time.monotonic(), 0, False
        while not ended and time.monotonic() < began + 300:
            ended, waited = os.waitpid(pid, os.WNOHANG)
            if not ended and not sent and (run / "metrics.jsonl").exists():
                os.kill(pid, number)
                sent = True
            time.sleep(0.02)
        if not ended:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        said.seek(0)
        err = said.read().decode()
    assert ended, err
    assert os.waitstatus_to_exitcode(waited) == status, err
    assert f"resume with: scorefield train digits --run '{run}' --resume --device cpu" in err
    assert "Traceback" not in err
    first, last = sorted((run / "checkpoints").iterdir())
    assert first.name == "step-00000000"
    assert (last / "manifest.json").exists()
    assert not (run / ".lock").exists()


def test_data_that_have_moved_are_where_they_were_said_to_be_last(capsys, tmp_path):
    for k in range(20):
        path = tmp_path / "first" / "ab"[k % 2] / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(k).integers(0, 256, (8, 8), dtype=np.uint8)).save(path)
    shape = ["--set", "data.size=8", "--set", "data.channels=1"]
    status, _, err = call(
        capsys,
        "train",
        "digits",
        "--data",
        tmp_path / "first",
        "--run",
        tmp_path / "r",
        "--steps",
        2,
        *shape,
        *TINY,
    )
    assert status == 0, err
    (tmp_path / "first").rename(tmp_path / "second")
    again = ["train", "digits", "--run", tmp_path / "r", "--resume", "--device", "cpu"]
    assert call(capsys, *again, "--steps", 4, "--data", tmp_path / "second")[0] == 0
    assert call(capsys, *again, "--steps", 6)[0] == 0
    status, _, err = call(capsys, *again, "--steps", 3)
    assert status == 1
    assert "has done 6 steps" in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_signals_before_the_first_step(capsys, tmp_path, monkeypatch, number):
    monkeypatch.setattr(signal, "getsignal", lambda number: signal.SIG_DFL)  # this process may ignore it
    monkeypatch.setattr(
        "scorefield.runs.open_training.open_training_data", lambda options: os.kill(os.getpid(), number)
    )
    status, _, err = call(capsys, "train", "digits", "--run", tmp_path / "r", *TINY)
    assert status == 75
    assert "stopped before the first step" in err


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried")],
)
def test_too_little_memory_is_said(capsys, tmp_path, monkeypatch, error):
    def fail(options):
        raise error

    monkeypatch.setattr("scorefield.runs.open_training.open_training_data", fail)
    status, _, err = call(capsys, "train", "digits", "--run", tmp_path / "r", *TINY)
    assert status == 1
    assert "not enough memory" in err
    assert "training.accumulation" in err
