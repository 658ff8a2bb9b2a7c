"""Large jobs of `sample`: streamed to the disk, shared by processes, killed and gone on with to the same
bytes.
"""

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cli.killed_job import kill_at_random
from PIL import Image
from support import call, frames

import scorefield as sf
import scorefield.cli
from scorefield.evaluation import train_classifier
from scorefield.generation.sample_blocks import sample_blocks
from scorefield.runs.build import build_sampling, read_run
from scorefield.store import lock

JOB = Path(__file__).with_name("killed_job.py")
LAUNCH = [
    sys.executable,
    "-m",
    "torch.distributed.run",
    "--standalone",
    "--nproc_per_node",
    "2",
    "-m",
    "--",
    "scorefield",
]
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
STEPS = 2
FEW = ["--steps", str(STEPS), "--device", "cpu"]


@pytest.fixture(scope="module")
def run(tiny_run):
    """A conditional U-Net in bf16, where the sums of a block depend on its size."""
    return tiny_run("digits", "training.precision=bf16")


def sample(capsys, run, target, *options):
    status, _, err = call(capsys, "sample", run, *FEW, "--out", target, *options)
    assert status == 0, err
    return err


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pictures(folder):
    return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.glob("*.png"))])


def test_a_folder_holds_the_samples_of_the_seed(capsys, run, tmp_path):
    sample(capsys, run, tmp_path / "a", "-n", 70, "--label", "3,5,8", "--seed", 2)
    model = sf.load(run)
    model.autocast_dtype = torch.bfloat16
    options: dict[str, Any] = {
        "labels": [3, 5, 8],
        "wrap": build_sampling(read_run(run)[0].sampling, model).wrap,
    }
    grid, sampler = sf.grids.uniform(model.process, STEPS), sf.samplers.Ancestral()
    blocks = sample_blocks(model, sampler, grid, 70, 2, **options)
    expected = torch.cat([model.data.to_uint8(block.x) for block in blocks])[:, 0].numpy()
    assert np.array_equal(pictures(tmp_path / "a"), expected)
    sample(capsys, run, tmp_path / "a.npz", "-n", 70, "--label", "3,5,8", "--seed", 2)
    arrays = np.load(tmp_path / "a.npz")
    assert np.array_equal(arrays["images"], expected)
    lines = (tmp_path / "a" / "labels.csv").read_text().splitlines()[1:]
    assert (
        [int(line.split(",")[1]) for line in lines]
        == arrays["labels"].tolist()
        == [[3, 5, 8][i % 3] for i in range(70)]
    )
    assert {path.name for path in tmp_path.iterdir()} == {
        "a",
        "a.npz",
    }  # the blocks beside the archive are gone


def test_a_larger_n_adds_and_the_same_command_makes_nothing(capsys, run, tmp_path, monkeypatch):
    sample(capsys, run, tmp_path / "a", "-n", 20)
    assert "1 of 3 blocks are already in" not in sample(
        capsys, run, tmp_path / "a", "-n", 130
    )  # the first block was not complete
    sample(capsys, run, tmp_path / "b", "-n", 130)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    (tmp_path / "b" / "000100.png").unlink()
    assert "2 of 3 blocks are already in" in sample(capsys, run, tmp_path / "b", "-n", 130)
    with monkeypatch.context() as patch:
        patch.setattr("scorefield.generation.sample_blocks.trajectory", None)
        assert "a second" not in sample(capsys, run, tmp_path / "b", "-n", 130)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_an_animation_of_what_is_there_already(capsys, run, tmp_path):
    sample(capsys, run, tmp_path / "a", "-n", 100, "--trajectory", tmp_path / "a.gif")
    sample(capsys, run, tmp_path / "a", "-n", 100, "--trajectory", tmp_path / "b.gif")
    assert (tmp_path / "a.gif").read_bytes() == (tmp_path / "b.gif").read_bytes()
    assert frames(tmp_path / "a.gif") == STEPS


OTHERS = [
    (["--seed", 1], "seed: 0 on disk, 1 requested"),
    (["--label", "3"], "labels: "),
    (["--steps", 4], "grid: "),
    (["--eta", 0.5], "sampler: "),
    (["--set", "clip=true"], "clip: "),
]


@pytest.mark.parametrize(("options", "message"), OTHERS)
def test_other_samples_are_never_mixed_in(capsys, run, tmp_path, options, message):
    sample(capsys, run, tmp_path / "a", "-n", 3)
    before = files(tmp_path / "a")
    status, _, err = call(capsys, "sample", run, *FEW, "-n", 3, "--out", tmp_path / "a", *options)
    assert status == 1
    assert "already holds samples with other settings" in err
    assert message in err
    assert sum(line.startswith("error: ") for line in err.splitlines()) == 1
    assert files(tmp_path / "a") == before


