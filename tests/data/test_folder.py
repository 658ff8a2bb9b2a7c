from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support import loaded

from scorefield.data import folder
from scorefield.data.images import scan
from scorefield.runtime import free_memory
from scorefield.runtime.errors import InputError


def one_line(caught: pytest.ExceptionInfo[InputError]) -> str:
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_subfolders_are_classes_in_sorted_order(pictures: Path) -> None:
    data = folder(pictures)
    assert data.spec.shape == (3, 32, 32)
    assert data.spec.bins == 256
    assert data.spec.range == (-1.0, 1.0)
    assert data.spec.classes == ("cat", "dog")
    assert data.labels is not None
    assert data.labels.tolist() == [0, 0, 0, 1, 1]
    for index, name in enumerate(["cat/0", "cat/1", "cat/2", "dog/0", "dog/1"]):
        pixels = np.asarray(Image.open(pictures / f"{name}.png"))
        assert np.array_equal(loaded(data)[index].permute(1, 2, 0).numpy(), pixels)
    assert data.source == str(pictures)


def test_a_flat_folder_is_unlabelled(pictures: Path) -> None:
    data = folder(str(pictures / "cat"))
    assert data.labels is None
    assert data.spec.classes == ()
    assert len(data) == 3


def test_the_order_is_the_same_every_time(tmp_path: Path, paint) -> None:
    for number in np.random.default_rng(0).permutation(60):
        Image.fromarray(paint(40, 33 + number % 7, seed=number)).save(tmp_path / f"{number:03d}.png")
    first, again = folder(tmp_path), folder(tmp_path)
    assert first.fingerprint() == again.fingerprint()
    assert not torch.equal(loaded(first)[0], loaded(first)[1])


def test_mixed_pictures(tmp_path: Path, paint) -> None:
    """Line 4 of what the Foundation issue asks: PNG and JPEG, grey, RGB, RGBA, palette, different sizes."""
    colour = Image.fromarray(paint(50, 70))
    colour.save(tmp_path / "a.png")
    colour.save(tmp_path / "b.JPG")
    colour.save(tmp_path / "c.JpEg", quality=50)
    colour.convert("L").save(tmp_path / "d.png")
    colour.convert("L").save(tmp_path / "e.jpeg")
    colour.convert("RGBA").save(tmp_path / "f.PNG")
    colour.convert("P").save(tmp_path / "g.png")
    colour.convert("LA").save(tmp_path / "h.png")
    colour.convert("CMYK").save(tmp_path / "i.jpg")
    colour.convert("1").save(tmp_path / "j.tif")
    colour.resize((32, 90)).save(tmp_path / "k.webp")
    Image.fromarray(paint(33, 33, 1).astype(np.uint16) * 257).save(tmp_path / "l.png")
    data = folder(tmp_path)
    assert data.values.shape == (12, 3, 32, 32)
    assert data.skipped == ()
    assert torch.equal(loaded(data)[0], loaded(data)[5])
    assert torch.equal(loaded(data)[3, 0], loaded(data)[3, 2])
    assert folder(tmp_path, size=16, channels=1).values.shape == (12, 1, 16, 16)


def test_pictures_at_any_depth_belong_to_the_top_subfolder(pictures: Path) -> None:
    (pictures / "cat" / "more" / "deep").mkdir(parents=True)
    shutil.copy(pictures / "dog" / "0.png", pictures / "cat" / "more" / "deep" / "x.png")
    data = folder(pictures)
    assert data.labels is not None
    assert data.labels.tolist() == [0, 0, 0, 0, 1, 1]


def test_what_is_ignored(pictures: Path) -> None:
    (pictures / ".hidden").mkdir()
    for name in (
        ".hidden/0.png",
        "dog/.0.png",
        "dog/._0.png",
        "dog/Thumbs.db",
        "dog/readme.txt",
        "labels.csv",
    ):
        (pictures / name).write_bytes(b"not a picture")
    (pictures / "empty").mkdir()
    data = folder(pictures, strict=True)
    assert len(data) == 5
    assert data.spec.classes == ("cat", "dog")
    assert data.skipped == ()


def test_links_are_followed_under_their_own_names(pictures: Path, tmp_path: Path) -> None:
    root = tmp_path / "links"
    (root / "own").mkdir(parents=True)
    os.symlink(pictures / "cat", root / "linked")
    os.symlink(pictures / "dog" / "0.png", root / "own" / "x.png")
    data = folder(root)
    assert data.spec.classes == ("linked", "own")
    assert data.labels is not None
    assert data.labels.tolist() == [0, 0, 0, 1]


