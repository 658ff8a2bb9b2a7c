"""Faults of the machine: a full disk, a read-only folder, files cut off, two writers. One clear line each,
and the last good state.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest
import torch
from support import call

import scorefield as sf
from scorefield.store import lock
from scorefield.store.lock import RunLock
from scorefield.training import RunFolder, checkpoint

OPTIONS = {
    "batch_size": 8,
    "lr": 1e-3,
    "device": "cpu",
    "precision": "fp32",
    "checkpoint_every": 2,
    "log_every": 1,
}
PROCESS = sf.process.from_betas(sf.process.cosine_betas(20))
POINTS = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))
TRAIN = [
    "train",
    "toy-moons",
    "--device",
    "cpu",
    "--set",
    "training.batch_size=8",
    "--set",
    "training.checkpoint_every=2",
]


def objective():
    torch.manual_seed(0)
    return sf.objectives.Simple(sf.Denoiser(sf.nets.MLP(2, hidden=16, layers=1), PROCESS, "v"))


def train(run, steps, **options):
    return sf.train(objective(), POINTS, run=run, steps=steps, **{**OPTIONS, **options})


def weights(run):
    return (run / "model.safetensors").read_bytes()


def one_line(err):
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in err
    return line


@pytest.fixture
def whole(tmp_path):
    """The weights of 8 steps without a fault, of the command."""

    def make(capsys):
        assert call(capsys, *TRAIN, "--run", tmp_path / "whole", "--steps", 8)[0] == 0
        return weights(tmp_path / "whole")

    return make


@contextmanager
def tiny_disk(tmp_path):
    """At most 40 kB a file, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def mounted(*arguments, at):
    """A mount for as long as the block runs, where this machine lets us make one."""
    at.mkdir(exist_ok=True)
    if (
        shutil.which("mount") is None
        or subprocess.run(["mount", *arguments, str(at)], capture_output=True).returncode
    ):
        pytest.skip("this machine lets no test mount a file system")
    try:
        yield at
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


def test_a_disk_that_fills_up(capsys, tmp_path, whole):
    """The checkpoint cannot be written: one line, and the run goes on from the last one once there is room."""
    expected = whole(capsys)
    run = tmp_path / "r"
    assert call(capsys, *TRAIN, "--run", run, "--steps", 4)[0] == 0
    before = weights(run)
    go_on = ["train", "toy-moons", "--run", run, "--resume", "--steps", 8, "--device", "cpu"]
    with tiny_disk(tmp_path):
        status, _, err = call(capsys, *go_on)
    assert status == 1
    line = one_line(err)
    assert "cannot be written" in line
    assert weights(run) == before
    assert checkpoint.newest(run / "checkpoints").state["step"] == 4
    assert call(capsys, *go_on)[0] == 0
    assert weights(run) == expected


def test_a_small_file_system(capsys, tmp_path, whole):
    """As above, on a real file system that is full."""
    expected = whole(capsys)
    with mounted("-t", "tmpfs", "-o", "size=8m", "tmpfs", at=tmp_path / "small") as small:
        run, filler = small / "r", small / "filler"
        assert call(capsys, *TRAIN, "--run", run, "--steps", 4)[0] == 0
        filler.write_bytes(bytes(shutil.disk_usage(small).free))
        go_on = ["train", "toy-moons", "--run", run, "--resume", "--steps", 8, "--device", "cpu"]
        status, _, err = call(capsys, *go_on)
        assert status == 1
        assert "no space left" in one_line(err).lower()
        assert checkpoint.newest(run / "checkpoints").state["step"] == 4
        filler.unlink()
        assert call(capsys, *go_on)[0] == 0
        assert weights(run) == expected


def test_a_read_only_folder(capsys, tmp_path):
    """Root may write in spite of permissions, so the file system itself is read-only."""
    disk = tmp_path / "disk"
    disk.mkdir()
    assert call(capsys, *TRAIN, "--run", disk / "r", "--steps", 2)[0] == 0
    before = {path: path.read_bytes() for path in disk.rglob("*") if path.is_file()}
    with mounted("--bind", str(disk), at=tmp_path / "view") as view:
        subprocess.run(["mount", "-o", "remount,ro,bind", str(view)], check=True)
        for options in (["--run", view / "new"], ["--run", view / "r", "--resume", "--steps", 8]):
            status, _, err = call(capsys, "train", "toy-moons", "--device", "cpu", *options)
            assert status == 1
            assert "read-only file system" in one_line(err).lower()
    assert {path: path.read_bytes() for path in disk.rglob("*") if path.is_file()} == before


