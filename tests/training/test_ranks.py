"""Processes of one job that do not fit together: all end with one sentence before the first step; whom one waits
for is said; a lost one is a sentence too.
"""

import faulthandler
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from support import call, fork, import_for_forks

import scorefield as sf
import scorefield.cli
from scorefield.nets import fused
from scorefield.runtime import distributed
from scorefield.training import Trainer

LIMIT = 100  # seconds, after which a process that hangs is killed
TRAIN = ("train", "toy-moons", "--device", "cpu", "--set", "net.hidden=16", "--set", "training.batch_size=8")
EARLIER = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(scope="module", autouse=True)
def imported():
    import_for_forks()


class Ended(NamedTuple):
    """How a process ended: status None where it was killed at last, and what it said."""

    status: int | None
    said: str


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Job:
    """Forked processes with a rank each, which are killed when the block ends."""

    def __init__(self, folder: Path, port: int | None = None) -> None:
        self.folder, self.port = folder, port or free_port()
        self.pids: dict[int, int] = {}

    def __enter__(self) -> "Job":
        return self

    def __exit__(self, *_: object) -> None:
        for rank in list(self.pids):
            os.kill(self.pids[rank], signal.SIGKILL)
            self.end(rank)

    def start(self, rank: int, work: Callable[[], object]) -> None:
        pid = fork()
        if pid == 0:
            status = 99
            try:
                self._be(rank)
                work()
                status = 0
            except SystemExit as stop:
                status = int(stop.code or 0)
            finally:
                sys.stderr.flush()
                os._exit(status)
        self.pids[rank] = pid

    def _be(self, rank: int) -> None:
        """This process is a new one of that rank: neither signals, threads nor states of the tests' own."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        fused.switch(False)
        for state in (AcceleratorState, GradientState, PartialState):
            state._reset_state()
        place = {
            "WORLD_SIZE": 2,
            "LOCAL_WORLD_SIZE": 2,
            "RANK": rank,
            "LOCAL_RANK": rank,
            "MASTER_PORT": self.port,
        }
        os.environ.update({"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in place.items()}})
        sys.stderr = sys.stdout = (self.folder / f"said-{rank}").open("w", buffering=1)
        faulthandler.register(signal.SIGUSR1, file=sys.stderr)

    def said(self, rank: int) -> str:
        path = self.folder / f"said-{rank}"
        return path.read_text() if path.exists() else ""

    def until(self, rank: int, text: str) -> None:
        """Wait until it has said that."""
        began = time.monotonic()
        while text not in self.said(rank) and time.monotonic() < began + LIMIT:
            time.sleep(0.05)
        assert text in self.said(rank)

    def end(self, rank: int) -> Ended:
        began, status = time.monotonic(), None
        pid = self.pids.pop(rank)
        while status is None and time.monotonic() < began + LIMIT:
            done, waited = os.waitpid(pid, os.WNOHANG)
            status = os.waitstatus_to_exitcode(waited) if done else None
            time.sleep(0.02)
        if status is None:  # where it hangs is part of what it said
            os.kill(pid, signal.SIGUSR1)
            time.sleep(1)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        return Ended(status, self.said(rank))


def command(*words: object) -> Callable[[], None]:
    return lambda: scorefield.cli.main([str(word) for word in words])


def both(folder: Path, first: Callable[[], object], second: Callable[[], object]) -> list[Ended]:
    with Job(folder) as job:
        job.start(0, first)
        job.start(1, second)
        return [job.end(0), job.end(1)]


def test_two_processes_of_one_command_train_together(tmp_path):
    """What the other tests of this file need: there are two."""
    run, seen = tmp_path / "r", []

    def train() -> None:
        original = Trainer.close

        def close(trainer: Trainer) -> None:
            (tmp_path / f"world-{trainer._processes.rank}").write_text(str(trainer._processes.world))
            original(trainer)

        Trainer.close = close  # type: ignore[assignment,method-assign]
        clock = ["--set", "training.checkpoint_minutes=1e-9", "--set", "training.keep=9"]
        command(*TRAIN, "--run", run, "--steps", 3, *clock)()

    seen = both(tmp_path, train, train)
    assert [one.status for one in seen] == [0, 0], seen
    assert [(tmp_path / f"world-{rank}").read_text() for rank in (0, 1)] == ["2", "2"]
    assert seen[0].said.count("done: 3 steps") == 1
    assert seen[1].said == ""
    names = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert [int(name.removeprefix("step-")) for name in names] == [0, 1, 2, 3]  # by the clocks of both


def test_a_closed_trainer_has_left_no_thread_of_the_connection(tmp_path):
    """Otherwise they end when the trainer is freed, where a process has hung."""

    def train() -> None:
        objective = sf.objectives.Simple(sf.Denoiser(sf.nets.MLP(dim=2), sf.process.cosine(10)))
        trainer = sf.train(objective, sf.data.toy("moons", n=64), steps=2, batch_size=8, device="cpu")
        for _ in trainer:
            pass
        while_open = _threads()
        trainer.close()
        print(f"{while_open} | {_threads()}")

    for ended in both(tmp_path, train, train):
        while_open, left = ended.said.split("|")
        assert "gloo" in while_open, ended.said
        assert (ended.status, left.strip()) == (0, "[]"), ended.said


def _threads() -> list[str]:
    """Names of this process's threads that belong to torch's connections."""
    names = [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
    return sorted(name for name in names if "gloo" in name or "tcpstore" in name)


def test_the_slower_of_two_decides_how_many_steps_fit(tmp_path):
    """Each measures with a clock of its own, here one that goes on by so many seconds when it is read."""

    def train(seconds: float) -> None:
        now = 0.0

        def clock() -> float:
            nonlocal now
            now += seconds
            return now

        scorefield.training.speed.monotonic = scorefield.runs.time_limit.monotonic = clock  # type: ignore[attr-defined]
        command(*TRAIN, "--run", tmp_path / "r", "--minutes", 3)()

    quick, slow = both(tmp_path, lambda: train(0.125), lambda: train(1.0))
    assert (quick.status, slow.status) == (0, 0), quick.said + slow.said
    assert "8 examples/s: " in quick.said
    (steps,) = re.findall(r"done: (\d+) steps", quick.said)
    assert 50 <= int(steps) < 180


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (["--steps", 4], "training.steps than process 0 (4, not 3)"),
        (["--seed", 1], "training.seed than process 0 (1, not 0)"),
        (["--set", "net.layers=1"], "net.layers than process 0 (1, not 4)"),
        (["--set", "data.holdout=0.3"], "data.holdout than process 0"),
        (["--data", "toy:mixture"], "data.fingerprint than process 0"),
        (["--resume"], "resume than process 0 (true, not false)"),
    ],
)
def test_processes_with_different_commands_are_refused(tmp_path, tiny_run, other, named):
    resumed = tiny_run.copy(tmp_path / "r", "toy-moons") if "--resume" in other else tmp_path / "r"
    mine = [*TRAIN, "--run", tmp_path / "new", "--steps", 3]
    theirs = [*TRAIN[:4], "--run", resumed, *other] if "--resume" in other else [*mine, *other]
    for ended in both(tmp_path, command(*mine), command(*theirs)):
        assert ended.status == 1, ended.said
        assert f"error: process 1 has another {named}" in ended.said
        assert "Traceback" not in ended.said
    assert not (tmp_path / "new").exists()


def test_a_process_without_its_data_ends_all(tmp_path):
    np.savez(tmp_path / "x.npz", images=np.zeros((20, 8, 8), np.uint8))
    small = ["train", "digits", "--device", "cpu", "--steps", 2, "--run", tmp_path / "r"]
    ended = both(
        tmp_path,
        command(*small, "--data", tmp_path / "x.npz"),
        command(*small, "--data", tmp_path / "missing.npz"),
    )
    assert [one.status for one in ended] == [1, 1]
    assert all("missing.npz" in one.said and "Traceback" not in one.said for one in ended)
    assert not (tmp_path / "r").exists()


def objective(weighting: str) -> sf.objectives.Simple:
    torch.manual_seed(0)
    process = sf.process.cosine(20)
    return sf.objectives.Simple(
        sf.Denoiser(sf.nets.MLP(2, hidden=16, layers=1), process, "v"), weighting=weighting
    )


def test_the_held_out_loss_of_two_is_that_of_one(tmp_path):
    """Of 41 examples, which cannot be shared equally, of 40."""
    heldout = sf.data.tensor(torch.randn(41, 2, generator=torch.Generator().manual_seed(1)))
    points = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))

    def script() -> None:
        world = os.environ.get("WORLD_SIZE", "1")
        shown = heldout if world == "2" else heldout.subset(torch.linspace(0, 40, 40).round().long())
        options: dict[str, Any] = {
            "steps": 1,
            "batch_size": 64,
            "device": "cpu",
            "precision": "fp32",
            "clip": 0,
        }
        run = tmp_path / f"run-{world}"
        trainer = sf.train(objective("v"), points, run=run, heldout=shown, **options)
        list(trainer)
        trainer.close()

    for ended in both(tmp_path, script, script):
        assert ended.status == 0, ended.said
    script()
    one, two = (
        json.loads((tmp_path / f"run-{world}" / "metrics.jsonl").read_text())["heldout_loss"]
        for world in "12"
    )
    assert one == pytest.approx(two, rel=1e-4)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"weighting": "eps"}, "objective.weighting"),
        ({"seed": 1}, "data.fingerprint"),
        ({"steps": 9}, "training.steps"),
    ],
)
def test_trainers_of_different_scripts_are_refused(tmp_path, other, named):
    def script(weighting: str = "v", seed: int = 0, steps: int = 2) -> None:
        points = torch.randn(64, 2, generator=torch.Generator().manual_seed(seed))
        try:
            sf.train(objective(weighting), points, steps=steps, batch_size=8, device="cpu")
        except sf.InputError as error:
            print(error)
        else:
            sys.exit(98)

    for ended in both(tmp_path, script, lambda: script(**other)):
        assert ended.status == 0, ended.said
        assert f"process 1 has another {named}" in ended.said


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (
            ["sample", "{run}", "-n", 70, "--out", "{to}", "--seed", "{rank}"],
            "another seed than process 0 (1, not 0)",
        ),
        (["sample", "{run}", "-n", 70, "--out", "{to}-{rank}"], "another out than process 0"),
        (["sample", "{run}{rank}", "-n", 70, "--out", "{to}"], "is not a run"),
        (["evaluate", "{run}", "--metrics", "fd", "--steps", "{rank}2", "-n", 40], "another scale 0.grid"),
    ],
)
def test_processes_that_sample_differently_are_refused(tmp_path, tiny_run, words, named):
    runs = {}
    for rank in (0, 1):
        run = (
            tiny_run("digits")
            if "{run}{rank}" not in words
            else tiny_run.copy(tmp_path / "r0", "digits")
            if rank == 0
            else tmp_path / "r1"
        )
        text = [
            str(word).replace("{run}{rank}", str(run)).format(run=run, to=tmp_path / "to", rank=rank)
            for word in words
        ]
        runs[rank] = command(*text, "--device", "cpu")
    for ended in both(tmp_path, runs[0], runs[1]):
        assert ended.status == 1, ended.said
        assert named in ended.said
        assert "Traceback" not in ended.said
    assert not (tmp_path / "to").exists() or not list((tmp_path / "to").rglob("*.npy"))


def test_it_is_said_for_whom_one_waits_and_sigterm_ends_the_wait(tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "_SILENT", 0.2)
    for rank, said in (
        (0, "process 0 of 2 waits for process 1 (the start)"),
        (1, "process 1 of 2 cannot reach process 0 at 127.0.0.1:"),
    ):
        with Job(tmp_path) as job:
            job.start(rank, command(*TRAIN, "--run", tmp_path / "r"))
            job.until(rank, said)
            os.kill(job.pids[rank], signal.SIGTERM)
            assert job.end(rank).status == 75
    assert not (tmp_path / "r").exists()


def test_a_process_that_reads_its_data_slowly_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(distributed, "_SILENT", 0.2)

    def slowly() -> None:
        opened = scorefield.runs.open_training.open_training_data  # type: ignore[attr-defined]

        def later(options):
            time.sleep(2)
            return opened(options)

        scorefield.runs.open_training.open_training_data = later  # type: ignore[attr-defined]
        command(*TRAIN, "--run", tmp_path / "r", "--steps", 2)()

    first, second = both(tmp_path, command(*TRAIN, "--run", tmp_path / "r", "--steps", 2), slowly)
    assert (first.status, second.status) == (0, 0), first.said + second.said
    assert "process 0 of 2 waits for process 1 (opening the data)" in first.said


@pytest.mark.parametrize("lost", [0, 1])
def test_a_process_that_is_killed_is_a_sentence_of_the_other(tmp_path, lost):
    run = tmp_path / "r"
    with Job(tmp_path) as job:
        for rank in (0, 1):
            job.start(rank, command(*TRAIN, "--run", run, "--set", "training.log_every=1"))
        began = time.monotonic()
        while not (run / "metrics.jsonl").exists() and time.monotonic() < began + LIMIT:
            time.sleep(0.02)
        os.kill(job.pids[lost], signal.SIGKILL)
        ended = job.end(1 - lost)
    assert ended.status == 1
    assert "Traceback" not in ended.said
    (line,) = [line for line in ended.said.splitlines() if line.startswith("error: ")]
    assert "another process of this job has ended or cannot be reached" in line
    assert "restart all processes with --resume" in line


def test_a_busy_port_is_a_sentence(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with Job(tmp_path, taken.getsockname()[1]) as job:
            job.start(0, command(*TRAIN, "--run", tmp_path / "r"))
            ended = job.end(0)
    assert ended.status == 1
    assert f"error: process 0 cannot listen on port {job.port} of 127.0.0.1" in ended.said
    assert "MASTER_PORT" in ended.said
    assert "Traceback" not in ended.said


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is 2, but RANK"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE must be an integer, got 'two'"),
        ({"WORLD_SIZE": "2", "RANK": "2"}, "RANK must be one of 0 … 1"),
        ({"WORLD_SIZE": "2", "RANK": "-1"}, "RANK must be one of 0 … 1"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_PORT": "http"}, "MASTER_PORT must be a port"),
        ({"WORLD_SIZE": "2", "RANK": "0", "MASTER_PORT": "99999999"}, "MASTER_PORT must be a port"),
        ({"WORLD_SIZE": "2", "RANK": "1", "MASTER_PORT": "²"}, "MASTER_PORT must be a port"),
        ({"WORLD_SIZE": "2", "RANK": "1", "MASTER_PORT": "0"}, "MASTER_PORT must be a port"),
        ({"WORLD_SIZE": "9" * 20, "RANK": "0"}, "WORLD_SIZE must be at most 65,536"),
    ],
)
@pytest.mark.parametrize("words", [TRAIN, ("sample",)])
def test_an_environment_that_says_half_is_refused(
    capsys, monkeypatch, tmp_path, tiny_run, environment, said, words
):
    for name in EARLIER:
        monkeypatch.delenv(name, raising=False)
    run = ["--run", tmp_path / "r"] if words == TRAIN else [tiny_run("toy-moons"), "--device", "cpu"]
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    status, _, err = call(capsys, *words, *run)
    assert status == 1
    assert said in err


def test_a_rank_without_a_world_silences_nothing(capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("RANK", "1")
    status, _, err = call(capsys, *TRAIN, "--run", tmp_path / "r", "--steps", 2)
    assert status == 0
    assert "done: 2 steps" in err
    status, _, err = call(capsys, *TRAIN, "--run", tmp_path / "r", "--steps", 2)
    assert status == 1
    assert "already holds a run" in err


def test_one_process_needs_no_others(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    assert call(capsys, *TRAIN, "--run", tmp_path / "r", "--steps", 2)[0] == 0


def test_help_needs_no_environment():
    environment = {**os.environ, "WORLD_SIZE": "two"}
    done = subprocess.run(
        [sys.executable, "-m", "scorefield", "--help"], env=environment, capture_output=True, timeout=60
    )
    assert done.returncode == 0
