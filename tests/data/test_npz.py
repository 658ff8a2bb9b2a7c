from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from support import loaded

from scorefield.data import npz
from scorefield.runtime import free_memory
from scorefield.runtime.errors import InputError


def save(path: Path, **arrays) -> Path:
    np.savez_compressed(path / "data.npz", **arrays)
    return path / "data.npz"


def test_grey_images_with_integer_labels(tmp_path: Path, paint) -> None:
    images = np.stack([paint(6, 5, 1, seed) for seed in range(4)])
    data = npz(save(tmp_path, images=images, labels=np.array([30, -2, 30, 7], dtype=np.int16)))
    assert data.spec.shape == (1, 6, 5)
    assert data.spec.bins == 256
    assert np.array_equal(loaded(data)[:, 0].numpy(), images)
    assert data.spec.classes == ("-2", "7", "30")
    assert data.labels is not None
    assert data.labels.tolist() == [2, 0, 2, 1]


def test_colour_images_with_named_labels(tmp_path: Path, paint) -> None:
    images = np.stack([paint(seed=seed) for seed in range(3)])
    data = npz(str(save(tmp_path, images=images, labels=np.array(["dog", "été", "cat"]))))
    assert np.array_equal(loaded(data).permute(0, 2, 3, 1).numpy(), images)
    assert data.spec.classes == ("cat", "dog", "été")
    assert data.labels is not None
    assert data.labels.tolist() == [1, 2, 0]
    assert data.source.endswith("data.npz")


def test_a_last_axis_of_one_and_no_labels(tmp_path: Path, paint) -> None:
    data = npz(save(tmp_path, images=paint(8, 8, 1)[None, ..., None]))
    assert data.spec.shape == (1, 8, 8)
    assert data.labels is None
    assert data.spec.classes == ()


def test_labels_of_the_full_range(tmp_path: Path, paint) -> None:
    images = np.stack([paint(4, 4, 1)] * 2)
    data = npz(save(tmp_path, images=images, labels=np.array([2**64 - 1, 0], dtype=np.uint64)))
    assert data.spec.classes == ("0", str(2**64 - 1))
    assert data.labels is not None
    assert data.labels.tolist() == [1, 0]


def test_sizes_and_channels(tmp_path: Path, paint) -> None:
    images = np.stack([paint(40, 48, seed=seed) for seed in range(3)])
    path = save(tmp_path, images=images)
    assert np.array_equal(loaded(npz(path, size=40)).permute(0, 2, 3, 1).numpy(), images[:, :, 4:44])
    assert npz(path, size=16).values.shape == (3, 3, 16, 16)
    assert npz(path, size=16, channels=1).values.shape == (3, 1, 16, 16)
    assert npz(path, channels=1).values.shape == (3, 1, 40, 48)
    assert npz(path, size=64, upscale=True).values.shape == (3, 3, 64, 64)
    with pytest.raises(InputError, match=r"3 of 3 images are smaller than 64×64 \(all are 48×40\).*upscale"):
        npz(path, size=64)


def test_grey_becomes_three_equal_channels(tmp_path: Path, paint) -> None:
    images = paint(8, 8, 1)[None]
    levels = npz(save(tmp_path, images=images), channels=3).values
    assert torch.equal(levels, torch.from_numpy(images)[:, None].expand(1, 3, 8, 8))  # type: ignore[arg-type]


