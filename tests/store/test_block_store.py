"""Stored samples: whole or absent, the same bytes however they came about, never taken for others."""

import gc
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import weakref
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from store import stored_job
from store.stored_job import N, samples, store
from support import fork

import scorefield as sf
from scorefield.generation.sample_blocks import sample_blocks
from scorefield.generation.sampling import Condition, Guide, Sampling
from scorefield.generation.sampling_options import SamplingOptions
from scorefield.store.block_store import Block, StoredSamples

JOB = Path(__file__).with_name("stored_job.py")
SPEC = sf.DataSpec((2, 3), bins=5)


@pytest.fixture(scope="module")
def model():
    return stored_job.model()


def numbered(k, size=32):
    """A block that is nothing but its number."""
    return Block(range(k * size, (k + 1) * size), torch.full((size, 2, 3), -1 + k / 2), [k] * size)


def plain(folder, n=128, **what):
    stored = StoredSamples(folder, what, SPEC, 32)
    stored.make(n, lambda numbers: map(numbered, numbers))
    return stored


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_they_are_the_samples_of_the_seed(model, tmp_path):
    """Sample i is the image that sampling without storing gives, rounded to the data's levels, with its
    label.
    """
    stored = store(tmp_path, model)
    assert stored.make(40, partial(samples, model, 64, 3)) == 2
    blocks = list(stored.blocks(40))
    grid = sf.grids.uniform(model.process, 3)
    wrap = lambda bare, labels: sf.guidance.ClipX0(bare.given(labels))  # noqa: E731
    expected = list(
        sample_blocks(model, sf.samplers.Ancestral(), grid, 40, 3, labels=[0, 1, 2], wrap=wrap, size=32)
    )
    assert [block.indices for block in blocks] == [range(32), range(32, 40)]
    x, y = (torch.cat([block.x for block in part]) for part in (blocks, expected))
    assert torch.equal(x, ((y + 1) * 8).round() / 8 - 1)
    assert [label for block in blocks for label in block.labels] == [i % 3 for i in range(40)]


def test_a_larger_number_makes_only_what_is_missing(tmp_path):
    asked = []

    def sample(numbers):
        asked.append(numbers)
        return map(numbered, numbers)

    stored = StoredSamples(tmp_path, {}, SPEC, 32)
    assert stored.rounded(33) == 64
    assert stored.make(33, sample) == 2
    before = files(tmp_path)
    assert stored.make(100, sample) == 2
    assert stored.make(64, sample) == 0
    assert asked == [[0, 1], [2, 3]]
    assert before.items() <= files(tmp_path).items()
    assert [len(block.x) for block in stored.blocks(70)] == [32, 32, 6]


def test_interrupted_work_goes_on(tmp_path):
    def broken(numbers):
        yield numbered(0)
        raise KeyboardInterrupt

    stored = StoredSamples(tmp_path / "a", {}, SPEC, 32)
    with pytest.raises(KeyboardInterrupt):
        stored.make(96, broken)
    assert stored.missing(96) == [1, 2]
    assert stored.make(96, lambda numbers: map(numbered, numbers)) == 2
    assert files(tmp_path / "a") == files(plain(tmp_path / "b", 96).folder)


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


