"""Written images are what was given, and targets are checked before work is done."""

import numpy as np
import pytest
import torch
from PIL import Image

import scorefield as sf
from scorefield.store.picture_grid import picture_grid
from scorefield.store.writers import check_animation, check_target, save_animation, save_images


def noise_images(n, channels):
    return torch.randint(
        0, 256, (n, channels, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


@pytest.mark.parametrize("channels", [1, 3])
def test_npz_holds_the_images(tmp_path, channels):
    images = noise_images(5, channels)
    save_images(tmp_path / "a.npz", images, labels=[3, 1, 4, 1, 5])
    arrays = np.load(tmp_path / "a.npz", allow_pickle=False)
    expected = images.permute(0, 2, 3, 1).numpy()
    assert np.array_equal(arrays["images"], expected.squeeze(-1) if channels == 1 else expected)
    assert arrays["images"].dtype == np.uint8
    assert arrays["labels"].tolist() == [3, 1, 4, 1, 5]
    assert torch.equal(sf.data.npz(str(tmp_path / "a.npz")).values, images)  # type: ignore[arg-type]


def test_grid_places_images_in_rows(tmp_path):
    images = noise_images(6, 1)
    sheet = np.asarray(picture_grid(images, columns=3))
    scale = 12  # 8 pixels become 96
    size = 8 * scale
    assert sheet.shape == (2 + 2 * (size + 2), 2 + 3 * (size + 2))
    top, left = 2 + (size + 2), 2 + 2 * (size + 2)
    assert np.array_equal(sheet[top : top + size : scale, left : left + size : scale], images[5, 0].numpy())
    save_images(tmp_path / "g.png", images, columns=3)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "g.png")), sheet)


def test_animation(tmp_path):
    save_animation(tmp_path / "a.gif", [noise_images(4, 1), 255 - noise_images(4, 1)])
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 2  # type: ignore[attr-defined]
    with pytest.raises(sf.InputError, match=r"\.gif"):
        check_animation(tmp_path / "a.mp4")


def test_targets_are_checked(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("x")
    (tmp_path / "d.png").mkdir()
    for target, message in [
        ("x.jpg", "written as"),
        ("no/x.png", "no folder"),
        ("full", "not an empty folder"),
        ("d.png", "is a folder"),
    ]:
        with pytest.raises(sf.InputError, match=message):
            check_target(tmp_path / target)
    check_target(tmp_path / "new")
    check_target(tmp_path / "ok.npz")
    (tmp_path / "killed").mkdir()
    (tmp_path / "killed" / ".manifest.json.1@host.partial").write_text(
        "{"
    )  # what a job leaves that was killed at its start
    check_target(tmp_path / "killed")
    (tmp_path / "full" / "manifest.json").write_text("{}")  # samples are there already
    check_target(tmp_path / "full")
    check_target(tmp_path / "new", (2,))  # arrays, a file each
    with pytest.raises(sf.InputError, match="not images"):
        check_target(tmp_path / "points.png", (2,))
