"""Features to compare images in: a small classifier trained on the spot on labelled training images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from scorefield.core.errors import InputError
from scorefield.core.shapes import DataSpec
from scorefield.data import Dataset, Order

__all__ = ["FeatureNet", "batches", "train_classifier"]

FEATURES = 64
_BATCH = 128  # of training
_READ = 256  # images in memory at a time when nothing is trained
_EXAMPLES, _FEWEST_PASSES, _MOST_PASSES = 40_000, 2, 20  # training passes: as many as make this many examples, within bounds
_PEAK, _DECAY, _SMOOTHING = 8e-3, 0.02, 0.05


class FeatureNet:
    """A trained classifier whose penultimate activations serve as features. On the CPU, in eval mode, without gradients.

    spec: the data it was trained on.   name: what it is, to stamp the figures made with it.
    """

    def __init__(self, trunk: nn.Module, head: nn.Module, spec: DataSpec, name: str) -> None:
        self.spec, self.name = spec, name
        self._trunk, self._head = trunk.eval().requires_grad_(False), head.eval().requires_grad_(False)

    def features(self, x0: Tensor) -> Tensor:
        """Images (B, C, H, W) in spec.range, any B, device and dtype -> penultimate activations float32 (B, 64) on the CPU.

        InputError for images of another shape.
        """
        if tuple(x0.shape[1:]) != self.spec.shape:
            raise InputError(
                f"this classifier takes images (B, {', '.join(map(str, self.spec.shape))}), got {tuple(x0.shape)}: "
                f"compare images of the size that it was trained on"
            )
        with torch.no_grad():
            parts = [self._trunk(part.to("cpu", torch.float32)) for part in x0.split(_READ)]
        return torch.cat(parts)

    def predict(self, x0: Tensor) -> Tensor:
        """Images (B, C, H, W) in spec.range -> the likeliest class of each, int64 (B,)."""
        with torch.no_grad():
            return self._head(self.features(x0)).argmax(dim=1)

    def accuracy(self, data: Dataset) -> float:
        """The fraction of labelled examples whose class is predicted. InputError where there are none."""
        if data.labels is None or not len(data):
            raise InputError(f"{data.source}: accuracy needs labelled examples; there are {len(data)}, without labels")
        predicted = torch.cat([self.predict(x0) for x0 in batches(data)])
        return float((predicted == data.labels).double().mean())


def batches(data: Dataset, size: int = _READ) -> Iterator[Tensor]:
    """All examples in order, x0 float32 (at most `size`, *shape) in spec.range at a time."""
    for indices in torch.arange(len(data)).split(size):
        yield data.batch(indices)[0]


def train_classifier(data: Dataset, seed: int = 0, progress: Callable[[int, int], None] | None = None) -> FeatureNet:
    """Train the classifier on the labelled images of `data`, on the CPU, independently of any generative model.

    Cross-entropy with label smoothing 0.05, AdamW warmed up for a fifth of the steps and annealed by a cosine, images shifted
    by up to an eighth of their size. It reads 40,000 examples, but at least 2 and at most 20 passes of the data. The result
    depends on (data, seed) alone: one thread is used, and torch's global generator is neither read nor changed.

    progress: called with (steps done, steps in all) after every step.
    InputError: data without labels, with fewer than two classes, or that are not images (C, H, W).
    """
    labels = _labels(data)
    with _one_thread(), torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        trunk, head = _trunk(data.spec.shape), nn.Linear(FEATURES, data.spec.num_classes, dtype=torch.float32)
        _fit(nn.Sequential(trunk, head), data, labels, seed, progress)
    return FeatureNet(trunk, head, data.spec, f"classifier trained on {len(data)} {data.source} images, seed {seed}")


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums in one order on every machine; and for images this small further threads gain little and lose much under load."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _labels(data: Dataset) -> Tensor:
    """The labels (N,) of data that a classifier can be trained on; InputError for others."""
    if data.labels is None:
        raise InputError(
            f"{data.source}: the features come from a classifier, which needs labels, and this data has none: "
            f"use data with labels (a folder with a subfolder for each class, or an .npz with `labels`)"
        )
    if len(data.labels.unique()) < 2:
        raise InputError(f"{data.source}: the features come from a classifier, which needs images of at least two classes")
    if len(data.spec.shape) != 3:
        raise InputError(f"{data.source}: the features are for images (C, H, W), and an example here is {data.spec.shape}")
    return data.labels


def _trunk(shape: tuple[int, ...]) -> nn.Sequential:
    """Convolutions at a side of at most 16 and its halves down to 4, each half twice as wide: (B, C, H, W) -> (B, 64)."""
    side, width = max(shape[1:]), 32
    stride = 1 if side <= 16 else 2 if side <= 32 else -(-side // 16)
    layers = [*_convolution(shape[0], width, max(3, stride + 1), stride), *_convolution(width, width)]
    side = -(-side // stride)
    while side > 4 and width < 128:
        layers += [nn.MaxPool2d(2, ceil_mode=True), *_convolution(width, 2 * width), *_convolution(2 * width, 2 * width)]
        width, side = 2 * width, -(-side // 2)
    layers += [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, FEATURES, dtype=torch.float32)]
    return nn.Sequential(*layers, nn.BatchNorm1d(FEATURES, dtype=torch.float32), nn.ReLU())


def _convolution(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False, dtype=torch.float32)
    return [convolution, nn.BatchNorm2d(outputs, dtype=torch.float32), nn.ReLU()]


def _fit(net: nn.Module, data: Dataset, all_labels: Tensor, seed: int, progress: Callable[[int, int], None] | None) -> None:
    passes = min(max(_EXAMPLES / len(data), _FEWEST_PASSES), _MOST_PASSES)
    batch = min(_BATCH, len(data))
    total = max(round(passes * len(data) / batch), 1)
    order, draws = Order(len(data), batch, seed), torch.Generator().manual_seed(seed)
    net.train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=_PEAK, weight_decay=_DECAY)
    for step in range(total):
        indices = order.indices(step)
        x0, labels = data.batch(indices)[0], all_labels[indices]
        loss = F.cross_entropy(net(_shift(x0, draws)), labels, label_smoothing=_SMOOTHING)
        optimizer.param_groups[0]["lr"] = _PEAK * min(1.0, 5 * (step + 1) / total) * (1 + math.cos(math.pi * step / total)) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if progress is not None:
            progress(step + 1, total)


def _shift(x0: Tensor, draws: torch.Generator) -> Tensor:
    """Move each image by up to an eighth of its size, each way and each pixel count alike; the edge fills what comes free."""
    count, _, height, width = x0.shape

    def places(side: int) -> Tensor:
        far = side // 8
        moved = torch.randint(-far, far + 1, (count, 1), generator=draws) + torch.arange(side)
        return moved.clamp(0, side - 1)

    rows, columns = places(height)[:, :, None], places(width)[:, None, :]
    return x0[torch.arange(count)[:, None, None], :, rows, columns].permute(0, 3, 1, 2)
