"""The images that the Edit panel works on: sent by the page, of the held-out set, or samples of a job."""

from __future__ import annotations

import io
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from scorefield.core.shapes import DataSpec
from scorefield.data import Dataset
from scorefield.data.images.read import read_image
from scorefield.data.user_images import images_of
from scorefield.runs.evaluating import run_data
from scorefield.runs.run import Run
from scorefield.runtime.errors import InputError
from scorefield.runtime.reading import reading
from scorefield.studio.answers import Refusal
from scorefield.studio.jobs import Job
from scorefield.studio.sample_jobs import Drawn
from scorefield.studio.session import Studio

__all__ = ["EditedImage", "EditedImages", "as_png"]

_KEPT = 20  # images
_PIXELS = 50_000_000  # of an image that is decoded
_FORMATS = ("PNG", "JPEG", "WEBP")
_SENT = "the image"  # what messages call it


@dataclass(frozen=True)
class EditedImage:
    """One image in the size and the grey values of a run.

    Attributes:
        run: The number of the run.
        pixels: uint8 (H, W, C).
        name: Where it comes from, in words.
        label: Its class, where that is known.
        notes: What was done to it, in sentences.
    """

    run: int
    pixels: np.ndarray
    name: str
    label: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def given(self) -> np.ndarray:
        """As `Run` takes one image: (H, W) where it is grey."""
        return self.pixels[..., 0] if self.pixels.shape[2] == 1 else self.pixels


class EditedImages:
    """The last images, each by a random id."""

    def __init__(self) -> None:
        self._images: OrderedDict[str, EditedImage] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, image: EditedImage) -> str:
        """The id of an image, which is kept until as many others have been used since."""
        key = secrets.token_hex(8)
        with self._lock:
            self._images[key] = image
            while len(self._images) > _KEPT:
                self._images.popitem(last=False)
        return key

    def find(self, key: str) -> EditedImage:
        """The image of this id. Refusal where it is not kept."""
        with self._lock:
            if key in self._images:
                self._images.move_to_end(key)
                return self._images[key]
        raise Refusal(404, f"this image is not kept any more (the last {_KEPT} are): choose it again")

    def for_run(self, key: str, run: int) -> EditedImage:
        """The image of this id. InputError where it was fitted to another run."""
        found = self.find(key)
        if found.run != run:
            raise InputError("this image was fitted to another run: choose it again for this one")
        return found


def sent(studio: Studio, number: int, content: bytes) -> EditedImage:
    """An image that the page sent, brought to a run's size as training does it.

    Args:
        studio: The server's state.
        number: Of the run.
        content: A PNG, JPEG or WebP file.

    Raises:
        InputError: For another file, too large an image, and one that is smaller than the run's.
        Refusal: For a run that is not there.
    """
    spec = _spec(studio.catalogue.run(number))
    with reading(_SENT):
        try:
            with Image.open(io.BytesIO(content), formats=_FORMATS) as opened:
                width, height = opened.size
        except UnidentifiedImageError:  # whose message shows the open file
            raise InputError(f"{_SENT} is damaged, or no PNG, JPEG or WebP file") from None
        if width * height > _PIXELS:
            raise InputError(
                f"{_SENT} has {width:,}×{height:,} pixels, and at most {_PIXELS:,} are decoded: reduce it first"
            )
        decoded = np.array(read_image(content))
    high, wide = spec.shape[1:]
    if high == wide and min(decoded.shape[:2]) < high:
        raise InputError(
            f"{_SENT} has {decoded.shape[1]}×{decoded.shape[0]} pixels, and this run's images have {wide}×{high}: choose a "
            "larger one"
        )
    found = images_of(decoded[None], spec)
    x, _ = found.batch(torch.tensor([0]))
    return EditedImage(number, _as_pixels(spec, x), "an image of yours", notes=_notes(decoded, spec))


def held_out(studio: Studio, number: int, index: int) -> tuple[EditedImage, int]:
    """Image `index` of the held-out set of a run's data, counted round, and how many there are.

    Raises:
        InputError: Where the data cannot be opened, or holds nothing out.
        Refusal: For a run that is not there.
    """
    run = studio.catalogue.run(number)
    spec = _spec(run)
    data: Dataset = studio.recall("held-out set", (number, run.weights_sha256), lambda: run_data(run)[1])
    if not len(data):
        raise InputError("this run's data has no held-out images: train with data.holdout above 0")
    at = index % len(data)
    x, labels = data.batch(torch.tensor([at]))
    label = None if labels is None or not spec.classes else int(labels[0])
    return EditedImage(number, _as_pixels(data.spec, x), f"held-out image {at}", label), len(data)


def drawn(job: Job, k: int) -> EditedImage:
    """Sample k of a job.

    Raises:
        Refusal: Where the job has no such sample.
    """
    found = job.details
    if not isinstance(found, Drawn) or not 0 <= k < len(found.values) or found.values.ndim != 4:
        raise Refusal(404, "this job has no such image: choose another one")
    request = found.request
    label = None if found.labels is None or request.classifier is not None else found.labels[k]
    return EditedImage(
        request.run, found.values[k], f"sample {request.numbers[k]} of seed {request.seed}", label
    )


def as_png(pixels: np.ndarray) -> bytes:
    """uint8 (H, W, C) or (H, W) as a PNG file, grey or RGB."""
    file = io.BytesIO()
    grey = pixels.ndim == 3 and pixels.shape[2] == 1
    Image.fromarray(pixels[..., 0] if grey else pixels).save(file, format="PNG")
    return file.getvalue()


def _spec(run: Run) -> DataSpec:
    """What the run's images are. IncompatibleModel for a run whose images are not edited."""
    run.check_latents()
    return run.data_spec


def _as_pixels(spec: DataSpec, x: torch.Tensor) -> np.ndarray:
    return spec.to_uint8(x)[0].permute(1, 2, 0).contiguous().numpy()


def _notes(decoded: np.ndarray, spec: DataSpec) -> tuple[str, ...]:
    """What fitting did, in words for one image."""
    high, wide = decoded.shape[:2]
    channels, height, width = spec.shape
    done = []
    if high != wide and height == width:
        done.append("cropped to its central square")
    if (high, wide) != (height, width) and min(high, wide) != height:
        done.append(f"reduced from {wide}×{high} pixels")
    if channels == 1 and decoded.ndim == 3:
        done.append("made grey")
    text = ", ".join(done)
    return (f"{text[0].upper()}{text[1:]}.",) if done else ()
