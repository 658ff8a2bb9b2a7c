"""Images decoded on demand, against the same images in memory and against their files read one by one."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import scorefield as sf
from scorefield.data import Dataset, EpochOrder, Prefetcher, folder, open_source
from scorefield.data.images.unreadable import UnreadableLog
from scorefield.data.sources.hub import hf
from scorefield.runtime.errors import InputError

SEED = 3


@pytest.fixture
def many(tmp_path: Path, paint) -> Path:
    """Three classes of 5, 7 and 11 pictures of 12×12, some in folders below."""
    root = tmp_path / "many"
    for label, count in (("ant", 5), ("bee", 7), ("cow", 11)):
        for number in range(count):
            path = root / label / (f"deep{number % 2}" if number > 3 else "") / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(paint(12, 12, seed=100 * count + number)).save(path)
    return root


def read(path: Path) -> torch.Tensor:
    return torch.from_numpy(np.asarray(Image.open(path).convert("RGB")).transpose(2, 0, 1).copy())


def both(root: Path, **options) -> tuple[Dataset, Dataset]:
    return folder(root, size=8, **options), folder(root, size=8, on_demand=True, **options)


def spoil(root: Path, *names: str) -> None:
    for name in names:
        (root / name).write_bytes(b"not a picture")


def test_files_are_listed_in_the_order_of_sorted_paths(many: Path) -> None:
    expected = sorted(path for path in many.rglob("*") if path.is_file())
    data = folder(many, size=12, on_demand=True)
    assert [data.values.files.content(k) for k in range(len(data))] == expected
    assert torch.equal(data.values[torch.arange(len(data))], torch.stack([read(path) for path in expected]))
    assert [data.spec.classes[y] for y in data.labels.tolist()] == [
        path.relative_to(many).parts[0] for path in expected
    ]


def test_batches_and_splits_are_those_in_memory(many: Path) -> None:
    held, streamed = both(many)
    assert streamed.spec == held.spec
    assert not streamed.in_memory
    assert torch.equal(streamed.everything(), held.everything())
    for ours, theirs in zip(streamed.split(0.25, SEED), held.split(0.25, SEED)):
        assert len(ours) == len(theirs)
        indices = torch.randperm(len(ours), generator=torch.Generator().manual_seed(SEED)).repeat(2)
        for one, other in zip(ours.batch(indices), theirs.batch(indices)):
            assert torch.equal(one, other)
    grey, grey_streamed = (folder(many, size=6, channels=1, on_demand=stream) for stream in (False, True))
    assert torch.equal(grey_streamed.everything(), grey.everything())


def test_training_gives_the_same_weights(many: Path) -> None:
    weights = []
    for data in both(many):
        torch.manual_seed(SEED)
        net = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(192, 192), torch.nn.Unflatten(1, (3, 8, 8))
        )
        model = sf.Denoiser(Plain(net), sf.process.from_betas(sf.process.cosine_betas(50)), data=data.spec)
        options: dict[str, Any] = {
            "steps": 6,
            "batch_size": 8,
            "flip": True,
            "dequantize": True,
            "accumulation": 2,
            "seed": SEED,
        }
        for _ in sf.train(sf.objectives.Simple(model), data, device="cpu", **options):
            pass
        weights.append(net[1].weight.detach())
    assert torch.equal(*weights)


class Plain(torch.nn.Module):
    config = {"kind": "custom"}

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x, c, y=None):
        return self.net(x)


def test_a_feed_reads_ahead_what_a_step_is_made_of(many: Path) -> None:
    """In turn, backwards, from the middle, and by three processes in two parts each: always the batch of that
    step.
    """
    data = folder(many, size=8, on_demand=True)
    order = EpochOrder(len(data), 12, SEED)
    expected = [folder(many, size=8).batch(order.indices(step)) for step in range(8)]
    feed = Prefetcher(data.order(12, SEED))
    for step in (0, 1, 2, 3, 7, 6, 2, 3):
        (part,) = feed.parts(step)
        assert torch.equal(part.x0, expected[step][0])
        assert torch.equal(part.y, expected[step][1])
        assert torch.equal(part.positions, torch.arange(12))
        assert torch.equal(data.spec.from_bins(part.values), part.x0)
    ranks = [Prefetcher(data.order(12, SEED), rank, 3, 2) for rank in range(3)]
    for step in (5, 6):
        shares = [part for feed in ranks for part in feed.parts(step)]
        assert torch.equal(torch.cat([part.x0 for part in shares]), expected[step][0])
        assert torch.cat([part.positions for part in shares]).tolist() == list(range(12))
    assert feed.waited > 0


def test_the_next_one_of_the_class_stands_in_for_a_broken_one(many: Path) -> None:
    whole = folder(many, size=12)
    names = [str(path.relative_to(many)) for path in sorted(many.rglob("*.png"))]
    bees = [name for name in names if name.startswith("bee")]
    spoil(many, bees[2], bees[3], bees[-1])  # two in a row, and the last one, whose next is the first
    data = folder(many, size=12, on_demand=True)
    expected = {bees[2]: bees[4], bees[3]: bees[4], bees[-1]: bees[0]}
    sources = [names.index(expected.get(name, name)) for name in names]
    for _ in range(2):
        assert torch.equal(data.everything(), whole.values[torch.tensor(sources)])
    assert torch.equal(data.labels, whole.labels)
    assert set(data.unreadable.names) == {bees[2], bees[3], bees[-1]}


def test_a_held_out_picture_never_stands_in(many: Path) -> None:
    for path in (many / "ant").rglob("*.png"):
        path.rename(many / "ant" / path.name)
    train, _ = folder(many, size=12, on_demand=True).split(0.4, SEED)
    ants = [k for k in range(len(train)) if train.labels[k] == 0]
    names = [train.values.files.name(int(train.values.numbers[k])) for k in ants]
    assert len(names) == 3
    spoil(many, *names[:2])
    (only,) = (read(many / name) for name in names[2:])
    assert all(torch.equal(image, only) for image in train.values[torch.tensor(ants)])
    assert set(train.unreadable.names) == set(names[:2])


def test_broken_files_are_named_once_each(many: Path, tmp_path: Path) -> None:
    """By two processes and again by a run that goes on; a line that was cut off is written anew."""
    spoil(many, "ant/0.png", "ant/1.png", "cow/2.png")
    file = tmp_path / "broken-files.txt"
    for _ in range(2):
        feeds = [
            Prefetcher(folder(many, size=12, on_demand=True).order(24, SEED), rank, 2, 1, file)
            for rank in range(2)
        ]
        for step in range(3):
            for feed in feeds:
                feed.parts(step)
        for feed in feeds:
            feed.close()
        lines = file.read_text().splitlines()
        assert sorted(line.split("\t")[0] for line in lines) == ["ant/0.png", "ant/1.png", "cow/2.png"]
        assert all("cannot identify image file" in line for line in lines)
        with file.open("a") as stream:
            stream.write("half a na")
    skipping = folder(many, size=12)
    Prefetcher(skipping.order(4, SEED), unreadable_files=tmp_path / "skipped.txt")
    lines = (tmp_path / "skipped.txt").read_text().splitlines()
    assert sorted(line.split("\t")[0] for line in lines) == ["ant/0.png", "ant/1.png", "cow/2.png"]
    assert all("cannot identify image file" in line for line in lines)


def test_names_take_one_line(tmp_path: Path) -> None:
    broken, file = UnreadableLog(), tmp_path / "names.txt"
    broken.write_to(file)
    for _ in range(2):
        broken.add("new\nline\t.png", "two\nlines")
        broken.add("ümlaut\u2028.png", "")
    assert file.read_bytes().decode().split("\n") == [
        "new\\x0aline\\x09.png\ttwo\\x0alines",
        "ümlaut\u2028.png\t",
        "",
    ]
    assert len(broken) == 2


def test_strict_and_a_disk_that_is_gone(many: Path) -> None:
    strict, lenient = (folder(many, size=8, on_demand=True, strict=strict) for strict in (True, False))
    spoil(many, "bee/0.png")
    with pytest.raises(InputError, match=r"bee/0.png cannot be used.*repair or remove it"):
        strict.everything()
    feed = Prefetcher(strict.order(len(strict), SEED))
    with pytest.raises(InputError, match=r"bee/0.png"):
        feed.parts(0)
    shutil.rmtree(many)
    with pytest.raises(InputError, match=r"neither can .*is the disk still there\? .*no such file"):
        lenient.everything()


def test_what_opening_refuses(many: Path, paint) -> None:
    with pytest.raises(InputError, match="smaller than 16×16"):
        folder(many, size=16, on_demand=True)
    assert folder(many, size=16, on_demand=True, upscale=True).spec.shape == (3, 16, 16)
    Image.fromarray(paint(12, 13)).save(many / "cow" / "wide.png")
    with pytest.raises(InputError, match="images differ in size"):
        folder(many, size=None, on_demand=True)
    names = [str(path.relative_to(many)) for path in sorted(many.rglob("*.png"))]
    spoil(many, *names[: len(names) // 2 + 1])
    with pytest.raises(InputError, match="more than half"):
        folder(many, size=8, on_demand=True)


def test_another_size_is_met_late(many: Path, paint) -> None:
    Image.fromarray(paint(12, 13)).save(many / "cow" / "wide.png")
    Image.fromarray(paint(5, 5)).save(many / "bee" / "small.png")
    same, small = (folder(many, size=size, on_demand=True, probe=1) for size in (None, 8))
    same.everything(), small.everything()
    assert set(same.unreadable.names) == {"cow/wide.png", "bee/small.png"}
    assert same.unreadable.names["cow/wide.png"] == "13×12 pixels, but the others have 12×12"
    assert small.unreadable.names == {"bee/small.png": "5×5 is smaller than 8×8"}


def test_the_fingerprint_is_of_names_classes_and_size(many: Path) -> None:
    prints = [folder(many, size=size, on_demand=True).fingerprint() for size in (8, 8, 6)]
    assert prints[0] == prints[1] != prints[2]
    data = folder(many, size=8, on_demand=True)
    assert len({data.fingerprint(), *(part.fingerprint() for part in data.split(0.3, SEED))}) == 3
    os.rename(many / "cow" / "0.png", many / "cow" / "00.png")
    assert folder(many, size=8, on_demand=True).fingerprint() != prints[0]


def test_images_are_decoded_on_demand_above_the_limit(many: Path) -> None:
    limit = 23 * 8 * 8 * 3
    for on_demand, size, channels, expected in (
        (None, 8, 3, True),
        (None, 9, 3, False),
        (False, 9, 3, True),
        (True, 8, 3, False),
        (None, 9, 1, True),
    ):
        data = folder(many, size=size, channels=channels, on_demand=on_demand, memory=limit)
        assert data.in_memory == expected
    assert open_source(str(many), size=9).in_memory
    assert not open_source(str(many), size=8, stream=True).in_memory


def test_tables_of_datasets_are_decoded_on_demand(
    many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    paths = [str(path) for path in sorted(many.rglob("*.png"))]
    rows = [{"bytes": Path(path).read_bytes(), "path": Path(path).name} for path in paths]
    rows[4] = {"bytes": b"not a picture", "path": "broken.png"}
    table = datasets.Dataset.from_dict(
        {"image": rows, "label": [k % 2 for k in range(23)]},
        features=datasets.Features(
            {"image": datasets.Image(), "label": datasets.ClassLabel(names=["even", "odd"])}
        ),
    )
    (tmp_path / "parquet").mkdir()
    table.to_parquet(tmp_path / "parquet" / "train-00000-of-00001.parquet")
    data = hf(str(tmp_path / "parquet"), on_demand=True)
    assert (data.spec.shape, data.spec.classes, len(data)) == ((3, 12, 12), ("even", "odd"), 23)
    sources = [6 if k == 4 else k for k in range(23)]
    assert torch.equal(data.everything(), torch.stack([read(Path(paths[k])) for k in sources]))
    assert data.labels.tolist() == [k % 2 for k in range(23)]
    assert list(data.unreadable.names) == ["broken.png (row 4)"]
    assert data.fingerprint() == hf(str(tmp_path / "parquet"), on_demand=True).fingerprint()


def test_a_run_on_shards_resumes_exactly(many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three tar files of webdataset: 3 steps and 3 more are 6, and the pictures are those in the archives."""
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    paths = sorted(many.rglob("*.png"))
    (tmp_path / "shards").mkdir()
    for shard in range(3):
        with tarfile.open(tmp_path / "shards" / f"train-{shard:04d}.tar", "w") as archive:
            for k, path in list(enumerate(paths))[8 * shard : 8 * shard + 8]:
                archive.add(path, f"{k:03d}.png")
                label = tarfile.TarInfo(f"{k:03d}.cls")
                label.size = 1
                archive.addfile(label, io.BytesIO(str(k % 3).encode()))
    data = hf(str(tmp_path / "shards"), on_demand=True)
    assert torch.equal(data.everything(), torch.stack([read(path) for path in paths]))
    assert data.labels.tolist() == [k % 3 for k in range(23)]
    weights = []
    for parts in ([6], [3, 6]):
        run = tmp_path / f"run{len(parts)}"
        for number, steps in enumerate(parts):
            torch.manual_seed(SEED)
            net = torch.nn.Sequential(
                torch.nn.Flatten(), torch.nn.Linear(432, 432), torch.nn.Unflatten(1, (3, 12, 12))
            )
            model = sf.Denoiser(
                Plain(net), sf.process.from_betas(sf.process.cosine_betas(50)), data=data.spec
            )
            options: dict[str, Any] = {
                "steps": steps,
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


def test_colour_among_grey_is_not_lost(tmp_path: Path, paint, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    images = [Image.fromarray(paint(8, 8, channels=channels)) for channels in (1, 3)]
    table = datasets.Dataset.from_dict(
        {"image": images}, features=datasets.Features({"image": datasets.Image()})
    )
    table.save_to_disk(tmp_path / "saved")
    data = hf(str(tmp_path / "saved"), on_demand=True, probe=1)
    assert data.spec.shape == (1, 8, 8)
    with pytest.raises(InputError, match="row 1 is in colour"):
        data.everything()