def test_further_arrays_are_kept_by_name(tmp_path: Path, paint) -> None:
    images = np.stack([paint(4, 4, 1, seed) for seed in range(3)])
    mask = images > 100
    embedding = np.random.default_rng(0).normal(size=(3, 5))
    path = save(
        tmp_path,
        images=images,
        labels=np.arange(3),
        mask=mask,
        embedding=embedding,
        age=np.array([3, 1, 2], dtype=np.uint16),
        names=np.array(["a", "b", "c"]),  # text
        mean=embedding.mean(axis=0),  # of another length
        objects=np.array([{}, None, 1], dtype=object),
        y=np.arange(3),  # reserved
    )
    data = npz(path)
    assert sorted(data.arrays) == ["age", "embedding", "mask"]
    assert np.array_equal(data.arrays["mask"].numpy(), mask)
    assert torch.equal(data.arrays["embedding"], torch.from_numpy(embedding).float())
    assert data.arrays["age"].dtype == torch.int64
    assert data.arrays["age"].tolist() == [3, 1, 2]
    plain = npz(save(tmp_path, images=images, labels=np.arange(3)))
    assert plain.fingerprint() == data.fingerprint()
    assert data.fingerprint(["mask"]) not in (data.fingerprint(), data.fingerprint(["mask", "age"]))
    with pytest.raises(InputError, match="there is no array 'mask'; further arrays here: none"):
        plain.fingerprint(["mask"])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([1.0, np.nan]), "1 of 2 entries of `extra` in .* hold NaN or infinite values"),
        (np.array([1e300, 1.0]), "1 of 2 entries of `extra` in .* hold NaN or infinite values"),
        (np.array([2**63, 1], dtype=np.uint64), r"`extra` holds integers of 2\*\*63"),
    ],
)
def test_further_arrays_that_are_refused(tmp_path: Path, array: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        npz(save(tmp_path, images=zeros(2, 4, 4), extra=array))


def zeros(*shape: int, dtype: str = "uint8") -> np.ndarray:
    return np.zeros(shape, dtype=dtype)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x_train": zeros(2, 4, 4), "y": zeros(2)}, "no `images` in this archive, it holds `x_train`, `y`"),
        ({}, "it holds nothing"),
        ({"images": zeros(2, 4, 4, dtype="float32")}, r"must be uint8.*float32.*astype"),
        ({"images": np.full((2, 4, 4), np.nan)}, "NaN or infinite"),
        ({"images": zeros(2, 4, 4, dtype="int64")}, "must be uint8.*int64"),
        ({"images": zeros(2, 4, 4, dtype="bool")}, "must be uint8.*bool"),
        ({"images": zeros(4, 4)}, r"got \(4, 4\)"),
        ({"images": zeros(0, 4, 4)}, r"N at least 1, got \(0, 4, 4\)"),
        ({"images": zeros(2, 4, 0)}, r"got \(2, 4, 0\)"),
        ({"images": zeros(2, 4, 4, 4)}, r"C 1 or 3.*got \(2, 4, 4, 4\)"),
        ({"images": zeros(2, 3, 8, 8)}, r"channels come last, use images\.transpose\(0, 2, 3, 1\)"),
        ({"images": zeros(2, 4, 4), "labels": zeros(3)}, "2 images but 3 labels"),
        ({"images": zeros(2, 4, 4), "labels": zeros(2, 1)}, r"labels must be integers or text.*\(2, 1\)"),
        (
            {"images": zeros(2, 4, 4), "labels": zeros(2, dtype="float64")},
            "labels must be integers or text.*float64",
        ),
        ({"images": zeros(2, 4, 4), "labels": np.array(5)}, "labels must be integers or text"),
        (
            {"images": zeros(2, 4, 4), "labels": np.array(["a", None], dtype=object)},
            "cannot be read.*[Oo]bject arrays",
        ),
        ({"images": np.array([{}], dtype=object)}, "cannot be read"),
    ],
)
def test_each_mistake_gets_one_clear_line(tmp_path: Path, arrays: dict, message: str) -> None:
    path = save(tmp_path, **arrays)
    with pytest.raises(InputError, match=message) as caught:
        npz(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_files_that_are_no_archive(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        npz(tmp_path / "nowhere.npz")
    with pytest.raises(InputError, match=r"this is a folder.*expected an \.npz archive"):
        npz(tmp_path)
    path = tmp_path / "x.npz"
    for content in (b"", b"garbage", b"PK\x03\x04", b"\x93NUMPY"):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"not an \.npz archive"):
            npz(path)
    with path.open("wb") as stream:
        np.save(stream, zeros(2, 4, 4))
    with pytest.raises(InputError, match=r"not an \.npz archive"):
        npz(path)


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    with pytest.raises(InputError, match="cannot be read"):
        npz(save(tmp_path, images=np.array([Evil()], dtype=object)))
    assert not (tmp_path / "ran").exists()


def test_random_damage_never_escapes(tmp_path: Path, paint) -> None:
    path = save(
        tmp_path,
        images=np.stack([paint(8, 8, 1, seed) for seed in range(4)]),
        labels=np.arange(4),
        z=np.ones(4),
    )
    whole, rng = path.read_bytes(), np.random.default_rng(1)
    for number in range(150):
        damaged = bytearray(whole[: rng.integers(1, len(whole))] if number % 3 == 0 else whole)
        for place in rng.integers(0, len(damaged), 3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        with contextlib.suppress(InputError):
            assert len(npz(path)) >= 1


def test_bad_options(tmp_path: Path, paint) -> None:
    path = save(tmp_path, images=paint(8, 8, 1)[None])
    with pytest.raises(InputError, match="at least 1 pixel"):
        npz(path, size=0)
    with pytest.raises(InputError, match="channels = 2"):
        npz(path, channels=2)


def test_arrays_without_names_are_images_and_labels(tmp_path: Path, paint) -> None:
    """As guided-diffusion's scripts write their samples: np.savez(path, images, labels)."""
    images, labels = np.stack([paint(8, 8, 3, seed) for seed in range(4)]), np.array([2, 0, 2, 7])
    np.savez(tmp_path / "a.npz", images, labels)
    data = npz(tmp_path / "a.npz")
    assert np.array_equal(data.everything().permute(0, 2, 3, 1).numpy(), images)
    assert data.labels is not None
    assert data.labels.tolist() == [1, 0, 1, 2]
    assert data.spec.classes == ("0", "2", "7")
    assert not data.arrays
    np.savez(tmp_path / "b.npz", images)
    assert npz(tmp_path / "b.npz").labels is None
    np.savez(tmp_path / "c.npz", images, images=images[:2])  # named arrays come first
    assert len(npz(tmp_path / "c.npz")) == 2
    np.savez(tmp_path / "d.npz", images.astype(np.float32))
    with pytest.raises(InputError, match="must be uint8"):
        npz(tmp_path / "d.npz")


def test_pipes_are_refused_and_what_is_no_images_is_not_loaded(tmp_path: Path, monkeypatch) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    with pytest.raises(InputError, match="this is a named pipe"):
        npz(tmp_path / "pipe.npz")
    path = save(tmp_path, images=np.zeros((4, 3, 8, 8), np.uint8))
    monkeypatch.setattr(np.lib.format, "read_array", lambda *_, **__: pytest.fail("an array was loaded"))
    with pytest.raises(InputError, match="channels come last"):
        npz(path)


def test_colour_images_that_memory_does_not_hold_twice_are_refused(tmp_path, monkeypatch):
    np.savez(tmp_path / "a.npz", images=np.zeros((4, 8, 8, 3), np.uint8))
    free = [4 * 8 * 8 * 3, 4 * 8 * 8 * 3 - 1]  # once they are read, less is left than they need
    monkeypatch.setattr(free_memory, "free_memory", lambda: free.pop(0))
    with pytest.raises(InputError, match="4 images with their channels first: this needs"):
        npz(tmp_path / "a.npz")
