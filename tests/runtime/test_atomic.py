"""Atomic files and folders: there is the old content or the new one, and what a killed process left goes."""

import json
import os
import secrets
import socket
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from scorefield.runtime.atomic import (
    append,
    atomic_folder,
    atomic_write,
    drop_abandoned,
    make_folder,
    make_folders,
    make_numbered,
    write_file,
)
from scorefield.runtime.errors import InputError


def test_a_folder_appears_when_its_block_ends_well(tmp_path):
    with atomic_folder(tmp_path / "a") as partial:
        (partial / "inner").mkdir()
        (partial / "inner" / "file").write_text("new")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a" / "inner" / "file").read_text() == "new"
    assert os.listdir(tmp_path) == ["a"]


def fail_to_write(atomic, *inside):
    with atomic as partial:
        partial.joinpath(*inside).write_text("new")
        raise RuntimeError


def test_what_fails_leaves_what_was_there(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_text("old")
    with pytest.raises(RuntimeError):
        fail_to_write(atomic_folder(tmp_path / "a", replace=True), "file")
    with pytest.raises(OSError, match="not empty"), atomic_folder(tmp_path / "a"):
        pass
    with pytest.raises(RuntimeError):
        fail_to_write(atomic_write(tmp_path / "a" / "file"))
    assert (tmp_path / "a" / "file").read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]
    with atomic_folder(tmp_path / "a", replace=True):
        pass
    assert os.listdir(tmp_path / "a") == []


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host = socket.gethostname()
    gone, stay = f".a.{ended.pid}@{host}.partial", [f".a.1@{host}.partial", f".ab.{ended.pid}@{host}.partial"]
    for name in [gone, *stay]:
        (tmp_path / name).write_text("")
    (tmp_path / f".b.{ended.pid}@{host}.partial").mkdir()
    drop_abandoned(tmp_path / "a")
    assert sorted(os.listdir(tmp_path)) == sorted([*stay, f".b.{ended.pid}@{host}.partial"])
    drop_abandoned(tmp_path / "b")
    assert sorted(os.listdir(tmp_path)) == sorted(stay)


def test_the_disk_has_the_content_before_the_name(tmp_path, monkeypatch):
    """A power cut may come at any moment: first the content, then the name, then the folder that holds the name."""
    order: list[tuple[str, str]] = []
    fsync, replace, rename = os.fsync, os.replace, os.rename

    def synced(descriptor):
        order.append(("sync", Path(os.readlink(f"/proc/self/fd/{descriptor}")).name))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append(("name", Path(b).name)), replace(a, b)))
    monkeypatch.setattr(os, "rename", lambda a, b: (order.append(("name", Path(b).name)), rename(a, b)))
    with atomic_write(tmp_path / "a") as partial:
        partial.write_text("new")
    assert order == [("sync", "a"), ("name", "a"), ("sync", tmp_path.name)]
    order.clear()
    write_file(tmp_path / "a", "newer")
    unfinished, *rest = order
    assert unfinished[0] == "sync"
    assert unfinished[1].startswith(".a.")
    assert rest == [("name", "a"), ("sync", tmp_path.name)]
    order.clear()
    for replaces in (False, True):
        with atomic_folder(tmp_path / "b", replace=replaces) as partial:
            (partial / "c").mkdir()
            (partial / "c" / "d").write_text("new")
        last = len(order) - 1 - order[::-1].index(("name", "b"))
        assert {name for what, name in order[:last] if what == "sync"} == {"c", "d", partial.name}
        assert order[last + 1 :] == [("sync", tmp_path.name)]
        order.clear()


