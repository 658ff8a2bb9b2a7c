"""Subfolders that are no classes; what was read is said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import scorefield as sf
from scorefield.data import folder

SIDE = 6


def paint(path: Path, value: int = 7) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((SIDE, SIDE, 3), value, np.uint8)).save(path)


def labels(data: sf.Dataset) -> list[int] | None:
    return None if data.labels is None else data.labels.tolist()


@pytest.mark.parametrize("training", ["train", "Training"])
@pytest.mark.parametrize("other", ["val", "test", "Validation"])
def test_of_splits_the_training_part_is_read(tmp_path: Path, training: str, other: str) -> None:
    for name in (f"{training}/cat/a", f"{training}/dog/b", f"{training}/dog/c", f"{other}/cat/d"):
        paint(tmp_path / f"{name}.png")
    data = folder(tmp_path, size=None)
    assert data.spec.classes == ("cat", "dog")
    assert labels(data) == [0, 1, 1]
    assert any(
        f"images of {training} are read; {other} (1 images) are left out" in note for note in data.reading
    )
    lazy = folder(tmp_path, size=SIDE, on_demand=True)
    assert labels(lazy) == [0, 1, 1]
    assert lazy.notes[0] == data.notes[0]


def test_splits_without_subfolders_have_no_classes(tmp_path: Path) -> None:
    for name in ("train/a", "train/b", "test/c", "val/d"):
        paint(tmp_path / f"{name}.png")
    data = folder(tmp_path, size=None)
    assert (len(data), labels(data)) == (2, None)


def test_splits_without_a_training_part_are_refused(tmp_path: Path) -> None:
    for name in ("val/a", "test/c"):
        paint(tmp_path / f"{name}.png")
    with pytest.raises(
        sf.InputError, match=f"test and val are splits .* give the one to read, {tmp_path}/test"
    ):
        folder(tmp_path, size=None)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("car/a", "train/b", "ship/c"):
        paint(tmp_path / f"{name}.png")
    assert folder(tmp_path, size=None).spec.classes == ("car", "ship", "train")


@pytest.mark.parametrize(
    "names",
    [
        ["00000/img00000000", "00000/img00000999", "00001/img00001000"],  # StyleGAN
        ["00000/00000", "01000/01000", "01000/01999", "69000/69123"],  # FFHQ
        ["00000/000000003", "00001/000010007"],  # img2dataset
    ],
)
def test_shards_are_no_classes(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        paint(tmp_path / f"{name}.png")
    data = folder(tmp_path, size=None)
    assert (len(data), labels(data), data.spec.classes) == (len(names), None, ())
    assert any("parts of one set" in note for note in data.reading)


@pytest.mark.parametrize(
    "names",
    [
        ["00000/00000_00000", "00000/00000_00001", "00001/00000_00000"],  # traffic signs
        ["0/00000", "1/05923"],
        ["000/000000", "001/001000"],
        ["00000/a", "00001/b"],
        ["00000/img00000000", "00001/img00001000", "more/img00002000"],
    ],
)
def test_classes_with_numbers_are_classes(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        paint(tmp_path / f"{name}.png")
    assert len(folder(tmp_path, size=None).spec.classes) == len({name.split("/")[0] for name in names})


def test_dataset_json_gives_the_classes(tmp_path: Path) -> None:
    said = {"00000/img00000000.png": 5, "00000/img00000001.png": 10, "00001/img00001000.png": 5}
    for name in said:
        paint(tmp_path / name)
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": [*map(list, said.items())]}))
    data = folder(tmp_path, size=None)
    assert data.spec.classes == ("5", "10")
    assert labels(data) == [0, 1, 0]
    assert any("dataset.json gives the classes" in note for note in data.reading)
    paint(tmp_path / "00001/img00001001.png")
    with pytest.raises(sf.InputError, match=r"no label for 1 of 4 images \(first 00001/img00001001.png\)"):
        folder(tmp_path, size=None)
    (tmp_path / "dataset.json").write_text('{"labels": null}')
    assert labels(folder(tmp_path, size=None)) is None


@pytest.mark.parametrize(
    "content",
    [
        b"{}",
        b"[]",
        b"\xff",
        b"[" * 20_000,
        b'{"labels": [["a.png", 0.5]]}',
        b'{"labels": [["a.png", [0, 1]]]}',
        b'{"labels": {"a.png": 1}}',
        b'{"labels": [["a.png", 1], ["a.png", 1]]}',
        b'{"labels": [["a.png", ' + b"9" * 5000 + b"]]}",
        b'{"images": [], "annotations": []}',
    ],
)
def test_another_dataset_json_is_ignored_aloud(tmp_path: Path, content: bytes) -> None:
    paint(tmp_path / "a.png")
    (tmp_path / "dataset.json").write_bytes(content)
    data = folder(tmp_path, size=None)
    assert labels(data) is None
    assert [note for note in data.reading if "dataset.json" in note and "ignored" in note]


def test_twelve_bits_in_sixteen(tmp_path: Path) -> None:
    ramp = np.linspace(0, 4095, 256).round().astype(np.uint16).reshape(16, 16)
    Image.fromarray(ramp).save(tmp_path / "a.png")
    dark = folder(tmp_path, size=None, channels=1)
    assert any("values up to 4,095 of 65,535" in note and "data.white=4095" in note for note in dark.reading)
    data = folder(tmp_path, size=None, channels=1, white=4095)
    assert isinstance(data.values, torch.Tensor)
    assert data.values.unique().numel() == 256
    assert not data.notes
    assert (
        folder(tmp_path, 16, 1, on_demand=True, white=4095).fingerprint()
        != folder(tmp_path, 16, 1, on_demand=True).fingerprint()
    )
    bright = folder(tmp_path, size=None, channels=1, white=1000)
    assert isinstance(bright.values, torch.Tensor)
    assert int(bright.values.max()) == 255
    Image.fromarray(np.full((16, 16), 60_000, np.uint16)).save(tmp_path / "b.png")
    assert not folder(tmp_path, size=None, channels=1).notes


def test_what_is_read_is_said(tmp_path: Path) -> None:
    for name in ("cat/a", "cat/b", "dog/c"):
        paint(tmp_path / f"{name}.png")
    Image.fromarray(np.zeros((9, 12, 3), np.uint8)).save(tmp_path / "dog" / "wide.png")
    (tmp_path / "cat" / "broken.png").write_bytes(b"GIF89a")
    data = folder(tmp_path, size=4)
    first, skipped, fitted = data.reading
    assert (
        first
        == "images of 4×4 pixels, RGB; 256 levels, values -1 … 1 in the model; 2 classes: cat (2), dog (2)"
    )
    assert skipped.startswith("skipped 1 broken image: cat/broken.png (")
    assert (
        fitted == "4 images of 6×6 … 12×9 pixels are resized to 4×4, 1 of them cropped to the central square"
    )
    assert data.unreadable.names["cat/broken.png"] in skipped
    assert sf.data.digits().reading[0].startswith("images of 8×8 pixels, grey; 17 levels")
    points = sf.data.tensor(torch.randn(9, 2), torch.tensor([4, 5, 6] * 3), at=torch.arange(9))
    assert "3 classes: 4 (3), 5 (3), 6 (3); further arrays at" in points.reading[0]
    part = points.subset(torch.tensor([0, 3]))
    assert "(2 of them without examples)" in part.reading[0]


def test_what_is_read_is_said_in_a_bounded_text() -> None:
    names = ("n" * 100_000, "two\nlines", *map(str, range(100)))
    data = sf.data.tensor(torch.zeros(102, 2), torch.arange(102))
    arrays = {f"array{k}": torch.zeros(102) for k in range(300)}
    data = replace(data, spec=replace(data.spec, classes=names), arrays=arrays)
    (said,) = data.reading
    assert len(said) < 1000
    assert f"102 classes: {'n' * 60}… (1), two lines (1), 0 (1)" in said
    assert said.endswith("array114, array115, … of 300")


class Told:
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    @contextmanager
    def progress(self, what: str, total: int) -> Iterator[Told]:
        yield self

    def update(self, done: int, note: str = "", total: int | None = None) -> None: ...

    def advance(self) -> None: ...


def test_training_from_python_says_what_was_read() -> None:
    told, data = Told(), sf.data.tensor(torch.randn(8, 2), torch.arange(8) % 2)
    model = sf.Denoiser(sf.nets.MLP(2, hidden=8), sf.process.cosine(10), "v")
    objective = sf.objectives.Simple(model)
    list(sf.train(objective, data, steps=1, batch_size=4, device="cpu", progress=told))
    assert told.said[: len(data.reading)] == list(data.reading)