def test_links_in_a_circle_end(pictures: Path) -> None:
    os.symlink(pictures, pictures / "cat" / "back")
    os.symlink(pictures / "cat", pictures / "cat" / "self")
    os.symlink(pictures / "nowhere", pictures / "nowhere")
    assert len(folder(pictures)) == 5


def test_corrupt_pictures_are_skipped_and_named(pictures: Path) -> None:
    whole = (pictures / "cat" / "1.png").read_bytes()
    (pictures / "cat" / "1.png").write_bytes(whole[: len(whole) // 2])
    os.symlink(pictures / "gone", pictures / "dog" / "broken.png")
    data = folder(pictures)
    assert data.skipped == (os.path.join("cat", "1.png"), os.path.join("dog", "broken.png"))
    assert data.labels is not None
    assert data.labels.tolist() == [0, 0, 1, 1]
    assert np.array_equal(
        loaded(data)[1].permute(1, 2, 0).numpy(), np.asarray(Image.open(pictures / "cat" / "2.png"))
    )
    with pytest.raises(InputError, match="2 of 6 images cannot be read") as caught:
        folder(pictures, strict=True)
    assert os.path.join("cat", "1.png") in one_line(caught)


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0junk",
        b"GIF89a",
        b"BM" + bytes(60),
        b"II*\x00\xff\xff\xff\xff",
    ],
)
def test_every_kind_of_damage_is_skipped(pictures: Path, garbage: bytes) -> None:
    (pictures / "cat" / "z.png").write_bytes(garbage)
    assert folder(pictures).skipped == (os.path.join("cat", "z.png"),)


@pytest.mark.parametrize("kind", ["png", "jpg", "gif", "bmp", "tif", "webp", "ppm"])
def test_random_damage_never_escapes(tmp_path: Path, paint, kind: str) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(paint()).save(tmp_path / f"whole.{kind}")
    whole = (tmp_path / f"whole.{kind}").read_bytes()
    for number in range(30):
        damaged = bytearray(whole[: rng.integers(1, len(whole))] if number % 3 == 0 else whole)
        for place in rng.integers(0, min(len(damaged), 200), 6):
            damaged[place] = rng.integers(256)
        (tmp_path / f"{number}.{kind}").write_bytes(damaged)
    for number in range(30):  # enough whole ones that the damaged cannot be more than half
        (tmp_path / f"whole{number}.{kind}").write_bytes(whole)
    data = folder(tmp_path, upscale=True)
    assert len(data) + len(data.skipped) == 61
    assert data.skipped


def test_a_pipe_named_like_a_picture_does_not_block(pictures: Path) -> None:
    os.mkfifo(pictures / "dog" / "pipe.png")
    assert folder(pictures).skipped == (os.path.join("dog", "pipe.png"),)


def test_a_bomb_is_skipped_quietly(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    Image.new("1", (60, 60)).save(pictures / "dog" / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    assert folder(pictures).skipped == (os.path.join("dog", "bomb.png"),)
    assert not list(recwarn)


def test_more_than_half_unreadable_is_an_error(pictures: Path) -> None:
    for name in ("cat/0.png", "cat/1.png", "dog/0.png"):
        (pictures / name).write_bytes(b"x")
    with pytest.raises(InputError, match=r"3 of 5 images cannot be read.*more than half") as caught:
        folder(pictures)
    one_line(caught)


def test_exactly_half_unreadable_is_not(tmp_path: Path, paint) -> None:
    Image.fromarray(paint()).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"x")
    assert folder(tmp_path).skipped == ("b.png",)


def test_none_left_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "only.png").write_bytes(b"x")
    with pytest.raises(InputError, match=r"1 of 1 image cannot be read.*only\.png"):
        folder(tmp_path)


def test_a_class_with_nothing_readable_is_an_error(pictures: Path) -> None:
    for name in ("0", "1"):
        (pictures / "dog" / f"{name}.png").write_bytes(b"x")
    with pytest.raises(InputError, match="no image of class 'dog'"):
        folder(pictures)


def test_small_pictures_are_counted(pictures: Path, paint) -> None:
    for number in range(5):
        Image.fromarray(paint(31, 100, seed=number)).save(pictures / "dog" / f"small{number}.png")
    with pytest.raises(
        InputError, match=r"5 of 10 images are smaller than 32×32 .*small0\.png: 100×31.*upscale"
    ) as caught:
        folder(pictures)
    one_line(caught)
    assert len(folder(pictures, upscale=True)) == 10
    assert len(folder(pictures, size=31)) == 10


