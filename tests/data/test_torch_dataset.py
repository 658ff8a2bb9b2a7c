from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset
from torch.utils.data import Dataset as MapDataset

import scorefield as sf
from scorefield.core.shapes import DataSpec
from scorefield.data import Prefetcher, Source, TorchDataset, digits, tensor, torch_dataset
from scorefield.runtime.errors import InputError

COUNT, SEED = 30, 3


class Made(MapDataset[object]):
    """COUNT items, each made when it is asked for; `asked` lists which were."""

    def __init__(self, make: Callable[[int], object], count: int = COUNT) -> None:
        self.make, self.count = make, count
        self.asked: list[int] = []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> object:
        self.asked.append(index)
        return self.make(index)


def scan(index: int) -> dict[str, object]:
    """A scanned digit with its label and two further arrays."""
    data = digits()
    assert isinstance(data.values, Tensor)
    assert data.labels is not None
    return {
        "image": data.values[index],
        "label": int(data.labels[index]),
        "number": index,
        "mask": data.values[index] > 3,
        "name": f"scan {index}",
        "names": np.array(["scan", str(index)]),
    }


@pytest.fixture(scope="module")
def scans() -> list[dict[str, object]]:
    return [scan(index) for index in range(COUNT)]


@pytest.fixture
def source(scans: list[dict[str, object]]) -> TorchDataset:
    return torch_dataset(Made(scans.__getitem__), data_spec=digits().spec)


def in_memory() -> sf.Dataset:
    data = digits().subset(torch.arange(COUNT))
    assert isinstance(data.values, Tensor)
    return replace(data, arrays={"number": torch.arange(COUNT), "mask": data.values > 3})


