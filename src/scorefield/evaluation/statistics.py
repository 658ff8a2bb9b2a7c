"""Statistics of sets of images, computed in one pass with one batch in memory."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from scorefield.core.shapes import DataSpec
from scorefield.data import Dataset
from scorefield.evaluation.copies import copied, nearest_distances
from scorefield.evaluation.extractors import Extractor
from scorefield.evaluation.features import FeatureNet, batches
from scorefield.evaluation.frechet import Moments
from scorefield.evaluation.palette import Palette
from scorefield.runtime.errors import InputError

__all__ = ["Images", "SetStatistics", "compute_statistics", "real"]

Images = Iterable[
    tuple[Tensor, Tensor | None]
]  # x0 (B, *shape) in spec.range and labels (B,), a batch at a time
_REFERENCES = 4096  # training images in memory as floats at a time
COPIED_WITHIN, COPIED_PIXELS, PALETTE_WITHIN = 8, 3, 12  # levels of 255, pixels, levels of 255


@dataclass(frozen=True)
class SetStatistics:
    """Statistics of a set of N images.

    Attributes:
        count: N.
        moments: Count, mean and covariance of the features; of none where no metric asks for features.
        features: (N, D), where they were kept.
        log_probs: (N, K), where they were kept.
        predicted: Classes (N,), where the extractor was trained on those of the data.
        labels: int64 (N,), where the set has them.
        nearest: Distance of each image to its nearest training image, (N,) float64, where it was asked for.
        copied: Whether each image is a training image within `COPIED_WITHIN` levels, bool (N,), where it was asked for.
        copied_but: The same for all but at most `COPIED_PIXELS` pixels.
        in_palette: The share of each image's pixels within `PALETTE_WITHIN` levels of a colour of the training images,
            float64 (N,), where it was asked for.
    """

    count: int
    moments: Moments
    features: Tensor | None
    log_probs: Tensor | None
    predicted: Tensor | None
    labels: Tensor | None
    nearest: Tensor | None
    copied: Tensor | None = None
    copied_but: Tensor | None = None
    in_palette: Tensor | None = None

    @property
    def agreement(self) -> float | None:
        """The fraction of images that the classifier puts in the class they are labelled with, where both are
        known.
        """
        if self.predicted is None or self.labels is None:
            return None
        return float((self.predicted == self.labels).double().mean())


def compute_statistics(
    images: Images,
    extractor: Extractor | None,
    train: Dataset,
    keep: Collection[str] = (),
    device: str | torch.device = "cpu",
    *,
    together: int = 2**24,
) -> SetStatistics:
    """See every image once.

    Images are rounded to the data's levels, as they are when written; those of continuous data are clamped to
    spec.range.

    Args:
        images: Batches of x0 (B, *shape) in spec.range, and labels (B,) or None.
        extractor: What makes features and class probabilities of them; None where no metric needs them.
        train: The training images, to which "nearest" are distances; its spec is that of the images.
        keep: Of "features", "log_probs", "nearest", "copied" and "palette".
        device: Where the extractor gets its images.
        together: Most float32 values that are compared with the training images at once; each time reads all
            of these. Default: 64 MiB.
    Raises:
        InputError: Images of another shape, labels of another number or class, values or features that are
            not finite, an extractor without the log_probs that are to be kept.
    """
    moments, kept = Moments(), _Kept()
    nearest = _Nearest(train, together) if "nearest" in keep else None
    palette = _palette(train) if "palette" in keep else None
    count = 0
    for x0, labels in images:
        _check(x0, labels, train.spec)
        x0 = _as_written(x0.detach().to("cpu", torch.float32), train.spec)
        count += len(x0)
        kept.add("labels", labels)
        if extractor is not None:
            moments.update(_observe(extractor, x0.to(device), kept, keep))
        if "copied" in keep:
            kept.add("levels", train.spec.to_uint8(x0))
        if palette is not None:
            kept.add("in_palette", palette.share(train.spec.to_uint8(x0)))
        if nearest is not None:
            nearest.add(x0)
    levels = kept.take("levels")
    return SetStatistics(
        count,
        moments,
        features=kept.take("features"),
        log_probs=kept.take("log_probs"),
        predicted=kept.take("predicted"),
        labels=kept.take("labels"),
        nearest=None if nearest is None else nearest.distances(),
        copied=None if levels is None else _copied(levels, train, 0),
        copied_but=None if levels is None else _copied(levels, train, COPIED_PIXELS),
        in_palette=kept.take("in_palette"),
    )


def real(data: Dataset) -> Images:
    """All examples of a data set in order."""
    for indices in torch.arange(len(data)).split(256):
        yield data.batch(indices)


def _observe(extractor: Extractor, x0: Tensor, kept: _Kept, keep: Collection[str]) -> Tensor:
    """The features of a batch; what is to be kept of it is."""
    seen = extractor(x0)
    if "log_probs" in keep and seen.log_probs is None:
        raise InputError(
            f"{extractor.name}: this feature extractor gives no class probabilities, which the score needs"
        )
    kept.add("features", seen.features if "features" in keep else None)
    kept.add("log_probs", seen.log_probs if "log_probs" in keep else None)
    if isinstance(extractor, FeatureNet) and seen.log_probs is not None:
        kept.add("predicted", seen.log_probs.argmax(dim=1))
    return seen.features


def _copied(levels: Tensor, train: Dataset, pixels: int) -> Tensor:
    found = torch.zeros(len(levels), dtype=torch.bool)
    for part in batches(train, _REFERENCES):
        found |= copied(levels, train.spec.to_uint8(part), COPIED_WITHIN, pixels)
    return found


def _palette(train: Dataset) -> Palette:
    palette = Palette(train.spec.shape[0], PALETTE_WITHIN)
    for part in batches(train, _REFERENCES):
        palette.add(train.spec.to_uint8(part))
    return palette


class _Kept:
    """Tensors by name, put together at the end."""

    def __init__(self) -> None:
        self._parts: dict[str, list[Tensor]] = {}

    def add(self, name: str, part: Tensor | None) -> None:
        if part is not None:
            self._parts.setdefault(name, []).append(part.cpu())

    def take(self, name: str) -> Tensor | None:
        return torch.cat(self._parts[name]) if name in self._parts else None


class _Nearest:
    """The distance of each image to its nearest training image. All training images are read for many images
    at once.
    """

    def __init__(self, train: Dataset, together: int) -> None:
        self.train, self.together = train, together
        self._waiting: list[Tensor] = []
        self._found: list[Tensor] = []

    def add(self, x0: Tensor) -> None:
        self._waiting.append(x0)
        if sum(part.numel() for part in self._waiting) >= self.together:
            self._search()

    def distances(self) -> Tensor:
        """float64 (N,), in the order of the images."""
        self._search()
        return torch.cat(self._found)

    def _search(self) -> None:
        if self._waiting:
            x0, self._waiting = torch.cat(self._waiting), []
            self._found.append(
                torch.stack([nearest_distances(x0, part) for part in batches(self.train, _REFERENCES)]).amin(
                    dim=0
                )
            )


def _as_written(x0: Tensor, spec: DataSpec) -> Tensor:
    return x0.clamp(*spec.range) if spec.bins is None else spec.from_bins(spec.to_bins(x0))


def _check(x0: Tensor, labels: Tensor | None, spec: DataSpec) -> None:
    if tuple(x0.shape[1:]) != spec.shape:
        raise InputError(f"a set holds images (N, {', '.join(map(str, spec.shape))}), got {tuple(x0.shape)}")
    if labels is None or not len(labels):
        return
    if tuple(labels.shape) != (len(x0),):
        raise InputError(
            f"a set of {len(x0)} images has labels of shape {tuple(labels.shape)}, expected one each"
        )
    if not 0 <= int(labels.min()) <= int(labels.max()) < spec.num_classes:
        raise InputError(
            f"labels run from {int(labels.min())} to {int(labels.max())}, of {spec.num_classes} classes"
        )
