"""Samples in files of their own: whole or absent, never of two kinds in a folder, the same files however they
came about.
"""

import json
import os
import random
import resource
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support import fork

import scorefield as sf
from scorefield.runtime.distributed import Processes
from scorefield.store import block_store
from scorefield.store.block_store import Block
from scorefield.store.file_store import SampleFiles

SPEC = sf.DataSpec((3, 8, 8), classes=("ant", "bee, or wasp", "crow"), bins=256)
N, SIZE = 300, 32


def levels(k):
    return torch.randint(0, 256, (SIZE, 3, 8, 8), generator=torch.Generator().manual_seed(k))


def drawn(k):
    return Block(range(k * SIZE, (k + 1) * SIZE), SPEC.from_bins(levels(k)), None)


def store(folder, spec=SPEC, **what):
    return SampleFiles(folder, what, spec, SIZE)


def made(folder, n=N, **what):
    files = store(folder, **what)
    files.make(n, lambda numbers: map(drawn, numbers))
    return files


def files(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_files_hold_the_samples(tmp_path):
    made(tmp_path, 70)
    assert sorted(path.name for path in tmp_path.glob("*.png")) == [f"{i:06d}.png" for i in range(70)]
    for i in (0, 31, 32, 69):
        expected = levels(i // SIZE)[i % SIZE].permute(1, 2, 0).numpy()
        assert np.array_equal(np.asarray(Image.open(tmp_path / f"{i:06d}.png")), expected)
    assert json.loads((tmp_path / "manifest.json").read_text())["shape"] == [3, 8, 8]


def test_what_is_not_an_image_is_an_array(tmp_path):
    x = torch.randn(SIZE, 2, generator=torch.Generator().manual_seed(0))
    points = store(tmp_path, sf.DataSpec((2,)))
    points.make(5, lambda numbers: [Block(range(SIZE), x, None)])
    assert len(list(tmp_path.glob("*.npy"))) == 5
    assert np.array_equal(np.load(tmp_path / "000004.npy", allow_pickle=False), x[4].numpy())
    x[3, 1] = float("nan")
    with pytest.raises(sf.InputError, match="NaN or infinite"):
        store(tmp_path / "b", sf.DataSpec((2,))).make(5, lambda numbers: [Block(range(SIZE), x, None)])


def test_a_larger_number_adds_and_a_smaller_one_takes_nothing_away(tmp_path):
    asked = []

    def sample(numbers):
        asked.append(numbers)
        return map(drawn, numbers)

    growing = store(tmp_path / "a")
    assert [growing.make(n, sample) for n in (40, 70, 33)] == [2, 2, 0]
    assert asked == [[0, 1], [1, 2]]  # the second block is drawn again for the files that it lacks
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "a").glob("0000[0-3]*.png")}
    growing.make(100, sample)
    assert all(path.stat().st_mtime_ns == before for path, before in times.items())
    assert files(tmp_path / "a") == files(made(tmp_path / "b", 100).folder)


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "empty": lambda path: path.write_bytes(b""),
    "a flipped bit": flip,
    "deleted": Path.unlink,
    "another sample": lambda path: path.write_bytes(path.with_name("000041.png").read_bytes()),
    "its block's hashes": lambda path: (path.parent / ".blocks" / "00000001.json").write_text('{"block"'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_made_again(tmp_path, damage):
    whole = made(tmp_path)
    before = files(tmp_path)
    DAMAGES[damage](tmp_path / "000040.png")
    assert whole.missing(N) == [1]
    assert made(tmp_path).missing(N) == []
    assert files(tmp_path) == before


def test_other_samples_are_refused_by_what_differs(tmp_path):
    made(tmp_path, weights="ab", seed=0, grid=list(range(99)))
    before = files(tmp_path)
    with pytest.raises(
        sf.InputError, match=r"\(grid differs; seed: 0 on disk, 1 requested\): remove it, or choose another"
    ):
        made(tmp_path, weights="ab", seed=1, grid=list(range(98)))
    assert files(tmp_path) == before


def test_labels_are_kept_beside_the_files(tmp_path):
    labelled = made(tmp_path, 40)
    labelled.write_labels(40, [2, 1])
    lines = (tmp_path / "labels.csv").read_text().splitlines()
    assert lines[:3] == ["file,label,class", "000000.png,2,crow", '000001.png,1,"bee, or wasp"']
    assert len(lines) == 41
    labelled.write_labels(20, [2, 1])
    assert len((tmp_path / "labels.csv").read_text().splitlines()) == 41
    labelled.write_labels(41, [2, 1])
    assert len((tmp_path / "labels.csv").read_text().splitlines()) == 42
    assert len(sf.data.folder(tmp_path, size=8)) == 40  # the pictures alone are data


def slowly(numbers):
    """Blocks that take a while, as drawing does."""
    for k in numbers:
        time.sleep(0.004)
        yield drawn(k)


@pytest.mark.parametrize("world", [1, 2])
def test_killed_at_ten_random_moments(tmp_path, world):
    """kill -9 at ten moments of a seed: the files of the job that goes on are those of one that was left
    alone.
    """
    expected = files(made(tmp_path / "whole").folder)
    draw, hits = random.Random(world), 0
    while hits < 10:
        children = [working(tmp_path / "killed", Processes(rank, world)) for rank in range(world)]
        time.sleep(draw.uniform(0, 0.03))
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        ends = [os.waitpid(pid, 0)[1] for pid in children]
        hits += any(map(os.WIFSIGNALED, ends))
        for path in (tmp_path / "killed").glob("*.png"):
            assert path.read_bytes() == expected[path.name]
        if hits < 10 and (tmp_path / "killed").is_dir() and not store(tmp_path / "killed").missing(N):
            for path in (tmp_path / "killed").glob(
                "*.png"
            ):  # it is done: take some away, so that there is something to kill
                if draw.random() < 0.3:
                    path.unlink()
    store(tmp_path / "killed").make(N, slowly)
    assert files(tmp_path / "killed") == expected


def working(folder, processes):
    """A process that makes its share of the job."""
    pid = fork()
    if pid == 0:
        try:
            store(folder).make(N, slowly, processes)
        finally:
            os._exit(0)
    return pid


def test_unfinished_files_of_the_living_stay(tmp_path):
    made(tmp_path, 32)
    ended, unnoticed = fork_nothing(), fork_nothing()
    os.waitpid(ended, 0)
    os.waitid(os.P_PID, unnoticed, os.WEXITED | os.WNOWAIT)  # ended, but nobody has asked for its status
    host = os.uname().nodename
    gone = [f"{ended}@{host}", f"{unnoticed}@{host}", f"{os.getpid()}@{host}"]  # a number may come again
    kept = [f"{os.getppid()}@{host}", f"{ended}@not-{host}"]
    for writer in gone + kept:
        (tmp_path / f".a.png.{writer}.partial").write_text("")
    made(tmp_path, 32)
    os.waitpid(unnoticed, 0)
    assert {path.name for path in tmp_path.glob(".*.partial")} == {
        f".a.png.{writer}.partial" for writer in kept
    }


def fork_nothing():
    pid = fork()
    if pid == 0:
        os._exit(0)
    return pid


def test_a_full_disk_is_said_and_gone_on_from(tmp_path):
    """No file may be longer than a few bytes: the first picture fails, and nothing half written stays."""
    store(tmp_path)._open()
    pid = fork()
    if pid == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (60, 60))
        try:
            made(tmp_path)
        except sf.InputError as error:
            os._exit(
                0 if "000000.png cannot be written (File too large): free disk space" in str(error) else 2
            )
        os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert set(files(tmp_path)) == {"manifest.json"}
    made(tmp_path)
    assert files(tmp_path) == files(made(tmp_path.with_name("b")).folder)


def test_places_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(sf.InputError, match="cannot be written"):
        made(tmp_path / "file" / "folder")
    made(tmp_path / "a", 32)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    drew = []
    with pytest.raises(sf.InputError, match=r"Permission denied.*make the folder writable"):
        store(tmp_path / "a").make(64, lambda numbers: drew.extend(numbers))
    assert drew == []
    assert made(tmp_path / "a", 32).missing(32) == []  # nothing to write


def test_of_two_jobs_that_come_at_once_the_first_says_what_the_folder_holds(tmp_path, monkeypatch):
    """Both find no manifest; the second one finds out that there is one when it writes its own."""
    made(tmp_path / "a", 32)
    before = files(tmp_path / "a")
    other = store(tmp_path / "a", seed=7)
    real, calls = block_store._manifest, []

    def late(path):
        calls.append(1)
        return None if len(calls) == 1 else real(path)

    monkeypatch.setattr(block_store, "_manifest", late)
    with pytest.raises(sf.InputError, match="already holds samples with other settings"):
        other.make(32, lambda numbers: pytest.fail("it sampled"))
    assert files(tmp_path / "a") == before