def same(one: Sequence[Tensor | None], other: Sequence[Tensor | None]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(a is not None and b is not None and torch.equal(a, b) for a, b in pairs)


def test_batches_are_those_of_the_same_items_in_memory(source: TorchDataset) -> None:
    assert isinstance(source, Source)
    assert source.array_names == ("mask", "number")  # the text is ignored
    assert repr(source) == "TorchDataset('Made', 30 items of (1, 8, 8), 10 classes, arrays mask, number)"
    expected = Prefetcher(in_memory().order(8, SEED), cuts=2)
    found = Prefetcher(source.order(8, SEED), cuts=2)
    for step in (0, 1, 2, 3, 9, 4):
        for ours, theirs in zip(found.parts(step), expected.parts(step), strict=True):
            assert same(ours[:4], theirs[:4])
            for name in ("mask", "number"):
                assert torch.equal(ours.arrays[name], theirs.arrays[name])
                assert ours.arrays[name].dtype == theirs.arrays[name].dtype
    found.close()
    assert same(source.some(5)[:4], in_memory().some(5)[:4])
    assert same(
        *([part.some(5).arrays[name] for name in ("mask", "number")] for part in (source, in_memory()))
    )


@pytest.mark.parametrize("threads", [1, 3])
def test_processes_share_a_batch(scans: list[dict[str, object]], threads: int) -> None:
    made = [
        torch_dataset(Made(scans.__getitem__), data_spec=digits().spec, threads=threads) for _ in range(2)
    ]
    ranks = [Prefetcher(each.order(8, SEED), rank, 2) for rank, each in enumerate(made)]
    for step in range(6):
        shares = [rank.parts(step)[0] for rank in ranks]
        expected = in_memory().order(8, SEED).order.indices(step)
        assert torch.cat([share.arrays["number"] for share in shares]).tolist() == expected.tolist()
        assert torch.cat([share.positions for share in shares]).tolist() == list(range(8))
    for rank in ranks:
        rank.close()


def test_items_are_read_when_they_are_needed(scans: list[dict[str, object]]) -> None:
    data = Made(scans.__getitem__)
    source = torch_dataset(data, data_spec=digits().spec, probe=2)
    assert set(data.asked) == {0, 15}
    data.asked.clear()
    feed = Prefetcher(source.order(4, SEED), steps=3)
    feed.parts(0), feed.parts(1), feed.parts(2)
    feed.close()
    order = source.order(4, SEED).order
    assert data.asked == [int(index) for step in range(3) for index in order.indices(step)]


def train(data: Source, steps: int, folder: Path | None = None, resume: bool = False) -> dict[str, Tensor]:
    torch.manual_seed(0)
    spec = digits().spec
    net = sf.nets.UNet(1, channels=32, channel_mult=(1,), blocks=1, attention=(), num_classes=10)
    model = sf.Denoiser(net, sf.process.from_betas(sf.process.cosine_betas(1000)), data=spec)
    objective = sf.objectives.Simple(model)
    trainer = sf.train(
        objective,
        data,
        steps=steps,
        batch_size=6,
        run=folder,
        resume=resume,
        device="cpu",
        checkpoint_every=3,
    )
    assert len(list(trainer)) == (3 if resume else steps)
    return trainer.ema_model().state_dict()


def test_training_and_resuming_are_exact(scans: list[dict[str, object]], tmp_path: Path) -> None:
    def fresh() -> TorchDataset:
        return torch_dataset(Made(scans.__getitem__), data_spec=digits().spec)

    expected = train(in_memory(), 6)
    train(fresh(), 3, tmp_path / "run")
    resumed = train(fresh(), 6, tmp_path / "run", resume=True)
    assert all(torch.equal(resumed[name], value) for name, value in expected.items())
    config = (tmp_path / "run" / "config.toml").read_text()
    assert 'source = "Made"' in config
    assert "examples = 30" in config
    with pytest.raises(InputError, match="trained on other data"):
        train(torch_dataset(Made(scans.__getitem__, 29), data_spec=digits().spec), 9, tmp_path / "run", True)


def test_train_takes_a_data_set_without_labels() -> None:
    x = torch.randn(20, 2)
    model = sf.Denoiser(sf.nets.MLP(2, hidden=8), sf.process.from_betas(sf.process.linear_betas(1000)))
    losses = [
        [
            step.loss
            for step in sf.train(sf.objectives.Simple(model), data, steps=1, batch_size=4, device="cpu")
        ]
        for data in (x, TensorDataset(x))
    ]
    assert len(losses[0]) == len(losses[1]) == 1
    assert model.data is not None
    assert model.data.shape == (2,)


def test_what_items_are() -> None:
    images = torch.randint(0, 256, (COUNT, 3, 4, 4), dtype=torch.uint8)
    plain = torch_dataset(TensorDataset(images))
    assert plain.spec == DataSpec((3, 4, 4), bins=256)
    assert not plain.labelled
    assert plain.source == "TensorDataset"
    pairs = torch_dataset(
        TensorDataset(images, torch.arange(COUNT) % 3), classes=["a", "b", "c"], name="mine"
    )
    assert pairs.spec.classes == ("a", "b", "c")
    assert pairs.source == "mine"
    assert same([pairs.some(4).y], [torch.tensor([0, 1, 2, 0])])
    assert torch_dataset(TensorDataset(images, torch.arange(COUNT) % 3), classes=()).some(4).y is None
    part = torch_dataset(Subset(TensorDataset(images), [4, 2]))
    assert torch.equal(part.share(torch.arange(2), torch.arange(2)).values, images[[4, 2]])
    points = torch.linspace(-3, 5, COUNT).double()[:, None]
    assert torch_dataset(TensorDataset(points)).spec == tensor(points[[0, -1]]).spec
    assert torch_dataset(TensorDataset(points / 5)).spec.range == (-1.0, 1.0)
    # torchvision's ToTensor divides by 255: with bins in the spec, the bins are found again
    scaled = torch_dataset(TensorDataset(images / 255), data_spec=DataSpec((3, 4, 4), (0, 1), bins=256))
    assert torch.equal(scaled.share(torch.arange(5), torch.arange(5)).values, images[:5])
    torch.testing.assert_close(scaled.some(5).x0, images[:5] / 255)
    assert torch_dataset(list(images)).spec == plain.spec  # anything with __len__ and __getitem__
    numbers = Made(
        lambda k: {"x": images[k], "y": np.int64(k % 2), "size": np.float64(k), "at": np.arange(2)}
    )
    found = torch_dataset(numbers, classes=2)
    assert found.array_names == ("at", "size")
    assert found.share(torch.arange(3), torch.arange(3)).arrays["size"].tolist() == [0.0, 1.0, 2.0]


def test_the_range_of_images_is_said_or_found_wrong() -> None:
    images = torch.rand(COUNT, 1, 4, 4)
    with pytest.raises(InputError, match=r"data_spec=sf.DataSpec\(\(1, 4, 4\), range=\(0, 1\)\)"):
        torch_dataset(TensorDataset(images))
    said = torch_dataset(TensorDataset(images), data_spec=DataSpec((1, 4, 4), (0, 1)))
    assert said.spec.range == (0, 1)
    with pytest.raises(InputError, match=r"item 0 has values .* outside the range"):
        torch_dataset(TensorDataset(images * 255), data_spec=DataSpec((1, 4, 4), (0, 1)))
    images[3] -= 0.5
    later = torch_dataset(TensorDataset(images * 1.5), data_spec=DataSpec((1, 4, 4), (0, 1.5)), probe=2)
    with pytest.raises(InputError, match="item 3 has values"):
        later.some(8)


def test_fingerprint_is_of_the_length_and_the_probed_items(source: TorchDataset) -> None:
    images = torch.randint(0, 256, (COUNT, 1, 4, 4), dtype=torch.uint8)

    def prints(changed: Tensor, **options: Any) -> str:
        return torch_dataset(TensorDataset(changed), **options).fingerprint()

    before = prints(images)
    assert before == prints(images.clone())
    assert len(before) == 16
    other = images.clone()
    other[7] = 255 - other[7]
    assert prints(other) != before
    assert prints(images[:-1]) != before
    assert prints(other, probe=3) == prints(images, probe=3)  # of 0, 10 and 20
    assert (
        prints(other, fingerprint="a") == prints(images, fingerprint="a") != prints(images, fingerprint="b")
    )
    plain, masked = source.fingerprint(), source.fingerprint(["mask"])
    assert len({plain, masked, source.fingerprint(["mask", "number"])}) == 3
    with pytest.raises(InputError, match="there is no array 'masks'; further arrays here: mask, number"):
        source.fingerprint(["masks"])


def test_random_items_need_a_name() -> None:
    noisy = Made(lambda k: torch.randn(2))
    with pytest.raises(InputError, match=r"Made: item 0 differs each time it is read.*flip, shift"):
        torch_dataset(noisy)
    named = torch_dataset(noisy, fingerprint="noise")
    assert named.fingerprint() == torch_dataset(noisy, fingerprint="noise").fingerprint()


class Endless(IterableDataset[Tensor]):
    def __iter__(self) -> Iterator[Tensor]:
        yield torch.zeros(2)


class Unsized(MapDataset[Tensor]):
    def __getitem__(self, index: int) -> Tensor:
        return torch.zeros(2)


IMAGE = torch.zeros(1, 4, 4, dtype=torch.uint8)


def at(bad: int, value: object, usual: object = IMAGE) -> Made:
    """`usual` but at one index, where an exception is raised, or something else returned."""

    def make(index: int) -> object:
        if index == bad and isinstance(value, Exception):
            raise value
        return value if index == bad else usual

    return Made(make, 3)


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (Endless(), {}, r"Endless is iterable-style.*sf\.data\.stream"),
        (Unsized(), {}, r"Unsized object.* has no __len__"),
        (DataLoader(TensorDataset(IMAGE)), {}, r"loader\.dataset"),
        (Made(lambda k: IMAGE, 0), {}, "Made is empty"),
        (at(2, ValueError("no such\nfile")), {}, r"Made: item 2 cannot be read \(ValueError: no such file\)"),
        (at(1, IMAGE[:, :3]), {}, r"item 1 has shape \(1, 3, 4\); expected \(1, 4, 4\)"),
        (at(1, IMAGE.float()), {}, "item 1: .*grid|item 1"),
        (at(1, torch.full((2,), torch.nan), torch.zeros(2)), {}, "item 1 holds NaN"),
        (at(1, "text"), {}, "item 1 is a str; expected a tensor, a pair"),
        (at(1, (IMAGE, 1, 2)), {}, "item 1 has 3 parts"),
        (at(1, {"picture": IMAGE}), {}, "item 1 is a dict with 'picture'"),
        (at(0, {"image": IMAGE, "x": IMAGE}), {}, "item 0 is a dict with 'image', 'x'"),
        (at(0, {"image": IMAGE, "images": 1}), {}, "cannot be called 'images'"),
        (at(0, (IMAGE, 1)), {}, r"items have labels.*classes=K"),
        (at(1, IMAGE, (IMAGE, 1)), {"classes": 2}, "item 1 has the label None; expected an integer 0 … 1"),
        (at(1, (IMAGE, 2), (IMAGE, 1)), {"classes": 2}, "item 1 has the label 2"),
        (at(1, (IMAGE, torch.tensor(0.5)), (IMAGE, 1)), {"classes": 2}, "item 1 has the label tensor"),
        (at(1, (IMAGE, "cat"), (IMAGE, 1)), {"classes": 2}, r"the label 'cat'.*classes=\(\)"),
        (at(1, {"x": IMAGE}, {"x": IMAGE, "m": 1}), {}, "item 1 has no array 'm'"),
        (at(1, {"x": IMAGE, "m": IMAGE}, {"x": IMAGE, "m": 1}), {}, r"item 1: 'm' has shape \(1, 4, 4\)"),
        (at(0, torch.zeros(2, 2, dtype=torch.uint8)), {}, r"item 0 is torch.uint8 \(2, 2\)"),
        (at(0, torch.zeros(2, dtype=torch.int64)), {}, "item 0 is torch.int64"),
        (at(0, IMAGE, IMAGE), {"threads": 0}, "threads must be a positive integer"),
        (at(0, IMAGE, IMAGE), {"probe": True}, "probe must be a positive integer"),
        (at(0, (IMAGE, 1), (IMAGE, 1)), {"classes": 0}, "classes is their number, at least 1"),
        (
            at(0, IMAGE, IMAGE),
            {"data_spec": DataSpec((1, 4, 4), classes=("a",), bins=256), "classes": 1},
            "has classes already",
        ),
        (
            at(1, IMAGE + 20, IMAGE),
            {"data_spec": DataSpec((1, 4, 4), bins=17)},
            "item 1 has the value 20; the bins are 0 … 16",
        ),
    ],
)
def test_each_mistake_gets_one_clear_line(
    data: MapDataset[object], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        torch_dataset(data, **options)
    assert "\n" not in str(caught.value)


def test_an_item_that_fails_while_training_names_itself() -> None:
    def make(index: int) -> Tensor:
        if index == 7:
            raise OSError("the disk has gone")
        return torch.full((2,), index / COUNT)

    model = sf.Denoiser(nn.Identity(), sf.process.from_betas(sf.process.linear_betas(1000)))
    source = torch_dataset(Made(make), probe=3)
    feed = Prefetcher(source.order(COUNT, SEED))
    with pytest.raises(InputError, match=r"Made: item 7 cannot be read \(OSError: the disk has gone\)"):
        feed.parts(0)
    feed.close()
    with pytest.raises(InputError, match=r"data must be a source of sf\.data.*got \[tensor.*torch_dataset"):
        sf.train(sf.objectives.Simple(model), [torch.zeros(2)], steps=1)  # type: ignore[arg-type]
