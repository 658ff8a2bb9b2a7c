from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from support import loaded

from scorefield.core.shapes import DataSpec
from scorefield.data import Dataset, Prefetcher, digits, tensor
from scorefield.runtime import free_memory
from scorefield.runtime.errors import InputError


@pytest.fixture(scope="module")
def scans() -> Dataset:
    return digits()


def labelled(counts: list[int]) -> Dataset:
    """One pixel an example, the level its number; labels in turn."""
    labels = torch.cat([torch.full((count,), k, dtype=torch.int64) for k, count in enumerate(counts)])
    levels = torch.arange(len(labels)).to(torch.uint8).reshape(-1, 1, 1, 1)
    spec = DataSpec((1, 1, 1), classes=tuple(map(str, range(len(counts)))), bins=256)
    return Dataset(spec, levels, labels, "made")


def test_digits_are_the_ones_scikit_learn_gives(scans: Dataset) -> None:
    load_digits = pytest.importorskip("sklearn.datasets").load_digits
    images, labels = load_digits(return_X_y=True)
    assert torch.equal(loaded(scans).flatten(1), torch.from_numpy(images).to(torch.uint8))
    assert scans.labels is not None
    assert scans.labels.tolist() == labels.tolist()


def test_digits_describe_themselves(scans: Dataset) -> None:
    assert len(scans) == 1797
    assert scans.spec == DataSpec((1, 8, 8), classes=tuple("0123456789"), bins=17)
    assert scans.values.dtype == torch.uint8
    assert int(loaded(scans).max()) == 16
    assert (scans.source, scans.skipped) == ("digits", ())


def test_digits_without_scikit_learn(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    import importlib.util
    from types import SimpleNamespace

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install scikit-learn"):
        digits()
    moved = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: moved)
    with pytest.raises(InputError, match=r"not where scikit-learn kept them.*digits\.csv\.gz"):
        digits()


def test_batch_maps_levels_onto_the_range(scans: Dataset) -> None:
    indices = torch.tensor([5, 0, 5])
    x0, y = scans.batch(indices)
    assert x0.dtype == torch.float32
    assert x0.shape == (3, 1, 8, 8)
    torch.testing.assert_close(x0, scans.values[indices].float() / 8 - 1)
    assert x0.min() == -1
    assert x0.max() == 1
    assert y is not None
    assert y.tolist() == [5, 0, 5]
    assert y.dtype == torch.int64
    assert replace(scans, labels=None).batch(indices)[1] is None


def test_subset_keeps_order_and_description(scans: Dataset) -> None:
    part = replace(scans, skipped=("a.png",)).subset(torch.tensor([3, 1]))
    assert len(part) == 2
    assert part.labels is not None
    assert part.labels.tolist() == [3, 1]
    assert part.spec == scans.spec
    assert part.skipped == ("a.png",)


def test_digits_split_a_fifth(scans: Dataset) -> None:
    train, heldout = scans.split(0.2, seed=0)
    assert (len(train), len(heldout)) == (1437, 360)
    total = torch.bincount(scans.labels)
    held = torch.bincount(heldout.labels)
    assert ((held - 0.2 * total).abs() < 1).all()
    both = torch.cat([loaded(train), loaded(heldout)]).flatten(1).double() @ torch.arange(
        1.0, 65.0
    ).double().pow(3)
    original = loaded(scans).flatten(1).double() @ torch.arange(1.0, 65.0).double().pow(3)
    assert torch.equal(both.sort().values, original.sort().values)