def test_pictures_beside_subfolders_are_an_error(pictures: Path, paint) -> None:
    Image.fromarray(paint()).save(pictures / "stray.png")
    with pytest.raises(
        InputError, match=r"both in the folder itself \(stray\.png, …\) and in subfolders \(cat"
    ) as caught:
        folder(pictures)
    one_line(caught)


def test_missing_empty_and_not_a_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        folder(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no images found; expected files ending in \.bmp"):
        folder(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="no images found"):
        folder(tmp_path)
    with pytest.raises(InputError, match="found a file"):
        folder(tmp_path / "notes.txt")
    for strange in ("x" * 5000, "~no-such-user-here/x", "a\0b"):
        with pytest.raises(InputError, match=r"no such folder|no file can have (the|a) name"):
            folder(strange)


@pytest.mark.parametrize(
    ("options", "message"), [({"size": 0}, "at least 1 pixel"), ({"channels": 4}, "channels = 4")]
)
def test_bad_options(pictures: Path, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        folder(pictures, **options)


def test_names_that_are_not_text_become_text(tmp_path: Path, paint) -> None:
    strange = os.path.join(os.fsencode(tmp_path), b"caf\xe9")
    try:
        os.mkdir(strange)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    Image.fromarray(paint()).save(os.path.join(os.fsdecode(strange), "a.png"))
    (name,) = folder(tmp_path).spec.classes
    assert name == r"caf\xe9"
    assert name.encode("utf-8")


def test_class_names_keep_unicode_and_digits_sort_as_text(tmp_path: Path, paint) -> None:
    for name in ("10", "2", "été"):
        (tmp_path / name).mkdir()
        Image.fromarray(paint()).save(tmp_path / name / "a.png")
    assert folder(tmp_path).spec.classes == ("10", "2", "été")


def test_folders_linked_to_each_other_end_in_a_sentence(tmp_path: Path, paint) -> None:
    """Twelve of them have half a billion paths without a circle."""
    for here in range(12):
        (tmp_path / f"{here}").mkdir()
        Image.fromarray(paint()).save(tmp_path / f"{here}" / "a.png")
        for there in range(12):
            if there != here:
                os.symlink(tmp_path / f"{there}", tmp_path / f"{here}" / f"to{there}")
    with pytest.raises(InputError, match="links lead to one folder in more than 64 ways") as caught:
        folder(tmp_path)
    one_line(caught)


def test_twenty_links_to_one_folder_are_twenty_classes(pictures: Path, tmp_path: Path) -> None:
    root = tmp_path / "links"
    root.mkdir()
    for number in range(20):
        os.symlink(pictures / "cat", root / f"{number}")
    assert folder(root).spec.num_classes == 20


def test_folders_nested_too_deep_end_in_a_sentence(tmp_path: Path, paint) -> None:
    deep = tmp_path / "class" / "/".join("d" * 90)
    deep.mkdir(parents=True)
    Image.fromarray(paint()).save(deep / "a.png")
    assert len(folder(tmp_path)) == 1
    (deep / "/".join("d" * 60)).mkdir(parents=True)
    with pytest.raises(InputError, match="nested more than 100 deep") as caught:
        folder(tmp_path)
    one_line(caught)
    assert len(str(caught.value)) < 400


def test_more_folders_than_data_have_end_in_a_sentence(
    pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a link to the whole disk has."""
    monkeypatch.setattr(scan, "_FOLDERS", 3)
    for number in range(3):
        (pictures / f"{number}").mkdir()
    with pytest.raises(InputError, match=r"more than 3 folders: does a link lead to the whole disk\?"):
        folder(pictures)


def test_pipes_among_pictures_are_named_and_skipped(pictures: Path) -> None:
    os.mkfifo(pictures / "cat" / "pipe.png")
    os.symlink("/dev/zero", pictures / "cat" / "zero.png")
    for on_demand in (False, True):
        data = folder(pictures, on_demand=on_demand)
        data.everything()
        names = data.skipped if not on_demand else tuple(data.values.unreadable.names)
        assert {"cat/pipe.png", "cat/zero.png"} <= set(names)
    with pytest.raises(InputError, match="this is a named pipe"):
        folder(pictures, strict=True)


def test_more_pixels_than_memory_are_refused_before_they_are_decoded(pictures: Path, monkeypatch) -> None:
    monkeypatch.setattr(free_memory, "free_memory", lambda: 5 * 3 * 32 * 32 - 1)
    with pytest.raises(
        InputError, match=r"5 images of 32×32: this needs 0\.0 GB of memory, and 0\.0 GB are free"
    ):
        folder(pictures)
    assert len(folder(pictures, size=31)) == 5
