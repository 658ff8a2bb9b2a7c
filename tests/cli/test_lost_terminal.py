"""A log that cannot be written, and a terminal that is closed: saying something never ends the work, and SIGHUP saves."""

import os
import pty
import signal
import subprocess
import sys
import time

import pytest
import torch
from support import call, fork, import_for_forks

import scorefield.cli
from scorefield.nets import fused
from scorefield.training import Trainer, checkpoint

TRAIN = [
    *("train", "toy-moons", "--device", "cpu"),
    *("--set", "net.hidden=16", "--set", "training.batch_size=8", "--set", "training.log_every=1"),
]


@pytest.fixture(scope="module", autouse=True)
def imported():
    import_for_forks()


def ended(pid, seconds=100):
    """The exit status of a child; None where it had to be killed."""
    began = time.monotonic()
    while time.monotonic() < began + seconds:
        done, waited = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(waited)
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def command(*words):
    """The command in this fork, which ends with its status."""
    status = 99
    try:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        torch.set_num_threads(1)
        fused.switch(False)
        scorefield.cli.main([*TRAIN, *words])
    except SystemExit as stop:
        status = int(stop.code or 0)
    finally:
        os._exit(status)


@pytest.mark.parametrize("closed", [(), (2,), (0, 1, 2)])
@pytest.mark.parametrize(("lr", "expected"), [("1e-3", 0), ("1e39", 1)])
def test_a_log_that_cannot_be_written_ends_nothing(tmp_path, closed, lr, expected):
    """2>/dev/full, 2>&- and all three closed; no file of the run has the number of a closed one."""
    pid = fork()
    if pid == 0:
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, 2)
        sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
        for number in closed:
            os.close(number)
        if closed:
            sys.stderr = None
        command(
            "--run",
            str(tmp_path / "r"),
            "--steps",
            "3",
            "--set",
            f"training.lr={lr}",
            "--set",
            "training.warmup=0",
        )
    assert ended(pid) == expected
    assert checkpoint.newest(tmp_path / "r" / "checkpoints").step == (0 if expected else 3)


@pytest.mark.parametrize("redirected", ["2>/dev/full", "2>&-"])
def test_the_exit_status_is_that_of_the_command(redirected):
    """Not 120, which is the interpreter's where its last flush fails."""
    line = f'"{sys.executable}" -m scorefield nothing {redirected}'
    done = subprocess.run(line, shell=True, capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (2, b"", b"")


def test_a_pipe_that_is_closed_ends_nothing(tmp_path, monkeypatch):
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w", buffering=1) as broken:
        monkeypatch.setattr(sys, "stderr", broken)
        monkeypatch.setattr("scorefield.cli.console._SECONDS_BETWEEN_LINES", -1.0)
        with pytest.raises(SystemExit) as stop:
            scorefield.cli.main([*TRAIN, "--run", str(tmp_path / "r"), "--steps", "3"])
        assert not stop.value.code
        monkeypatch.undo()
        with pytest.raises(BrokenPipeError):
            broken.flush()
        os.dup2(os.open(os.devnull, os.O_WRONLY), writing)
    assert checkpoint.newest(tmp_path / "r" / "checkpoints").step == 3


def test_a_terminal_that_is_closed_ends_the_training_saved(tmp_path):
    """Its bar cannot be drawn any more, and the system sends SIGHUP."""
    run = tmp_path / "r"
    pid, terminal = pty.fork()
    if pid == 0:
        sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
        command("--run", str(run), "--steps", "1000000")
    began, seen = time.monotonic(), b""
    while not (run / "metrics.jsonl").exists() and time.monotonic() < began + 100:
        seen += os.read(terminal, 65_536)
    os.close(terminal)
    status = ended(pid)
    assert status == 75, seen
    assert b"training" in seen
    assert checkpoint.newest(run / "checkpoints").step > 0
    assert (run / "model.safetensors").exists()


@pytest.fixture
def sending(monkeypatch):
    """sending(number, times): the command receives a signal while it trains, and ignores it or not beforehand."""
    numbers = (signal.SIGINT, signal.SIGHUP, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}

    def prepare(number, handler, times=1):
        signal.signal(number, handler)
        agree = Trainer.agree

        def agree_after(trainer, vote):
            if trainer.step == 2:
                for _ in range(times):
                    os.kill(os.getpid(), number)
            return agree(trainer, vote)

        monkeypatch.setattr(Trainer, "agree", agree_after)

    yield prepare
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_was_ignored_at_the_start_stays_ignored(capsys, tmp_path, sending, number):
    """As nohup asks for, and a script for what it starts in the background."""
    sending(number, signal.SIG_IGN)
    status, _, err = call(capsys, *TRAIN, "--run", tmp_path / "r", "--steps", 4)
    assert status == 0, err
    assert "done: 4 steps" in err
    assert signal.getsignal(number) is signal.SIG_IGN


def test_a_second_hangup_does_not_interrupt_the_saving(capsys, tmp_path, sending):
    """The shell and the system both send one when a terminal is closed."""
    sending(signal.SIGHUP, signal.SIG_DFL, times=2)
    status, _, err = call(capsys, *TRAIN, "--run", tmp_path / "r", "--steps", 9)
    assert status == 75, err
    assert "and saved; resume with" in err
    assert checkpoint.newest(tmp_path / "r" / "checkpoints").step in (2, 3)