def test_a_planted_name_is_not_written_through(tmp_path, monkeypatch):
    """Somebody who guesses the name under which a file is made puts a link there."""
    (tmp_path / "thesis.tex").write_text("chapter 1")
    monkeypatch.setattr(secrets, "token_hex", lambda length: "guessed")
    planted = tmp_path / f".a.guessed.{os.getpid()}@{socket.gethostname()}.partial"
    for target in ("thesis.tex", "new"):
        for write in (
            lambda: write_file(tmp_path / "a", "new"),
            lambda: atomic_write(tmp_path / "a").__enter__(),
            lambda: atomic_folder(tmp_path / "a", replace=True).__enter__(),
        ):
            planted.symlink_to(tmp_path / target)
            with pytest.raises(FileExistsError):
                write()
            planted.unlink(missing_ok=True)
    assert (tmp_path / "thesis.tex").read_text() == "chapter 1"
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_files_have_the_usual_permissions(tmp_path):
    """Libraries make files that their owner alone can read; those who share a disk want the others'."""
    mask = os.umask(0o027)
    try:
        write_file(tmp_path / "e", b"")
        with atomic_write(tmp_path / "a") as partial:
            save_file({"x": np.zeros(3)}, partial)
            assert stat.S_IMODE(partial.stat().st_mode) == 0o600
        with atomic_folder(tmp_path / "b") as partial:
            (partial / "c").mkdir()
            save_file({"x": np.zeros(3)}, partial / "c" / "d")
    finally:
        os.umask(mask)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "b", "b/c", "b/c/d", "e")]
    assert modes == [0o640, 0o750, 0o750, 0o640, 0o640]


def test_nothing_is_left_of_libraries_that_write_in_steps(tmp_path):
    """safetensors writes under a name of its own and renames: killed, it would leave that file."""
    write = atomic_write(tmp_path / "a")
    write.__enter__().with_name(".tmpA1b2C3").write_text("half")
    assert not write.__exit__(RuntimeError, RuntimeError(), None)
    assert os.listdir(tmp_path) == []


def test_an_empty_folder_stays_and_is_filled(tmp_path):
    """It may be a mount point, or where the shell is."""
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to("a")
    before = (tmp_path / "a").stat().st_ino
    with atomic_folder(tmp_path / "link", last="b") as partial:
        (partial / "b").write_text("")
        (partial / "z").write_text("")
        assert os.listdir(tmp_path / "a") == [partial.name]
    assert sorted(os.listdir(tmp_path / "a")) == ["b", "z"]
    assert (tmp_path / "a").stat().st_ino == before
    assert (tmp_path / "link").is_symlink()


def test_what_stays_of_a_replaced_folder_is_not_behind_a_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text("mine")
    (tmp_path / "a").symlink_to("elsewhere")
    with atomic_folder(tmp_path / "a", replace=True) as partial:
        (partial / "new").write_text("")
    assert os.listdir(tmp_path / "a") == ["new"]
    assert (tmp_path / "elsewhere" / "file").read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["a", "elsewhere"]


