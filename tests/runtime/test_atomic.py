"""Atomic files and folders: there is the old content or the new one, and what a killed process left goes."""

import os
import socket
import subprocess
import sys

import pytest

from scorefield.runtime.atomic import atomic_folder, atomic_write, drop_abandoned


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