@pytest.mark.parametrize("seed", [0, 1, 2**40])
@pytest.mark.parametrize("fraction", [0.0, 0.001, 0.07, 0.1, 0.29, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("counts", [[30], [1, 1, 1], [1, 50, 2], [3, 3, 3], [100, 0, 7], [2]])
def test_split_is_exact_disjoint_and_proportional(counts: list[int], fraction: float, seed: int) -> None:
    data = labelled(counts)
    train, heldout = data.split(fraction, seed)
    numbers = [loaded(part).flatten().tolist() for part in (train, heldout)]
    assert sorted(numbers[0] + numbers[1]) == list(range(sum(counts)))
    assert all(part == sorted(part) for part in numbers)
    assert len(heldout) == min(math.ceil(round(fraction * sum(counts), 9)), sum(counts) - 1)
    held = torch.bincount(heldout.labels, minlength=len(counts))
    assert ((held - fraction * torch.tensor(counts)).abs() < 1 + 1e-6).all()


def test_split_leaves_every_class_something_to_train_on_where_it_can() -> None:
    train, heldout = labelled([1, 1, 8, 2]).split(0.1, seed=0)
    assert set(train.labels.tolist()) == {0, 1, 2, 3}
    assert heldout.labels.tolist() in ([2, 2], [2, 3])


def test_split_depends_on_seed_and_labels_only(scans: Dataset) -> None:
    again = scans.split(0.2, seed=0)[1]
    assert again.fingerprint() == scans.split(0.2, seed=0)[1].fingerprint() == "994525b9b28de9ac"
    assert scans.split(0.2, seed=1)[1].fingerprint() != again.fingerprint()
    inverted = replace(scans, values=16 - loaded(scans))
    assert torch.equal(loaded(inverted.split(0.2, seed=0)[1]), 16 - loaded(again))


def test_split_without_labels_and_of_points() -> None:
    train, heldout = tensor(torch.randn(10, 2)).split(0.25, seed=4)
    assert (len(train), len(heldout)) == (7, 3)
    everything, nothing = tensor(torch.randn(10, 2)).split(0.0, seed=4)
    assert (len(everything), len(nothing)) == (10, 0)
    assert nothing.fingerprint()


@pytest.mark.parametrize("fraction", [1.0, -0.1, 1.5, float("nan")])
def test_split_refuses_other_fractions(scans: Dataset, fraction: float) -> None:
    with pytest.raises(InputError, match="held-out fraction"):
        scans.split(fraction, 0)


def test_one_example_cannot_be_split() -> None:
    with pytest.raises(InputError, match="cannot be split"):
        labelled([1]).split(0.1, 0)
    assert len(labelled([1]).split(0.0, 0)[0]) == 1


def test_fingerprint_is_of_the_content(scans: Dataset) -> None:
    assert scans.fingerprint() == "683b7a14f32684aa"
    assert len(scans.fingerprint()) == 16
    assert replace(scans, source="elsewhere", skipped=("x",)).fingerprint() == scans.fingerprint()
    every_other = torch.arange(0, 1797, 2)
    strided = replace(scans, values=loaded(scans)[::2], labels=scans.labels[::2])
    assert strided.fingerprint() == scans.subset(every_other).fingerprint()
    changed = loaded(scans).clone()
    changed[1000, 0, 4, 4] ^= 1
    different = {
        scans.fingerprint(),
        replace(scans, values=changed).fingerprint(),
        replace(scans, labels=None).fingerprint(),
        replace(scans, labels=scans.labels.flip(0)).fingerprint(),
        replace(
            scans, values=loaded(scans).reshape(-1, 1, 4, 16), spec=replace(scans.spec, shape=(1, 4, 16))
        ).fingerprint(),
        scans.subset(every_other).fingerprint(),
    }
    assert len(different) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": torch.zeros(4, 1, 8, 8)}, "torch.uint8"),
        ({"values": torch.zeros(4, 1, 8, 9, dtype=torch.uint8)}, "1, 8, 8"),
        (
            {"values": torch.full((4, 1, 8, 8), 17, dtype=torch.uint8)},
            "the value 17 is not one of the 17 bins",
        ),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, "one int64 label"),
        ({"labels": torch.zeros(4)}, "one int64 label"),
        ({"labels": torch.tensor([0, 1, 2, 10])}, "from 0 to 10, but there are 10 classes"),
        ({"labels": torch.tensor([0, 1, 2, -1])}, "from -1 to 2"),
    ],
)
def test_inconsistent_parts_are_refused(scans: Dataset, change: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        replace(scans.subset(torch.arange(4)), **change)


def test_tensor_keeps_values_and_names_labels() -> None:
    x = torch.randn(6, 2, dtype=torch.float64) * 3
    data = tensor(x, torch.tensor([7, -1, 7, 100, -1, 7]))
    assert data.spec.bins is None
    assert data.spec.shape == (2,)
    assert data.source == "tensor"
    assert data.spec.classes == ("-1", "7", "100")
    assert data.labels is not None
    assert data.labels.tolist() == [1, 0, 1, 2, 0, 1]
    assert torch.equal(data.batch(torch.arange(6))[0], x.float())
    assert data.spec.range == (float(x.float().min()), float(x.float().max()))
    kept = x.float().clone()
    x.zero_()
    assert torch.equal(loaded(data), kept)


def test_tensor_range() -> None:
    assert tensor(torch.rand(5, 1, 4, 4) - 0.5).spec.range == (-1.0, 1.0)
    assert tensor(torch.rand(5, 2)).spec.range == (-1.0, 1.0)
    standardized = (PIXELS - PIXELS.mean()) / PIXELS.std()
    assert tensor(standardized).spec.range == (float(standardized.min()), float(standardized.max()))
    assert tensor(torch.full((5, 2), 7.0)).spec.range == (6.0, 8.0)
    assert tensor(torch.tensor([[0.0, 2.0]])).spec.range == (0.0, 2.0)
    assert tensor(torch.rand(5, 1, 4, 4), range=(0, 1)).spec.range == (0.0, 1.0)
    assert tensor(torch.rand(5, 3, 4, 4) * 9, torch.arange(5), range=(0, 9)).spec.classes == tuple("01234")


def test_uint8_images_have_256_levels() -> None:
    x = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8)
    data = tensor(x)
    assert (data.spec.bins, data.spec.range) == (256, (-1.0, 1.0))
    torch.testing.assert_close(data.batch(torch.arange(5))[0], x / 127.5 - 1)
    assert tensor(x, range=(0, 1)).batch(torch.arange(5))[0].max() <= 1
    x.zero_()
    assert loaded(data).max() > 0