@pytest.mark.parametrize("links", [True, False])
def test_a_name_can_be_claimed(tmp_path, monkeypatch, links):
    def none(*_):
        raise PermissionError(1, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", none)
    write_file(tmp_path / "a", "first", replace=False)
    with pytest.raises(FileExistsError):
        write_file(tmp_path / "a", "second", replace=False)
    assert (tmp_path / "a").read_text() == "first"
    assert os.listdir(tmp_path) == ["a"]


def test_lines_are_whole_or_absent(tmp_path, monkeypatch):
    file = tmp_path / "a.jsonl"
    append(file, '{"a": 1}\n')
    append(file, '{"a": 2}\n{"a": 3}\n')
    with file.open("a") as cut:
        cut.write('{"a": 4')
    append(file, '{"a": 5}\n')
    file.write_text(file.read_text().rstrip("\n"))  # by an editor
    append(file, '{"a": 6}\n')
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert lines == [{"a": k} for k in (1, 2, 3, 5, 6)]
    before = file.read_bytes()
    write, calls = os.write, []

    def full(descriptor, content):
        """A disk with room for three bytes."""
        calls.append(len(content))
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return write(descriptor, content[:3])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            append(file, '{"a": 7}\n')
    assert file.read_bytes() == before
    long = tmp_path / "long"
    long.write_bytes(b"x" * 100_000 + b"\n" + b"y" * 300_000)
    append(long, "z\n")
    assert long.read_bytes() == b"x" * 100_000 + b"\nz\n"


def test_a_line_stands_for_itself_after_more_than_any_line_of_ours(tmp_path, monkeypatch):
    """A file of others without a line break, sparse perhaps, must not swallow it."""
    monkeypatch.setattr("scorefield.runtime.atomic._LONGEST_LINE", 4096)
    file = tmp_path / "a.jsonl"
    for length in (4097, 100_000):
        file.write_bytes(b"\0" * length)
        append(file, '{"a": 1}\n')
        assert file.read_bytes() == b"\0" * length + b'\n{"a": 1}\n'


@pytest.mark.parametrize("what", ["link", "dangling link", "pipe", "device"])
def test_a_fixed_name_is_a_regular_file_or_refused(tmp_path, what):
    file, other = tmp_path / "a.jsonl", tmp_path / "thesis.tex"
    other.write_text("chapter 1")
    {
        "link": lambda: file.symlink_to(other),
        "dangling link": lambda: file.symlink_to(tmp_path / "new"),
        "pipe": lambda: os.mkfifo(file),
        "device": lambda: file.symlink_to("/dev/null"),
    }[what]()
    with pytest.raises(InputError, match=r"symbolic link|regular file"):
        append(file, "{}\n")
    assert other.read_text() == "chapter 1"
    assert not (tmp_path / "new").exists()


def test_folders_are_all_made_or_none(tmp_path):
    make_folders(tmp_path / "a" / "b")
    make_folders(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    for impossible in (Path("c", "d", "x" * 300), Path("e", *["x"] * 3000), Path("a", "g", "\0")):
        with pytest.raises(OSError, match=r"too long|not a valid"):
            make_folders(tmp_path / impossible)
    with pytest.raises(OSError, match=r"exists|Not a directory"):
        make_folders(tmp_path / "file" / "f")
    assert sorted(os.listdir(tmp_path)) == ["a", "file"]
    assert os.listdir(tmp_path / "a") == ["b"]


def test_a_folder_that_fails_leaves_none_above_it(tmp_path):
    with pytest.raises(RuntimeError):
        fail_to_write(atomic_folder(tmp_path / "a" / "b" / "c"), "file")
    assert not os.listdir(tmp_path)
    with atomic_folder(tmp_path / "a" / "b" / "c"):
        pass
    assert (tmp_path / "a" / "b" / "c").is_dir()


def test_a_fixed_folder_is_no_link(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    assert make_folder(tmp_path / "a") == make_folder(tmp_path / "a")
    for target in ("elsewhere", "nothing"):
        (tmp_path / "link").symlink_to(target)
        with pytest.raises(InputError, match="symbolic link"):
            make_folder(tmp_path / "link")
        (tmp_path / "link").unlink()
    assert not (tmp_path / "nothing").exists()


def test_what_a_living_process_has_not_finished_stays_however_old(tmp_path):
    host, old = socket.gethostname(), 7 * 86400
    mine = [f".a.t1.{os.getppid()}@{host}.partial", ".a.t2.1@elsewhere.partial"]
    gone = [
        f".a.t3.{'9' * 19}@{host}.partial",  # no process has such a number
        f".a.t4.0@{host}.partial",
        ".a.t5.1@other.partial",
        ".a.partial",
    ]
    for name in mine + gone:
        (tmp_path / name).mkdir()
        (tmp_path / name / "inner").write_text("")
        os.utime(tmp_path / name, (time.time() - old,) * 2)
        if name != mine[1]:  # this one is being written, far away
            os.utime(tmp_path / name / "inner", (time.time() - old,) * 2)
    (tmp_path / ".a.t6.1@other.partial").symlink_to(tmp_path / mine[0])
    drop_abandoned(tmp_path / "a")
    assert sorted(os.listdir(tmp_path)) == sorted([*mine, ".a.t6.1@other.partial"])
    with atomic_write(tmp_path / "a") as partial:
        partial.write_text("")
        drop_abandoned(tmp_path / "a")  # by another thread


def test_each_of_several_that_come_at_once_gets_a_folder(tmp_path):
    (tmp_path / "runs" / "a-2").mkdir(parents=True)
    start = threading.Barrier(8)

    def claim(_):
        start.wait()
        return make_numbered(tmp_path / "runs" / "a").name

    with ThreadPoolExecutor(8) as pool:
        names = list(pool.map(claim, range(8)))
    assert sorted(names) == sorted(f"a-{k}" for k in (1, 3, 4, 5, 6, 7, 8, 9))