def test_checkpoints_cut_off_at_every_tenth_of_their_length(tmp_path):
    list(train(tmp_path / "r", 4))
    last = checkpoint.place(tmp_path / "r" / "checkpoints", 4)
    for path in sorted(last.iterdir()):
        content = path.read_bytes()
        for tenth in range(10):
            path.write_bytes(content[: len(content) * tenth // 10])
            found = checkpoint.newest(last.parent)
            assert found.state["step"] == 2, (path.name, tenth)
            assert found.skipped[0].startswith("step-00000004 (")
        path.write_bytes(content)
    assert checkpoint.newest(last.parent).state["step"] == 4
    (last / "manifest.json").write_text("{}")  # whole, but it vouches for nothing
    assert checkpoint.newest(last.parent).state["step"] == 2
    (last / "manifest.json").unlink()
    assert checkpoint.newest(last.parent).state["step"] == 2


@pytest.mark.parametrize(
    ("group", "change", "said"),
    [
        ("ema", lambda value: value.flatten()[:1], "ema: .* of another shape"),
        ("ema", lambda value: value != 0, "ema: .* of another type .*bool instead of float32"),
        ("weights", lambda value: value[None], "weights: .* of another shape"),
        ("weights", lambda value: value.to(torch.complex64), "weights: .* of another type"),
        ("optimizer", lambda value: value.flatten()[:1] if value.ndim else value, "optimizer's .* has shape"),
    ],
)
def test_a_checkpoint_whose_tensors_do_not_fit_is_refused(tmp_path, group, change, said):
    """Copying them would cast and repeat them, and training would go on."""
    list(train(tmp_path / "r", 2))
    found = checkpoint.newest(tmp_path / "r" / "checkpoints")
    groups = {**found.groups, group: {name: change(value) for name, value in found.groups[group].items()}}
    checkpoint.save(tmp_path / "r" / "checkpoints", 2, groups, found.state)
    with pytest.raises(sf.InputError, match=said) as error:
        list(train(tmp_path / "r", 3, resume=True))
    assert "\n" not in str(error.value)
    assert "step-00000002" in str(error.value)
    assert len(str(error.value)) < 800


def test_weights_that_were_not_written_before_a_kill_are_written_on_resume(tmp_path):
    list(train(tmp_path / "r", 4))
    expected = weights(tmp_path / "r")
    (tmp_path / "r" / "model.safetensors").unlink()
    assert list(train(tmp_path / "r", 4, resume=True)) == []
    assert weights(tmp_path / "r") == expected


def test_a_run_killed_while_it_was_made_can_be_made_again(tmp_path):
    list(train(tmp_path / "r", 2, keep=5))
    for path in ("config.toml", "model.safetensors", "metrics.jsonl"):
        (tmp_path / "r" / path).unlink()
    shutil.rmtree(tmp_path / "r" / "checkpoints" / "step-00000002")
    (tmp_path / "r" / ".lock").write_text("")
    (tmp_path / "r" / ".config.toml.partial").write_text("[proc")
    list(train(tmp_path / "r", 2))
    list(train(tmp_path / "s", 2))
    assert weights(tmp_path / "r") == weights(tmp_path / "s")


def test_a_run_killed_before_its_first_checkpoint_goes_on_from_its_beginning(tmp_path):
    trainer = train(tmp_path / "r", 3, checkpoint_every=100)
    next(trainer), next(trainer)
    assert RunFolder(tmp_path / "r").checkpoints.exists()
    again = train(tmp_path / "r", 3, resume=True)
    assert again.step == 0
    list(again)
    list(train(tmp_path / "s", 3))
    assert weights(tmp_path / "r") == weights(tmp_path / "s")


def test_every_so_many_checkpoints_stay(tmp_path):
    list(train(tmp_path / "r", 13, checkpoint_every=2, keep=2, keep_every=4))
    names = sorted(path.name for path in (tmp_path / "r" / "checkpoints").iterdir())
    assert [int(name.removeprefix("step-")) for name in names] == [4, 8, 12, 13]
    with pytest.raises(sf.InputError, match="multiple of checkpoint_every"):
        train(tmp_path / "s", 2, keep_every=3)


HOLD = """
import importlib.util, sys, time
from pathlib import Path
spec = importlib.util.spec_from_file_location("lock", sys.argv[2])  # by its file: without torch it is quicker
lock = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lock)
lock.RunLock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture(scope="module")
def holder(tmp_path_factory):
    """A run that another process writes."""
    run = tmp_path_factory.mktemp("held") / "r"
    list(train(run, 2))
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run / ".lock"), lock.__file__], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        yield run, process
        process.kill()


def test_a_second_writer_is_refused_and_a_dead_one_followed(capsys, holder):
    run, process = holder
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(sf.InputError, match=f"is being written by process {process.pid} on .* since 20"):
        train(run, 4, resume=True)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before
    process.kill()
    process.wait()
    trainer = train(run, 4, resume=True)
    assert f"took over the lock of process {process.pid}" in trainer.warnings[0]
    list(trainer)
    assert not (run / ".lock").exists()


def test_without_locks_in_the_file_system_the_text_decides(tmp_path, monkeypatch):
    def none(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(lock.fcntl, "lockf", none)
    path = tmp_path / ".lock"

    def held_by(pid, host):
        path.write_text(json.dumps({"pid": pid, "host": host, "since": "2030-01-01 00:00:00"}))

    host = os.uname().nodename
    ended = subprocess.Popen(["true"])
    ended.wait()
    for pid, where in ((os.getppid(), host), (1, "elsewhere"), (ended.pid, "elsewhere")):
        held_by(pid, where)
        with pytest.raises(
            sf.InputError, match=f"process {pid} on {where} since 2030.*If it has ended, remove"
        ):
            RunLock(path)
    held_by(ended.pid, host)
    later = RunLock(path)
    assert str(ended.pid) in later.taken_over
    later.release()
    assert not path.exists()


def test_without_locks_a_turn_that_a_kill_left_ends_after_a_minute(tmp_path, monkeypatch):
    """Processes that follow one that has ended take turns; one of them was killed in its turn."""

    def none(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(lock.fcntl, "lockf", none)
    path, turn = tmp_path / ".lock", tmp_path / ".lock.turn"
    ended = subprocess.Popen(["true"])
    ended.wait()
    said = {"pid": ended.pid, "host": os.uname().nodename, "since": "2030-01-01 00:00:00"}
    path.write_text(json.dumps(said))
    turn.touch()
    with pytest.raises(sf.InputError, match="If it has ended, remove"):
        RunLock(path)
    assert turn.exists()
    an_hour_ago = time.time() - 3600
    os.utime(turn, (an_hour_ago, an_hour_ago))
    held = RunLock(path)
    assert json.loads(path.read_text())["pid"] == os.getpid()
    held.release()
    assert not list(tmp_path.iterdir())


def test_a_lock_removed_between_opening_and_locking_does_not_count(tmp_path, monkeypatch):
    """Its holder releases it just then: what was locked has no name any more, and a third process could lock the next
    one.
    """
    path, real, locked = tmp_path / ".lock", lock.fcntl.lockf, []

    def released_first(file, how):
        if not locked:
            path.unlink()
        locked.append(os.fstat(file.fileno()).st_ino)
        return real(file, how)

    monkeypatch.setattr(lock.fcntl, "lockf", released_first)
    held = RunLock(path)
    assert len(locked) == 2
    assert path.stat().st_ino == os.fstat(held._file.fileno()).st_ino
    assert json.loads(path.read_text())["pid"] == os.getpid()


def test_a_lock_that_was_removed_by_hand_is_made_again(tmp_path):
    held = RunLock(tmp_path / ".lock")
    (tmp_path / ".lock").unlink()
    held.check()
    refused = subprocess.run(
        [sys.executable, "-c", HOLD, str(tmp_path / ".lock"), lock.__file__], capture_output=True, text=True
    )
    assert f"is being written by process {os.getpid()}" in refused.stderr
    held.release()
    assert not (tmp_path / ".lock").exists()


def test_a_lock_survives_that_its_file_is_read(tmp_path):
    """The kernel takes a record lock away from a process that closes the file anywhere, as a copy of the run does."""
    held = RunLock(tmp_path / ".lock")
    (tmp_path / ".lock").read_text()
    held.check()
    command = [sys.executable, "-c", HOLD, str(tmp_path / ".lock"), lock.__file__]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert f"is being written by process {os.getpid()}" in refused.stderr
    (tmp_path / ".lock").read_text()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(sf.InputError, match=f"is being written by process {other.pid}"):
            held.check()
        other.kill()


def test_of_two_writers_after_a_removed_lock_the_first_one_stops(tmp_path):
    """The second one found nothing; the first one notices before it writes, and leaves the other's lock alone."""
    trainer = train(tmp_path / "r", 8)
    next(trainer)
    (tmp_path / "r" / ".lock").unlink()
    command = [sys.executable, "-c", HOLD, str(tmp_path / "r" / ".lock"), lock.__file__]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        before = {path: path.read_bytes() for path in (tmp_path / "r").rglob("*") if path.is_file()}
        with pytest.raises(sf.InputError, match=f"is being written by process {other.pid}"):
            list(trainer)
        trainer.close()
        assert {p: p.read_bytes() for p in (tmp_path / "r").rglob("*") if p.is_file()} == before
        other.kill()


def test_a_writer_that_came_and_went_after_a_removed_lock_is_noticed(tmp_path):
    first = train(tmp_path / "r", 8)
    next(first)
    (tmp_path / "r" / ".lock").unlink()
    next(first)  # nobody came
    assert (tmp_path / "r" / ".lock").exists()
    (tmp_path / "r" / ".lock").unlink()
    shutil.copytree(tmp_path / "r", tmp_path / "s")
    list(train(tmp_path / "s", 6, resume=True))
    shutil.rmtree(tmp_path / "r")
    shutil.move(tmp_path / "s", tmp_path / "r")
    before = {path: path.read_bytes() for path in (tmp_path / "r").rglob("*") if path.is_file()}
    with pytest.raises(sf.InputError, match="another process has written the run since"):
        list(first)
    first.close()
    assert {p: p.read_bytes() for p in (tmp_path / "r").rglob("*") if p.is_file()} == before


def test_what_is_said_of_the_checkpoints_is_true(tmp_path):
    """They are intact only while they are there."""
    trainer = train(tmp_path / "r", 8)
    next(trainer)
    trainer.folder.metrics.unlink(missing_ok=True)
    trainer.folder.metrics.mkdir()
    with pytest.raises(sf.InputError, match="the checkpoints are intact"):
        next(trainer)
    shutil.rmtree(trainer.folder.checkpoints)
    with pytest.raises(sf.InputError, match="there are no checkpoints in it"):
        next(trainer)
    gone = train(tmp_path / "s", 8)
    next(gone)
    shutil.rmtree(tmp_path / "s")
    with pytest.raises(sf.InputError) as found:
        list(gone)
    assert "intact" not in str(found.value)
    assert not (tmp_path / "s").exists()


RACE = """
import errno, importlib.util, json, os, sys, time
from pathlib import Path
spec = importlib.util.spec_from_file_location("lock", sys.argv[2])
lock = importlib.util.module_from_spec(spec)
spec.loader.exec_module(lock)
def none(*_):
    raise OSError(errno.ENOSYS, "Function not implemented")
lock.fcntl.lockf = none
print("ready", flush=True)
sys.stdin.readline()
try:
    lock.RunLock(Path(sys.argv[1]))
    print("held", flush=True)
except lock.InputError as error:
    print(error, flush=True)
sys.stdin.readline()
"""


def test_a_lock_file_that_is_removed_between_two_looks_is_claimed(tmp_path, monkeypatch):
    """Opened and made by the second look, it would belong to nobody, and be in the way for ever."""
    path, made = tmp_path / ".lock", lock.open_own
    path.write_text("{}")

    def removed_by_another_process(name, flags=os.O_CREAT):
        if path.exists():
            path.unlink()
            raise FileExistsError(name)
        return made(name, flags)

    monkeypatch.setattr(lock, "_kernel_lock", lambda file: None)
    monkeypatch.setattr(lock, "open_own", removed_by_another_process)
    held = lock.RunLock(path)
    assert json.loads(path.read_text())["pid"] == os.getpid()
    held.release()


@pytest.mark.parametrize("left", [False, True])
def test_without_locks_one_of_several_that_come_at_once_gets_it(tmp_path, left):
    """The file is claimed by making it; also where one that has ended left its own behind."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    for k in range(3):
        path = tmp_path / f"{k}.lock"
        if left:
            said = {"pid": ended.pid, "host": os.uname().nodename, "since": "2030-01-01 00:00:00"}
            path.write_text(json.dumps(said))
        racers = [
            subprocess.Popen(
                [sys.executable, "-c", RACE, path, lock.__file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for _ in range(4)
        ]
        outputs: list[str] = []
        for word in ("ready", ""):
            for racer in racers:
                assert racer.stdout is not None
                said_now = racer.stdout.readline()
                assert said_now.startswith(word)
                outputs += [said_now] if not word else []
            for racer in racers:
                assert racer.stdin is not None
                racer.stdin.write("\n")
                racer.stdin.flush()
        assert outputs.count("held\n") == 1, outputs
        assert sum("is being written by" in text for text in outputs) == 3, outputs
        for racer in racers:
            racer.communicate()


@pytest.mark.parametrize("what", ["link", "dangling link", "pipe", "folder", "text", "link of a run"])
def test_what_is_no_lock_is_refused_and_left_alone(tmp_path, what):
    path, other = tmp_path / ".lock", tmp_path / "thesis.tex"
    other.write_text("chapter 1")
    {
        "link": lambda: path.symlink_to(other),
        "dangling link": lambda: path.symlink_to(tmp_path / "nothing"),
        "pipe": lambda: os.mkfifo(path),
        "folder": lambda: path.mkdir(),
        "text": lambda: path.hardlink_to(other),
        "link of a run": lambda: path.symlink_to(tmp_path / "r" / ".lock"),
    }[what]()
    before = os.lstat(path)
    with pytest.raises(sf.InputError, match=r"symbolic link|regular file|Is a directory|not a lock"):
        RunLock(path)
    assert os.lstat(path)[:2] == before[:2]
    assert other.read_text() == "chapter 1"
    assert sorted(os.listdir(tmp_path)) == [".lock", "thesis.tex"]


def test_a_later_trainer_of_the_same_process_takes_over(tmp_path):
    first = train(tmp_path / "r", 8)
    next(first), next(first)
    second = train(tmp_path / "r", 8, resume=True)
    for write in (lambda: next(first), first.save):
        with pytest.raises(sf.InputError, match="later trainer"):
            write()
    list(second)
    list(train(tmp_path / "s", 8))
    assert weights(tmp_path / "r") == weights(tmp_path / "s")


class Fails(sf.objectives.Simple):
    """Raises an error at one step."""

    error: Exception
    step: int

    def forward(self, x0, y, noise):  # type: ignore[override]
        if noise.step + 1 == self.step:
            raise self.error
        return super().forward(x0, y, noise)


def failing(run, error, step, **options):
    made = Fails(objective().model)
    made.error, made.step = error, step
    return sf.train(made, POINTS, run=run, steps=4, **{**OPTIONS, **options})


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("mat1 and mat2 cannot be multiplied"), KeyError("y")]
)
def test_a_configuration_that_fails_at_its_first_step_leaves_no_run(tmp_path, error):
    for there in (False, True):
        run = tmp_path / f"{there}"
        run.mkdir() if there else None
        trainer = failing(run, error, 1)
        assert (run / "config.toml").exists()
        with pytest.raises(type(error)):
            next(trainer)
        assert not run.exists() or not any(run.iterdir())
        list(train(run, 4))  # the corrected command


def test_one_that_fails_later_or_was_resumed_stays(tmp_path):
    trainer = failing(tmp_path / "r", MemoryError(), 2)
    next(trainer)
    with pytest.raises(MemoryError):
        next(trainer)
    with pytest.raises(MemoryError):
        next(failing(tmp_path / "r", MemoryError(), 1, resume=True))
    assert len([*train(tmp_path / "r", 4, resume=True)]) == 4


def test_slow_steps_are_saved_by_the_clock(tmp_path):
    """The weights are those of a run without it, and a rollback takes none of these: it may not depend on time."""
    list(train(tmp_path / "r", 4, checkpoint_every=100, checkpoint_minutes=1e-9, keep=9))
    list(train(tmp_path / "s", 4, checkpoint_every=100))
    names = [sorted(path.name for path in (tmp_path / run / "checkpoints").iterdir()) for run in "rs"]
    assert [int(name.removeprefix("step-")) for name in names[0]] == [0, 1, 2, 3, 4]
    assert [int(name.removeprefix("step-")) for name in names[1]] == [0, 4]
    assert weights(tmp_path / "r") == weights(tmp_path / "s")
    for step in (1, 3):
        place = checkpoint.place(tmp_path / "r" / "checkpoints", step)
        assert json.loads((place / "state.json").read_text())["good"] is False
    shutil.rmtree(checkpoint.place(tmp_path / "r" / "checkpoints", 4))
    list(train(tmp_path / "r", 4, resume=True))
    assert weights(tmp_path / "r") == weights(tmp_path / "s")