PIXELS = torch.arange(256.0)[torch.arange(2 * 16).reshape(2, 1, 4, 4) * 7 % 256]


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (PIXELS, r"give them as uint8 \(x.to\(torch.uint8\)\), or scale them to -1"),
        (PIXELS.flatten(1), "give them as uint8"),
        (PIXELS / 255, r"0 … 0.*range=\(0, 1\)"),
        (PIXELS.repeat(1, 3, 1, 1) / 128, r"the images are 0 … 1.*sf.data.tensor\(x, range="),
        (PIXELS.to(torch.uint8)[:, 0], r"use x\[:, None\]"),
        (PIXELS.to(torch.uint8).permute(0, 2, 3, 1), r"use x.permute\(0, 3, 1, 2\)"),
        (PIXELS.to(torch.int16), "uint8 images"),
    ],
)
def test_a_range_is_never_guessed(x: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tensor(x)


def test_a_range_must_hold_the_values() -> None:
    with pytest.raises(InputError, match=r"the values are 0 … 217, outside range=\(0, 1\)"):
        tensor(PIXELS, range=(0, 1))
    with pytest.raises(InputError, match="ascend"):
        tensor(PIXELS, range=(255, 0))


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.randn(4), None, r"x\[:, None\]"),
        (torch.randn(0, 2), None, "N at least 1"),
        (torch.ones(4, 2, dtype=torch.int64), None, "floating point"),
        (
            torch.tensor([[1.0, math.nan], [0.0, 0.0], [math.inf, 0.0]]),
            None,
            "2 of 3 examples hold NaN or infinite",
        ),
        (torch.tensor([[1e300, 0.0]], dtype=torch.float64), None, "infinite"),
        (torch.randn(4, 2), torch.tensor([0, 1]), "4 examples but 2 labels"),
        (torch.randn(4, 2), torch.randn(4), "labels must be integers"),
        (torch.randn(4, 2), torch.ones(4, 1, dtype=torch.int64), "labels must be integers"),
    ],
)
def test_tensor_refuses(x: torch.Tensor, y: torch.Tensor | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tensor(x, y)


def with_arrays() -> Dataset:
    """20 examples that carry their own number in every array."""
    number = torch.arange(20)
    return tensor(number[:, None] / 20, number % 3, number=number, mask=torch.stack([number % 2 == 0] * 4, 1))


def test_arrays_follow_their_examples() -> None:
    data = with_arrays()
    assert data.arrays["mask"].dtype == torch.bool
    train, heldout = data.split(0.3, seed=1)
    for part in (data, train, heldout, data.subset(torch.tensor([7, 3, 7]))):
        assert torch.equal(loaded(part)[:, 0], part.arrays["number"] / 20)
        assert torch.equal(part.arrays["mask"], (part.arrays["number"] % 2 == 0)[:, None].expand(-1, 4))
    indices = torch.tensor([4, 0, 19])
    assert data.arrays_at(indices)["number"].tolist() == [4, 0, 19]
    assert digits().arrays_at(indices) == {}


def test_arrays_in_the_order_of_training_on_several_processes() -> None:
    data = with_arrays()
    ranks = [Prefetcher(data.order(8, seed=5), rank, 2, 2) for rank in range(2)]
    for step in (0, 3, 1):
        parts = [part for rank in ranks for part in rank.parts(step)]
        assert [len(part.x0) for part in parts] == [2] * 4
        for part in parts:
            assert torch.equal(part.x0[:, 0], part.arrays["number"] / 20)
            assert part.arrays["mask"].shape == (2, 4)
        expected = data.order(8, seed=5).order.indices(step)
        assert torch.equal(torch.cat([part.arrays["number"] for part in parts]), expected)


def test_fingerprint_covers_the_arrays_that_are_named() -> None:
    data = with_arrays()
    plain = replace(data, arrays={})
    assert data.fingerprint() == plain.fingerprint() == data.fingerprint([])
    changed = replace(data, arrays={**data.arrays, "number": data.arrays["number"] + 1})
    assert changed.fingerprint(["mask"]) == data.fingerprint(["mask"])
    assert data.fingerprint(["mask", "number"]) == data.fingerprint(("number", "mask"))
    found = {
        *(data.fingerprint(names) for names in ([], ["mask"], ["number"], ["mask", "number"])),
        changed.fingerprint(["number"]),
    }
    assert len(found) == 5


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"extra": torch.zeros(3)}, r"`extra` must hold one entry for each of 4.*float32 \(3,\)"),
        ({"extra": torch.tensor(1)}, "one entry for each of 4"),
        ({"extra": torch.tensor([1.0, 2.0, math.inf, 0.0])}, "1 of 4 entries of `extra`"),
        ({"extra": torch.zeros(4, dtype=torch.complex64)}, "real numbers, got torch.complex64"),
        ({"labels": torch.zeros(4)}, "'labels' is reserved"),
    ],
)
def test_arrays_that_are_refused(arrays: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tensor(torch.zeros(4, 2), **arrays)  # type: ignore[arg-type]


def test_a_split_that_memory_does_not_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = tensor(torch.zeros(10, 1, 8, 8, dtype=torch.uint8))
    monkeypatch.setattr(free_memory, "free_memory", lambda: 9 * 64 - 1)
    with pytest.raises(InputError, match="a copy of 9 of its 10 examples: this needs"):
        data.split(0.1, 0)
    assert data.split(0, 0)[0].values is data.values
    monkeypatch.setattr(free_memory, "free_memory", lambda: 9 * 64)
    assert [len(part) for part in data.split(0.1, 0)] == [9, 1]