DAMAGES = {
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "empty": lambda path: path.write_bytes(b""),
    "a flipped bit": flip,
    "deleted": Path.unlink,
    "another block": lambda path: shutil.copy(path.with_name("block-00000002.safetensors"), path),
    "of other samples": lambda path: shutil.copy(
        plain(path.parent.parent / "other", seed=1).folder / path.name, path
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_and_foreign_blocks_are_made_again(tmp_path, damage):
    stored = plain(tmp_path / "a", seed=0)
    before = files(stored.folder)
    DAMAGES[damage](stored.folder / "block-00000001.safetensors")
    assert stored.missing(128) == [1]
    with pytest.raises(sf.InputError, match=r"block-00000001.safetensors is missing or damaged"):
        list(stored.blocks(128))
    assert len(list(stored.blocks(32))) == 1
    assert stored.make(128, lambda numbers: map(numbered, numbers)) == 1
    assert files(stored.folder) == before


def test_a_folder_of_other_samples_is_refused(tmp_path):
    plain(tmp_path, seed=0, clip=True)
    with pytest.raises(sf.InputError, match=r"with other settings \(seed: 0 on disk, 1 requested\)"):
        plain(tmp_path, seed=1, clip=True)
    (tmp_path / "manifest.json").unlink()  # the blocks still know whose they are
    assert plain(tmp_path, seed=0, clip=True).missing(128) == []
    assert "clip" in (tmp_path / "manifest.json").read_text()


@pytest.mark.parametrize("text", ["{", "[1]", '{"name": "app"}', "\xff"])
def test_the_manifest_of_another_program_is_left_alone(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text, encoding="latin-1")
    with pytest.raises(sf.InputError, match="does not describe samples: choose another folder"):
        plain(tmp_path, seed=0, clip=True)
    assert (tmp_path / "manifest.json").read_text(encoding="latin-1") == text


def test_everything_that_decides_the_samples_tells_them_apart(model, tmp_path):
    process = model.process
    grid, ddim, labels = sf.grids.uniform(process, 3), sf.samplers.DDIM(), [0, 1]
    base = Sampling(model, ddim, grid, labels=labels, weights="a")
    fp32, eps = (sf.Denoiser(model.net, process, kind, data=model.data) for kind in ("v", "eps"))
    others = [
        base,
        replace(base, weights="b"),
        replace(base, labels=[1, 0]),
        replace(base, labels=None),
        replace(base, options=SamplingOptions(clip=False)),
        replace(base, options=SamplingOptions(guidance=2)),
        replace(base, sampler=sf.samplers.DDIM(0.5)),
        replace(base, grid=sf.grids.uniform(process, 4)),
        replace(base, conditions={"low_res": Condition(torch.zeros(1, 1, 4, 4), "c")}),
        replace(base, conditions={"mask": Condition(torch.zeros(1, 1, 4, 4), "c")}),
        replace(base, guide=Guide(model, "run", "d")),
        replace(base, model=fp32),
        replace(base, model=eps),
    ]
    whats = [base.identity(seed=1), *(sampling.identity(seed=0) for sampling in others)]
    stores = [StoredSamples.within(tmp_path, what, model.data) for what in whats]
    stores.append(StoredSamples.within(tmp_path, whats[0], model.data, 32))
    stores.append(StoredSamples.within(tmp_path, whats[0], sf.DataSpec((1, 8, 8), bins=256)))
    assert len({stored.folder for stored in stores}) == len(whats) + 2
    assert (
        StoredSamples.within(tmp_path, dict(reversed(whats[0].items())), model.data).folder
        == stores[0].folder
    )


def test_continuous_data_are_kept_exactly(tmp_path):
    x = torch.randn(32, 2, generator=torch.Generator().manual_seed(0))
    stored = StoredSamples(tmp_path, {}, sf.DataSpec((2,)), 32)
    stored.make(32, lambda numbers: [Block(range(32), x, None)])
    (block,) = stored.blocks(32)
    assert torch.equal(block.x, x)
    assert block.labels is None


@pytest.mark.parametrize("bins", [5, None])
def test_diverged_samples_are_refused(tmp_path, bins):
    stored = StoredSamples(tmp_path, {}, sf.DataSpec((2, 3), bins=bins), 32)
    block = numbered(0)
    block.x[3, 1, 1] = float("nan")
    with pytest.raises(
        sf.InputError, match=r"1 of 32 .* NaN or infinite values: the model that made them has diverged"
    ):
        stored.make(32, lambda numbers: [block])
    assert stored.missing(32) == [0]


def test_bad_places_and_blocks(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(sf.InputError, match="cannot be written"):
        plain(tmp_path / "file" / "folder")
    with pytest.raises(sf.InputError, match="a block is 32 samples"):
        StoredSamples(tmp_path / "a", {}, SPEC, 32).make(32, lambda numbers: [numbered(0, size=31)])
    stored = plain(tmp_path / "b", 32)
    (tmp_path / "b" / "block-00000001.safetensors").mkdir()
    with pytest.raises(sf.InputError, match=r"block-00000001.safetensors cannot be written"):
        stored.make(64, lambda numbers: map(numbered, numbers))
    assert not list((tmp_path / "b").glob(".*"))


def test_one_block_in_memory(tmp_path):
    alive: list[Any] = []

    def sample(numbers):
        for k in numbers:
            gc.collect()
            assert sum(made() is not None for made in alive) <= 1  # the one that has just been written
            block = numbered(k)
            alive.append(weakref.ref(block.x))
            yield block

    StoredSamples(tmp_path, {}, SPEC, 32).make(128, sample)
    assert len(alive) == 4


def test_what_a_killed_process_left_is_removed(tmp_path):
    stored = plain(tmp_path, 32)
    for name, age in ((".old.partial", 2 * 86400), (".new.partial", 7200)):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    stored.make(32, lambda numbers: [])
    assert [path.name for path in tmp_path.glob(".*")] == [".new.partial"]


def test_killed_while_it_writes(tmp_path, monkeypatch):
    """kill -9 with half a file on the disk: what was complete stays, what was not is made again."""

    def half(tensors, path, metadata):
        save_file(tensors, path, metadata)
        if "00000002" in path.name:
            path.write_bytes(path.read_bytes()[:50])
            os.kill(os.getpid(), signal.SIGKILL)

    pid = fork()
    if pid == 0:
        monkeypatch.setattr("scorefield.store.block_store.save_file", half)
        plain(tmp_path / "a")
        os._exit(1)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL
    assert len(list((tmp_path / "a").glob(".*.partial"))) == 1
    assert StoredSamples(tmp_path / "a", {}, SPEC, 32).missing(128) == [2, 3]
    plain(tmp_path / "a")
    kept = {name: data for name, data in files(tmp_path / "a").items() if not name.startswith(".")}
    assert kept == files(plain(tmp_path / "b").folder)


def test_two_processes_go_on_to_the_same_bytes(model, tmp_path):
    """Four of seven blocks are lost; each process makes its own, k mod 2, and the bytes are those of one
    process.
    """
    whole = store(tmp_path / "whole", model)
    assert whole.make(N, partial(samples, model, whole.rounded(N), 3)) == 7
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    stored = store(tmp_path / "parts", model)
    for k in (0, 2, 3, 6):
        (stored.folder / f"block-{k:08d}.safetensors").unlink()
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        JOB,
        tmp_path / "parts",
    ]
    done = subprocess.run(launch, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    said = re.findall(r"rank (\d) of (\d) made (\d), missing \[\]", done.stdout)
    assert sorted(said) == [("0", "2", "3"), ("1", "2", "1")]
    assert files(stored.folder) == files(whole.folder)
