"""Streams against the archives they come from, read one by one: what training sees, in which order, and what
it never sees.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import scorefield as sf
from scorefield.data import Prefetcher, Stream, stream
from scorefield.runs.build import open_data, open_training_data
from scorefield.runs.recipe import DataOptions
from scorefield.runtime.errors import InputError

datasets = pytest.importorskip("datasets")

SEED, COUNT, SHARDS = 3, 60, 4
OPTIONS: dict[str, Any] = {"size": 6, "classes": 3, "buffer": 8}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def picture(number: int) -> np.ndarray:
    """Its first pixel tells its number."""
    levels = np.random.default_rng(number).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    levels[0, 0, 0] = number
    return levels


def png(levels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "PNG")
    return file.getvalue()


def archives(root: Path, broken: tuple[int, ...] = (), count: int = COUNT, labels: bool = True) -> str:
    """Shards of webdataset; picture k has class k mod 3."""
    root.mkdir()
    for shard in range(SHARDS):
        with tarfile.open(root / f"train-{shard:03d}.tar", "w") as archive:
            for k in range(shard * count // SHARDS, (shard + 1) * count // SHARDS):
                parts = {"png": b"not a picture" if k in broken else png(picture(k))}
                parts |= {"cls": str(k % 3).encode()} if labels else {}
                for kind, content in parts.items():
                    entry = tarfile.TarInfo(f"{k:04d}.{kind}")
                    entry.size = len(content)
                    archive.addfile(entry, io.BytesIO(content))
    return str(root)


def numbers(levels: torch.Tensor) -> list[int]:
    found = levels[:, 0, 0, 0].tolist()
    assert all(np.array_equal(one.permute(1, 2, 0).numpy(), picture(k)) for one, k in zip(levels, found))
    return found


def steps(data: Stream, count: int, batch: int = 10, start: int = 0) -> list[list[int]]:
    feed = Prefetcher(data.order(batch, SEED))
    try:
        return [numbers(feed.parts(step)[0].values) for step in range(start, start + count)]
    finally:
        feed.close()


def test_what_an_example_is(tmp_path: Path) -> None:
    data = stream(archives(tmp_path / "set"), **OPTIONS)
    assert (data.spec.shape, data.spec.classes, data.spec.bins) == ((3, 6, 6), ("0", "1", "2"), 256)
    assert data.labelled
    assert not data.in_memory
    (part,) = Prefetcher(data.order(10, SEED)).parts(0)
    assert [k % 3 for k in numbers(part.values)] == part.y.tolist()
    assert torch.equal(part.x0, data.spec.from_bins(part.values))
    assert part.positions.tolist() == list(range(10))


def test_every_epoch_has_every_example_once_in_another_order(tmp_path: Path) -> None:
    data = stream(archives(tmp_path / "set"), **OPTIONS)
    seen = list(itertools.chain(*steps(data, 13, batch=14)))[:180]  # an epoch ends inside a batch
    epochs = [seen[k : k + COUNT] for k in (0, COUNT, 2 * COUNT)]
    assert all(sorted(epoch) == list(range(COUNT)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert sorted(range(COUNT), key=epochs[0].index) != list(range(COUNT))


def test_any_step_can_be_asked_for(tmp_path: Path) -> None:
    """From its start, from the middle, from a later epoch, and back: always the batch of that step."""
    data = stream(archives(tmp_path / "set"), **OPTIONS)
    expected = steps(data, 20, batch=7)
    for start in (1, 5, 9, 17):
        assert steps(data, 3, batch=7, start=start) == expected[start : start + 3]
    feed = Prefetcher(data.order(7, SEED))
    assert [numbers(feed.parts(step)[0].values) for step in (4, 5, 2, 3, 19)] == [
        expected[step] for step in (4, 5, 2, 3, 19)
    ]


def test_whoever_knows_how_long_an_epoch_is_need_not_read_the_first(tmp_path: Path) -> None:
    data, seeds = stream(archives(tmp_path / "set"), **OPTIONS), []
    shuffled = data.rows.shuffled
    data.rows.shuffled = lambda seed: (seeds.append(seed), shuffled(seed))[1]
    first, later = data.order(7, SEED), data.order(7, SEED)
    expected = [numbers(first.take(step)[0]) for step in range(20)]
    assert first.epoch_length == COUNT
    assert len(seeds) == 3
    seeds.clear()
    later.epoch_length = first.epoch_length
    assert numbers(later.take(19)[0]) == expected[19]
    assert len(seeds) == 1


def test_processes_share_the_batch_of_one(tmp_path: Path) -> None:
    data = archives(tmp_path / "set")
    whole = steps(stream(data, **OPTIONS), 8, batch=12)
    feeds = [
        Prefetcher(each.order(12, SEED), rank, 3, 2)
        for rank in range(3)
        for each in [stream(data, **OPTIONS)]
    ]
    for step in range(8):
        parts = [part for feed in feeds for part in feed.parts(step)]
        assert numbers(torch.cat([part.values for part in parts])) == whole[step]
        assert torch.cat([part.positions for part in parts]).tolist() == list(range(12))


def test_seeds_are_other_orders(tmp_path: Path) -> None:
    """Also the second epoch of one seed and the first of the next."""
    data = stream(archives(tmp_path / "set"), **OPTIONS)
    orders = []
    for seed in (SEED, SEED + 1):
        feed = Prefetcher(data.order(COUNT, seed))
        orders += [tuple(numbers(feed.parts(step)[0].values)) for step in range(2)]
    assert len(set(orders)) == 4


def test_the_next_one_stands_in_for_a_broken_one(tmp_path: Path) -> None:
    broken = (5, 6, 7, 31)
    whole = list(itertools.chain(*steps(stream(archives(tmp_path / "whole"), **OPTIONS), 24)))
    data = stream(archives(tmp_path / "set", broken), **OPTIONS)
    file = tmp_path / "broken-files.txt"
    feed = Prefetcher(data.order(10, SEED), unreadable_files=file)
    parts = [feed.parts(step)[0] for step in range(12)]
    seen = numbers(torch.cat([part.values for part in parts]))
    after = [next(k for k in whole[place:] if k not in broken) for place in range(len(seen))]
    assert seen == after
    assert torch.cat([part.y for part in parts]).tolist() == [k % 3 for k in seen]
    lines = [line.split("\t")[0] for line in file.read_text().splitlines()]
    assert sorted(line.split(" (")[0] for line in lines) == [f"{k:04d}.png" for k in broken]
    assert len(data.unreadable) == 4
    assert "0x" not in file.read_text()  # an address would differ from run to run
    with pytest.raises(InputError, match=r"00\d\d.png: .*cannot identify.*repair or remove"):
        stream(str(tmp_path / "set"), strict=True, **OPTIONS)


def test_held_out_examples_are_never_trained_on(tmp_path: Path) -> None:
    source = "hf:" + archives(tmp_path / "set")
    options = DataOptions(
        source=source, stream=True, holdout=0.3, **{k: v for k, v in OPTIONS.items() if k != "buffer"}
    )
    data, _ = open_training_data(options)
    assert isinstance(data, Stream)
    seen = Counter(itertools.chain(*steps(data, 30, batch=10)))
    train, heldout = open_data(options)
    assert sorted(numbers(train.everything())) == sorted(seen)
    assert sorted([*seen, *numbers(heldout.everything())]) == list(range(COUNT))
    assert 8 <= len(heldout) <= 28  # binomial: 18 ± 3.5
    assert [k % 3 for k in numbers(heldout.everything())] == heldout.labels.tolist()
    assert data.fingerprint() == train.first_of
    other, _ = open_training_data(options.model_copy(update={"split_seed": 1}))
    assert sorted(set(itertools.chain(*steps(other, 30, batch=10)))) != sorted(seen)  # type: ignore[arg-type]
    assert other.fingerprint() != data.fingerprint()


def test_the_held_out_examples_do_not_depend_on_the_shards(tmp_path: Path) -> None:
    """One archive cut otherwise: the choice is by content."""
    first = stream(archives(tmp_path / "one"), **OPTIONS).without(0.3, SEED)
    whole = tmp_path / "two"
    whole.mkdir()
    with tarfile.open(whole / "train.tar", "w") as archive:
        for part in sorted((tmp_path / "one").iterdir(), reverse=True):
            with tarfile.open(part) as shard:
                for entry in shard:
                    archive.addfile(entry, shard.extractfile(entry))
    second = stream(str(whole), **OPTIONS).without(0.3, SEED)
    kept = [set(itertools.chain(*steps(data, 10))) for data in (first, second)]
    assert kept[0] == kept[1] != set(range(COUNT))


def test_a_run_goes_on_exactly(tmp_path: Path) -> None:
    source = archives(tmp_path / "set", broken=(4,))
    weights = []
    for parts in ([13], [6, 13]):
        run = tmp_path / f"run{len(parts)}"
        for number, count in enumerate(parts):
            data = stream(source, **OPTIONS)
            torch.manual_seed(SEED)
            net = torch.nn.Sequential(
                torch.nn.Flatten(), torch.nn.Linear(108, 108), torch.nn.Unflatten(1, (3, 6, 6))
            )
            model = sf.Denoiser(
                Plain(net), sf.process.from_betas(sf.process.cosine_betas(50)), data=data.spec
            )
            options: dict[str, Any] = {
                "steps": count,
                "batch_size": 8,
                "seed": SEED,
                "run": run,
                "resume": number > 0,
                "device": "cpu",
            }
            for _ in sf.train(sf.objectives.Simple(model), data, **options):
                pass
        weights.append(net[1].weight.detach())
    assert torch.equal(*weights)
    states = [
        json.loads((path / "state.json").read_text())
        for path in sorted((tmp_path / "run2" / "checkpoints").iterdir())
    ]
    assert [state["epoch_length"] for state in states][-1] == COUNT
    assert (tmp_path / "run2" / "broken-files.txt").read_text().count("\n") == 1


class Plain(torch.nn.Module):
    config = {"kind": "custom"}

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x, c, y=None):
        return self.net(x)


def test_parquet_with_names_of_classes(tmp_path: Path) -> None:
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b", "c"])}
    )
    (tmp_path / "set").mkdir()
    for shard in range(2):
        rows = range(shard * 20, shard * 20 + 20)
        cells = {
            "image": [{"bytes": png(picture(k)), "path": None} for k in rows],
            "label": [k % 3 for k in rows],
        }
        table = datasets.Dataset.from_dict(cells, features=features)
        table.to_parquet(tmp_path / "set" / f"train-0000{shard}-of-00002.parquet")
    data = stream(str(tmp_path / "set"), buffer=8)
    assert (data.spec.shape, data.spec.classes) == ((3, 6, 6), ("a", "b", "c"))
    (part,) = Prefetcher(data.order(40, SEED)).parts(0)
    assert sorted(numbers(part.values)) == list(range(40))
    assert [k % 3 for k in numbers(part.values)] == part.y.tolist()
    grey = stream(str(tmp_path / "set"), size=3, channels=1)
    assert Prefetcher(grey.order(4, SEED)).parts(0)[0].values.shape == (4, 1, 3, 3)


def test_folders_of_pictures_and_no_labels(tmp_path: Path) -> None:
    for k in range(20):
        path = tmp_path / "tree" / "train" / "ab"[k % 2] / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(picture(k)))
    data = stream(str(tmp_path / "tree"))
    assert data.spec.classes == ("a", "b")
    (part,) = Prefetcher(data.order(20, SEED)).parts(0)
    assert [k % 2 for k in numbers(part.values)] == part.y.tolist()
    assert not stream(archives(tmp_path / "bare", labels=False)).labelled


def test_what_opening_refuses(tmp_path: Path) -> None:
    source = archives(tmp_path / "set")
    with pytest.raises(InputError, match=r"column 'cls' holds plain integers.*data.classes"):
        stream(source)
    with pytest.raises(InputError, match=r"the label 2, and the classes are 0 … 1"):
        stream(source, classes=2)
    with pytest.raises(InputError, match="smaller than 9×9"):
        stream(source, size=9, classes=3)
    with pytest.raises(InputError, match="more than half"):
        stream(archives(tmp_path / "broken", tuple(range(50))), classes=3)
    with pytest.raises(InputError, match=r"cannot be loaded"):
        stream(str(tmp_path / "nothing"))
    with pytest.raises(InputError, match="buffer"):
        stream(source, classes=3, buffer=0)
    with pytest.raises(InputError, match="positive integer, got 0"):
        stream(source, classes=0)
    datasets.Dataset.from_dict({"image": [png(picture(0))]}).save_to_disk(tmp_path / "saved")
    with pytest.raises(InputError, match=r"written by save_to_disk.*sf.data.hf"):
        stream(str(tmp_path / "saved"))
    with pytest.raises(InputError, match="nothing is left to train on"):
        steps(stream(source, **OPTIONS).without(0.999999, 0), 1)


def test_a_stream_that_breaks_off(tmp_path: Path) -> None:
    data = stream(archives(tmp_path / "set"), classes=3, buffer=4)
    feed = Prefetcher(data.order(10, SEED))
    feed.parts(0)
    for shard in (tmp_path / "set").iterdir():
        shard.unlink()
    with pytest.raises(InputError, match=r"broke off.*resume the run"):
        list(map(feed.parts, range(1, 12)))


def test_broken_pictures_of_one_name_are_two(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    contents = [png(picture(0)), b"broken", b"broken too", *(png(picture(k)) for k in range(3, 8))]
    cells = {"image": [{"bytes": content, "path": "dup.png"} for content in contents]}
    table = datasets.Dataset.from_dict(cells, features=datasets.Features({"image": datasets.Image()}))
    table.to_parquet(tmp_path / "set" / "train-00000-of-00001.parquet")
    file = tmp_path / "broken-files.txt"
    Prefetcher(stream(str(tmp_path / "set")).order(8, SEED), unreadable_files=file).parts(0)
    names = [line.split("\t")[0] for line in file.read_text().splitlines()]
    assert len(set(names)) == 2
    assert all(name.startswith("dup.png (") for name in names)


def test_no_step_after_the_last_is_read(tmp_path: Path) -> None:
    order, read = stream(archives(tmp_path / "set"), **OPTIONS).order(10, SEED), []
    feed = Prefetcher(order, steps=3)
    take = order.take
    order.take = lambda step, *rest: (read.append(step), take(step, *rest))[1]
    for step in range(3):
        feed.parts(step)
    feed.close()
    assert read == [0, 1, 2]


def test_the_fingerprint_is_of_what_is_there_not_of_where(tmp_path: Path) -> None:
    for k in range(8):
        path = tmp_path / "tree" / "train" / "ab"[k % 2] / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(picture(k)))
    before = stream(str(tmp_path / "tree")).fingerprint()
    (tmp_path / "tree").rename(tmp_path / "moved")
    assert stream(str(tmp_path / "moved")).fingerprint() == before
    whole = stream(archives(tmp_path / "set", count=256), **OPTIONS).fingerprint()
    (tmp_path / "set" / "train-003.tar").unlink()
    assert stream(str(tmp_path / "set"), **OPTIONS).fingerprint() != whole


def test_a_step_that_failed_can_be_asked_for_again(tmp_path: Path) -> None:
    """What is read after a fault that passes is what would have been read without it, and so is how long an
    epoch is.
    """
    data = stream(archives(tmp_path / "set"), **OPTIONS)
    expected, order = steps(data, 13, batch=7), data.order(7, SEED)
    shuffled, failures = data.rows.shuffled, iter([35, 20])

    def failing(seed: int):
        rows, stop = shuffled(seed), next(failures, None)
        for number, row in enumerate(rows):
            if number == stop:
                raise InputError("the network is down")
            yield row

    data.rows.shuffled = failing
    found = []
    for step in range(13):
        for _ in range(3):
            try:
                found.append(numbers(order.take(step)[0]))
                break
            except InputError:
                continue
    assert found == expected
    assert order.epoch_length == COUNT


def test_nothing_is_read_after_a_fault_or_waited_for_at_the_end(tmp_path: Path) -> None:
    data = stream(archives(tmp_path / "set"), **OPTIONS)
    order, asked, stalled = data.order(10, SEED), [], threading.Event()
    take = order.take

    def failing(step: int, *rest: int):
        asked.append(step)
        if step == 1:
            raise InputError("the network is down")
        if step == 3:
            stalled.wait(60)
        return take(step, *rest)

    order.take = failing  # type: ignore[assignment]
    feed = Prefetcher(order)
    feed.parts(0)
    with pytest.raises(InputError, match="the network is down"):
        feed.parts(1)
    assert asked == [0, 1]
    feed.parts(2)  # and with it 3, which stalls
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "read ahead")
    stalled.set()
    feed.close()


def test_the_fingerprint_is_of_the_first_examples(tmp_path: Path) -> None:
    source = archives(tmp_path / "set")
    assert (
        stream(source, **(OPTIONS | {"buffer": 9})).fingerprint() != stream(source, **OPTIONS).fingerprint()
    )
    prints = [stream(source, **OPTIONS).fingerprint(), stream(source, **OPTIONS).fingerprint()]
    assert prints[0] == prints[1]
    assert stream(source, **(OPTIONS | {"size": 5})).fingerprint() != prints[0]
    assert stream(archives(tmp_path / "other", broken=(0,)), **OPTIONS).fingerprint() != prints[0]


@pytest.mark.slow
def test_the_command_killed_and_resumed(tmp_path: Path) -> None:
    """kill -9 in the middle of an epoch: the weights are those of a run that was left alone; evaluate finds
    its held-out examples.
    """
    source = "hf:" + archives(tmp_path / "set", broken=(3,), count=200)
    changes = (
        "data.stream=true",
        "data.classes=3",
        "data.size=8",
        "data.upscale=true",
        "data.channels=1",
        "training.checkpoint_every=5",
    )
    options = [
        "--data",
        source,
        "--steps",
        "60",
        "--device",
        "cpu",
        *(word for change in changes for word in ("--set", change)),
    ]
    environment = {**os.environ, "HF_DATASETS_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}

    def command(run: Path, *more: str) -> subprocess.Popen[str]:
        line = [sys.executable, "-m", "scorefield", "train", "digits", "--run", str(run), *more]
        return subprocess.Popen(line, env=environment, text=True, stderr=subprocess.PIPE)

    assert command(tmp_path / "whole", *options).wait() == 0
    killed = command(tmp_path / "killed", *options)
    while not list((tmp_path / "killed" / "checkpoints").glob("step-00000010")):
        assert killed.poll() is None
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert command(tmp_path / "killed", "--resume").wait() == 0
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "killed")]
    assert weights[0] == weights[1]
    line = [
        sys.executable,
        "-m",
        "scorefield",
        "evaluate",
        str(tmp_path / "killed"),
        "--metrics",
        "bpd",
        "-n",
        "8",
    ]
    found = subprocess.run(line, env=environment, text=True, capture_output=True)
    assert found.returncode == 0, found.stderr
    assert "is not what this run was trained on" not in found.stderr