def test_other_weights_are_other_samples(capsys, run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    sample(capsys, tmp_path / "run", tmp_path / "a", "-n", 3)
    weights = tmp_path / "run" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + bytes([weights.read_bytes()[-1] ^ 1]))
    status, _, err = call(capsys, "sample", tmp_path / "run", *FEW, "-n", 3, "--out", tmp_path / "a")
    assert (status, "weights: " in err) == (1, True)


def test_folders_of_other_files_are_refused(capsys, run, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine.png").write_text("")
    status, _, err = call(capsys, "sample", run, *FEW, "-n", 3, "--out", tmp_path / "a")
    assert status == 1
    assert "not an empty folder, and has no manifest.json of samples: choose another" in err


def test_evaluate_reads_the_folder(capsys, tiny_run, tmp_path):
    """With the labels that lie beside the pictures: the figures of the archive, how often classes agree among
    them.
    """
    run = tiny_run.copy(tmp_path / "run", "digits", "training.precision=bf16")
    common = ["--metrics", "fd", "-n", 70, "--sets", 1, "--device", "cpu", "--json"]
    found = []
    for target in (tmp_path / "a", tmp_path / "a.npz"):
        sample(capsys, run, target, "-n", 70, "--label", "7,3")
        with pytest.MonkeyPatch.context() as patch:
            quick = functools.partial(train_classifier, examples=1, passes=(0, 1))
            patch.setattr("scorefield.evaluation.catalogue.train_classifier", quick)
            status, out, err = call(capsys, "evaluate", run, "--samples", target, *common)
        assert status == 0, err
        figures = json.loads(out)["figures"]
        assert figures["frechet"]["stamp"]["sampling"]["samples"] == 70
        found.append({name: figure["value"] for name, figure in figures.items()})
    assert "agreement" in found[0]
    assert found[0] == found[1]


@pytest.mark.parametrize("target", ["a", "a.npz"])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_signals_keep_what_is_made(capsys, run, tmp_path, monkeypatch, request, target, number, status):
    """In the middle of the second block: its work is lost, the first block is not."""
    inherited = signal.getsignal(number)  # a shell starts what runs in the background with SIGINT ignored
    if number == signal.SIGINT:
        request.addfinalizer(functools.partial(signal.signal, number, inherited))
        signal.signal(number, signal.default_int_handler)
    handler = signal.getsignal(number)

    def on_step(self, bar, k, step):
        if k == 1:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr("scorefield.generation.job.SampleJob._on_step", on_step)
        found, _, err = call(capsys, "sample", run, *FEW, "-n", 130, "--out", tmp_path / target)
    assert found == status
    assert f"the samples computed so far are kept in {tmp_path / target}" in err
    assert "run the same command again to continue" in err
    assert signal.getsignal(number) == handler
    assert "1 of 3 blocks are already in" in sample(capsys, run, tmp_path / target, "-n", 130)
    sample(capsys, run, tmp_path / f"b-{target}", "-n", 130)
    first, second = tmp_path / target, tmp_path / f"b-{target}"
    assert files(first) == files(second) if first.is_dir() else first.read_bytes() == second.read_bytes()
    assert not list(tmp_path.glob("*.blocks"))


def test_a_failure_says_so_and_what_was_made_stays(capsys, run, tmp_path, monkeypatch):
    def diverge(self, bar, k, step):
        if k == 1:
            step.x.fill_(float("nan"))

    with monkeypatch.context() as patch:
        patch.setattr("scorefield.generation.job.SampleJob._on_step", diverge)
        status, _, err = call(capsys, "sample", run, *FEW, "-n", 130, "--out", tmp_path / "a")
    assert status == 1
    assert "has training diverged?" in err
    assert len(list((tmp_path / "a").glob("*.png"))) == 64


# The number of samples, and how many files there are shortly before the end.
SMALLER = (320, "folder", 320)
FOLDER, ARCHIVE = (640, "folder", 640), (640, "archive.npz", 10)


@pytest.mark.parametrize(
    ("kills", "n", "target", "last"),
    [
        (2, *SMALLER),
        pytest.param(10, *FOLDER, marks=pytest.mark.slow),
        pytest.param(10, *ARCHIVE, marks=pytest.mark.slow),
    ],
)
def test_killed_at_random_moments(run, tmp_path, kills, n, target, last):
    """Kills of the command at work, then to the end: the same files, byte for byte, as without a kill."""
    whole, broken = tmp_path / "whole" / target, tmp_path / "broken" / target
    whole.parent.mkdir(), broken.parent.mkdir()
    arguments = ["sample", run, *FEW, "-n", n]
    seed = 6
    job = [sys.executable, JOB, seed, kills, last, whole, broken, *arguments]
    done = subprocess.run(list(map(str, job)), capture_output=True, text=True, timeout=900, env=ONE_THREAD)
    assert done.returncode == 0, f"seed {seed}: {done.stderr[-2000:]}"
    assert len(json.loads(re.findall(r"killed with (\[.*\]) files", done.stdout)[0])) == kills
    assert files(broken.parent) == files(whole.parent), f"seed {seed}"


def two_processes(run, target, *options):
    launch = [*LAUNCH, "sample", run, *FEW, "--out", target, *options]
    return subprocess.Popen(
        list(map(str, launch)), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ONE_THREAD
    )


def test_two_processes_make_the_bytes_of_one(capsys, run, tmp_path):
    """They go on from where one process was, and are as many as they should be."""
    sample(capsys, run, tmp_path / "one", "-n", 200)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    for i in (5, 70, 150, 199):
        (tmp_path / "two" / f"{i:06d}.png").unlink()
    out, err = (job := two_processes(run, tmp_path / "two", "-n", "200", "--json")).communicate(timeout=900)
    assert job.returncode == 0, err[-2000:]
    assert ", bf16, 2 processes" in err
    assert json.loads(out)["n"] == 200  # said once
    assert files(tmp_path / "one") == files(tmp_path / "two")


@pytest.mark.slow
@pytest.mark.parametrize(("n", "target", "last"), [FOLDER, ARCHIVE])
def test_two_processes_killed_at_ten_random_moments(capsys, run, tmp_path, n, target, last):
    whole, broken = tmp_path / "whole" / target, tmp_path / "broken" / target
    whole.parent.mkdir(), broken.parent.mkdir()
    sample(capsys, run, whole, "-n", n)
    started = []

    def start():
        started.append(two_processes(run, broken, "-n", n))
        return started[-1].pid

    hits, status = kill_at_random(start, broken.parent, 10, last, seed=7)
    assert len(hits) == 10
    assert status == 0
    assert "2 processes" in started[-1].stderr.read()
    assert files(broken.parent) == files(whole.parent)


@pytest.mark.slow
def test_a_process_that_fails_ends_the_other(capsys, run, tmp_path):
    """The second one cannot write its first file; the first one does not wait for it."""
    sample(capsys, run, tmp_path / "a", "-n", 20)
    (tmp_path / "a" / "000064.png").mkdir()
    _, err = (job := two_processes(run, tmp_path / "a", "-n", "300")).communicate(timeout=120)
    assert job.returncode == 1
    assert "000064.png cannot be written" in err
    (tmp_path / "a" / "000064.png").rmdir()
    sample(capsys, run, tmp_path / "a", "-n", 300)
    sample(capsys, run, tmp_path / "b", "-n", 300)
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_points_that_are_not_finite_are_refused_whatever_their_number(capsys, tiny_run, tmp_path):
    toy = tiny_run("toy-moons")
    sampling = ["--steps", 40, "--set", "sampler.step=1e30", "-n", 10]
    status, _, err = call(capsys, "sample", toy, *sampling, "--out", tmp_path / "n.npz")
    assert status == 1
    assert "or the sampler's step is too large" in err
    assert not (tmp_path / "n.npz").exists()


def test_ctrl_c_is_said(capsys, run, monkeypatch, tmp_path):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("scorefield.generation.sampling.sample_blocks", interrupted)
    status, _, err = call(capsys, "sample", run, "-n", 4, "--out", tmp_path / "a.png")
    assert status == 130
    assert "error: interrupted" in err


HOLD = """
import importlib.util, sys, time
from pathlib import Path
spec = importlib.util.spec_from_file_location("lock", sys.argv[2])  # by its file: without torch it is quicker
lock = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lock)
Path(sys.argv[1]).mkdir()
lock.RunLock(Path(sys.argv[1]) / ".lock")
print("held", flush=True)
time.sleep(60)
"""


def test_one_job_at_a_time_makes_a_file(capsys, run, tmp_path, monkeypatch):
    """Of several that make the same file at once, the first one to end would delete the blocks that the others read."""
    target, blocks = tmp_path / "s.npz", tmp_path / "s.npz.blocks"
    command = [sys.executable, "-c", HOLD, str(blocks), lock.__file__]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with monkeypatch.context() as patch:
            patch.setattr("scorefield.nets.UNet.forward", None)
            status, _, err = call(capsys, "sample", run, *FEW, "-n", 70, "--out", target)
        assert status == 1
        assert f"{blocks} is being written by process {other.pid}" in err
        other.kill()
    sample(capsys, run, target, "-n", 70)
    assert os.listdir(tmp_path) == ["s.npz"]


def test_blocks_are_not_written_through_a_link(capsys, run, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "s.npz.blocks").symlink_to("elsewhere")
    status, _, err = call(capsys, "sample", run, *FEW, "-n", 70, "--out", tmp_path / "s.npz")
    assert status == 1
    assert "s.npz.blocks is a symbolic link" in err
    assert os.listdir(tmp_path / "elsewhere") == []
