"""Writing samples: images as grids, animations, folders of pictures and .npz files; everything else as .npz
files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from scorefield.core.shapes import are_images
from scorefield.runtime.atomic import MANIFEST, atomic_write, drop_abandoned
from scorefield.runtime.checks import unwritable
from scorefield.runtime.errors import InputError
from scorefield.store.outputs import MARK, check_output, is_folder_name, is_free, save_npz
from scorefield.store.picture_grid import picture_grid

__all__ = [
    "channels_last",
    "check_animation",
    "check_target",
    "save_animation",
    "save_images",
    "save_points",
]


def check_target(path: Path, shape: Sequence[int] = (1, 1, 1)) -> None:
    """Check that samples can be written to a path: .png, .npz, or a folder.

    The folder is new or empty, or holds samples already; a file is new, or scorefield wrote it.

    Args:
        path: The path.
        shape: Of one sample; only images are written as .png.

    Raises:
        InputError: Where they cannot be written.
    """
    folder = is_folder_name(path)
    if not are_images(shape) and not folder and path.suffix.lower() != ".npz":
        raise InputError(
            f"{path}: these samples have shape {tuple(shape)} and are not images, so they are written as .npz or into a folder; "
            "scorefield plot draws points of the plane"
        )
    if path.suffix.lower() in (".png", ".npz"):
        check_output(path)
    elif not folder:
        raise InputError(
            f"{path}: images are written as .png (a grid), .npz (arrays) or into a folder (one PNG each)"
        )
    elif not is_free(path) and not (path / MANIFEST).is_file():
        raise InputError(
            f"{path} is not an empty folder, and has no {MANIFEST} of samples: choose another folder"
        )


def check_animation(path: Path, shape: Sequence[int] = (1, 1, 1)) -> None:
    """InputError unless `save_animation` could write samples of this shape to this path."""
    if not are_images(shape):
        raise InputError(
            f"{path}: an animation shows images, and these samples have shape {tuple(shape)}; see scorefield plot"
        )
    if path.suffix.lower() != ".gif":
        raise InputError(f"{path}: an animation is written as .gif")
    check_output(path)


def save_images(
    path: Path,
    images: Tensor,
    labels: Sequence[int] | None = None,
    columns: int | None = None,
    classes: Sequence[str] = (),
) -> None:
    """Write uint8 images (N, C, H, W): a .png grid, or an .npz with `images` (N, H, W[, C]) and `labels`.

    A grid has a row for each class (see `picture_grid`), or rows of `columns` images. Where classes are called otherwise
    than their numbers, the .npz also holds their names, `classes` (K,).
    """
    if path.suffix.lower() == ".png":
        said = PngInfo()
        said.add_text("Comment", MARK)
        grid = picture_grid(images, columns, labels, classes)
        _whole(path, lambda partial: grid.save(partial, format="PNG", pnginfo=said))
        return
    arrays = {"images": channels_last(images), **_labels(labels, classes)}
    _whole(path, lambda partial: save_npz(partial, arrays))


def save_points(
    path: Path, samples: Tensor, labels: Sequence[int] | None = None, classes: Sequence[str] = ()
) -> None:
    """Write an .npz with `samples`, float32 (N, *) in the model's data units, `labels` where given, and `classes` as
    `save_images`.
    """
    arrays = {"samples": samples.cpu().to(torch.float32).numpy(), **_labels(labels, classes)}
    _whole(path, lambda partial: save_npz(partial, arrays))


def _labels(labels: Sequence[int] | None, classes: Sequence[str]) -> dict[str, np.ndarray]:
    """Labels as an .npz holds them, with the names of classes that are called otherwise than their numbers."""
    if labels is None:
        return {}
    named = tuple(classes) not in ((), tuple(map(str, range(len(classes)))))
    return {
        "labels": np.asarray(labels, dtype=np.int64),
        **({"classes": np.array(classes, dtype=np.str_)} if named else {}),
    }


def save_animation(
    path: Path, frames: Sequence[Tensor], labels: Sequence[int] | None = None, classes: Sequence[str] = ()
) -> None:
    """Write frames, each uint8 images (N, C, H, W), as one GIF of the grids of `save_images` that rests on its last
    frame.
    """
    first, *others = [picture_grid(frame, None, labels, classes) for frame in frames]
    durations = [80] * len(others) + [2000]
    _whole(
        path,
        lambda partial: first.save(
            partial,
            format="GIF",
            save_all=True,
            append_images=others,
            duration=durations,
            loop=0,
            comment=MARK.encode(),
        ),
    )


def channels_last(images: Tensor) -> np.ndarray:
    """(N, C, H, W) -> (N, H, W, C), or (N, H, W) where C is 1."""
    array = images.cpu().permute(0, 2, 3, 1).contiguous().numpy()
    return array.squeeze(-1) if array.shape[-1] == 1 else array


def _whole(path: Path, write: Callable[[Path], None]) -> None:
    """Write under a temporary name and rename, so that no reader meets half a file."""
    drop_abandoned(path)
    try:
        with atomic_write(path) as partial:
            write(partial)
    except OSError as error:
        raise unwritable(path, error) from None
