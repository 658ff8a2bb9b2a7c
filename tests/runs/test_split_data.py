"""A run trained on a data set that was split in Python finds the same held-out examples again."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import scorefield as sf
from scorefield.runs.build import open_data, read_run


def folder(tmp_path: Path) -> sf.Dataset:
    values = np.random.default_rng(0).integers(0, 256, (12, 10, 14, 3), dtype=np.uint8)
    for i, value in enumerate(values):
        path = tmp_path / "photos" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(value).save(path)
    return sf.data.folder(tmp_path / "photos", size=8, channels=1)


def archive(tmp_path: Path) -> sf.Dataset:
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", images=images, labels=np.arange(20) % 3)
    return sf.data.npz(tmp_path / "x.npz")


SOURCES = {
    "digits": lambda _: sf.data.digits(),
    "folder": folder,
    "npz": archive,
    "toy": lambda _: sf.data.toy("moons"),
}


def trained(data: sf.Dataset, run: Path) -> None:
    net = sf.nets.MLP(math.prod(data.spec.shape), hidden=4, layers=1)
    model = sf.Denoiser(net, sf.process.cosine(10), data=data.spec)
    for _ in sf.train(sf.objectives.Simple(model), data, steps=1, batch_size=4, run=run, device="cpu"):
        pass


@pytest.mark.parametrize("kind", SOURCES)
def test_the_split_of_a_run_is_found_again(kind: str, tmp_path: Path) -> None:
    train, heldout = SOURCES[kind](tmp_path).split(0.25, seed=3)
    trained(train, tmp_path / "run")
    again = open_data(read_run(str(tmp_path / "run"), ())[0].data)
    assert [part.fingerprint() for part in again] == [train.fingerprint(), heldout.fingerprint()]
    assert train.fingerprint() != heldout.fingerprint()


def test_a_run_on_all_examples_has_no_heldout_ones(tmp_path: Path) -> None:
    data = sf.data.digits()
    trained(data, tmp_path / "run")
    train, heldout = open_data(read_run(str(tmp_path / "run"), ())[0].data)
    assert train.fingerprint() == data.fingerprint()
    assert len(heldout) == 0


def test_what_no_recipe_can_read_is_not_described() -> None:
    digits = sf.data.digits()
    first, _ = digits.split(0.5, seed=0)
    assert first.read_as == {"source": "digits", "holdout": 0.5, "split_seed": 0}
    assert first.split(0.5, seed=0)[0].read_as == {}
    assert first.subset(torch.arange(5)).read_as == {}
    assert sf.data.tensor(torch.zeros(4, 2)).split(0.5, seed=0)[0].read_as == {}
    assert sf.data.toy("moons", n=50).read_as == {}
