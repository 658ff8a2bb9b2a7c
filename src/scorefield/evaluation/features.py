"""Features of a small classifier that is trained on the labelled training images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from scorefield.core.shapes import DataSpec
from scorefield.data import Dataset, EpochOrder, shift
from scorefield.evaluation.extractors import Observed, check_images, observe
from scorefield.runtime.atomic import atomic_write
from scorefield.runtime.checks import unwritable
from scorefield.runtime.errors import InputError
from scorefield.runtime.weights import SHOWN, fill, open_tensors, sha256

__all__ = ["FeatureNet", "batches", "load_classifier", "train_classifier"]

FEATURES = 64
_FORMAT = "scorefield classifier 1"
_BATCH = 64  # of training
_READ = 256  # images in memory at a time when nothing is trained
_LR, _DROPOUT = 1e-3, 0.25


class FeatureNet:
    """A trained classifier whose penultimate activations are features; on the CPU, in eval mode, without
    gradients.

    Args:
        trunk: Images -> activations (B, D).
        head: Activations -> logits (B, K).
        spec: Description of the data that it was trained on.
        name: For the provenance of metrics.
    """

    dimension = FEATURES

    def __init__(self, trunk: nn.Module, head: nn.Module, spec: DataSpec, name: str) -> None:
        self.spec, self.name = spec, name
        self._trunk, self._head = trunk.eval().requires_grad_(False), head.eval().requires_grad_(False)

    def __call__(self, x0: Tensor) -> Observed:
        """Features (B, 64) and ln p(y|x) (B, K).

        Args:
            x0: Images (B, C, H, W) in spec.range, any B, device and dtype.

        Raises:
            InputError: For images of another shape.
        """
        check_images(x0, self.spec, "the classifier")
        return observe(self._see, x0, _READ)

    def _see(self, x0: Tensor) -> tuple[Tensor, Tensor]:
        features = self._trunk(x0.to("cpu", torch.float32))
        return features, self._head(features)

    def tensors(self) -> dict[str, Tensor]:
        """Its weights by name."""
        return {**self._trunk.state_dict(prefix="trunk."), **self._head.state_dict(prefix="head.")}

    def save(self, path: Path) -> None:
        """Write a .safetensors file atomically.

        Args:
            path: The file.

        Raises:
            InputError: Where it cannot be written.
        """
        try:
            with atomic_write(path) as partial:
                save_file(self.tensors(), partial, {"format": _FORMAT, "name": self.name})
        except (OSError, SafetensorError) as error:
            raise unwritable(path, error) from None

    def features(self, x0: Tensor) -> Tensor:
        """The penultimate activations, float32 (B, 64) on the CPU.

        Args:
            x0: Images (B, C, H, W) in spec.range.
        """
        return self(x0).features

    def predict(self, x0: Tensor) -> Tensor:
        """The likeliest class of each image, int64 (B,).

        Args:
            x0: Images (B, C, H, W) in spec.range.
        """
        with torch.no_grad():
            return self._head(self.features(x0)).argmax(dim=1)

    def accuracy(self, data: Dataset) -> float:
        """The fraction of examples whose class is predicted.

        Args:
            data: Labelled images.

        Raises:
            InputError: Where there are no examples or no labels.
        """
        if data.labels is None or not len(data):
            raise InputError(
                f"{data.source}: accuracy needs labelled examples; there are {len(data)}, without labels"
            )
        predicted = torch.cat([self.predict(x0) for x0 in batches(data)])
        return float((predicted == data.labels).double().mean())


def batches(data: Dataset, size: int = _READ) -> Iterator[Tensor]:
    """All examples in order, x0 float32 (at most `size`, *shape) in spec.range at a time."""
    for indices in torch.arange(len(data)).split(size):
        yield data.batch(indices)[0]


def train_classifier(
    data: Dataset,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    *,
    examples: int = 50_000,
    passes: tuple[float, float] = (2, 30),
) -> FeatureNet:
    """Train the classifier on the labelled images of `data`, on the CPU, independently of any generative
    model.

    Cross-entropy, Adam, dropout, images shifted by up to an eighth of their size. The result depends on the
    arguments alone: one thread is used, and torch's global generator is neither read nor changed.

    Args:
        data: Labelled images (C, H, W) of at least two classes.
        seed: Seed for weight initialisation, data order, shifts and dropout.
        progress: Called with (steps done, steps in all) after every step.
        examples: Examples to read in training, some of them many times.
        passes: The fewest and the most passes of the data, whatever `examples` is.
    Raises:
        InputError: Data without labels, with fewer than two classes, or that are not images.
    """
    labels = _labels(data)
    with _one_thread(), torch.inference_mode(False), torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        trunk, head = _trunk(data.spec.shape), nn.Linear(FEATURES, data.spec.num_classes, dtype=torch.float32)
        read = min(max(examples / len(data), passes[0]), passes[1])
        _fit(nn.Sequential(trunk, head), data, labels, seed, read, progress)
    found = FeatureNet(trunk, head, data.spec, "")
    weights = sha256(found.tensors())[:SHOWN]
    found.name = f"classifier trained on {len(data)} {data.source} images, seed {seed}, weights {weights}"
    return found


def load_classifier(path: Path, spec: DataSpec) -> FeatureNet:
    """Read what `FeatureNet.save` wrote for such data.

    Raises:
        InputError: For a file that is missing, damaged, of other data or of another kind.
    """
    what = "a classifier that `FeatureNet.save` wrote"
    with open_tensors(path, what, follow=False) as file:
        known, tensors = file.metadata, file.tensors()
    name = known.get("name", "")
    if known.get("format") != _FORMAT or not name.endswith(f"weights {sha256(tensors)[:SHOWN]}"):
        raise InputError(f"{path}: holds other tensors, or has changed; expected {what}")
    with torch.device("meta"):
        trunk, head = _trunk(spec.shape), nn.Linear(FEATURES, spec.num_classes, dtype=torch.float32)
    fill(nn.ModuleDict({"trunk": trunk, "head": head}), tensors, path, what)
    return FeatureNet(trunk, head, spec, name)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums in one order on every machine; and for images this small further threads gain little and lose much
    under load.
    """
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
            f"{data.source}: the features come from a classifier, which needs labels, but this data has none: use "
            "labelled data (a folder with a subfolder per class, or an .npz with `labels`)"
        )
    if len(data.labels.unique()) < 2:
        raise InputError(
            f"{data.source}: the features come from a classifier, which needs images of at least two classes"
        )
    if len(data.spec.shape) != 3:
        raise InputError(
            f"{data.source}: the features are for images (C, H, W), and an example here is {data.spec.shape}"
        )
    return data.labels


def _trunk(shape: tuple[int, ...]) -> nn.Sequential:
    """Two convolutions at a side of at most 16, pooling and a linear layer: (B, C, H, W) -> (B, 64).

    Dropout, and neither normalization nor label smoothing before the features: those pull the training images
    of a class together (Müller et al. 2019), and distances to them would measure the judge's confidence.
    """
    side = max(shape[1:])
    stride = 1 if side <= 16 else 2 if side <= 32 else -(-side // 16)
    kernel = max(3, stride + 1)
    first = nn.Conv2d(shape[0], 32, kernel, stride, padding=kernel // 2, dtype=torch.float32)
    second = nn.Conv2d(32, 64, 3, padding=1, dtype=torch.float32)
    layers = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True), nn.Flatten())
    with torch.no_grad():
        width = layers(torch.zeros(1, *shape, dtype=torch.float32)).shape[1]
    return layers.extend([nn.Dropout(_DROPOUT), nn.Linear(width, FEATURES, dtype=torch.float32), nn.ReLU()])


def _fit(
    net: nn.Module,
    data: Dataset,
    all_labels: Tensor,
    seed: int,
    passes: float,
    progress: Callable[[int, int], None] | None,
) -> None:
    batch = min(_BATCH, len(data))
    total = max(round(passes * len(data) / batch), 1)
    order, draws = EpochOrder(len(data), batch, seed), torch.Generator().manual_seed(seed)
    net.train()
    optimizer = torch.optim.Adam(net.parameters(), lr=_LR)
    for step in range(total):
        indices = order.indices(step)
        x0, labels = data.batch(indices)[0], all_labels[indices]
        loss = F.cross_entropy(net(_shift(x0, draws)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if progress is not None:
            progress(step + 1, total)


def _shift(x0: Tensor, draws: torch.Generator) -> Tensor:
    """Move each image by up to an eighth of its size, each way and each pixel count alike; the edge fills
    what comes free.
    """
    offsets = [
        torch.randint(-(side // 8), side // 8 + 1, (len(x0),), generator=draws) for side in x0.shape[2:]
    ]
    return shift(x0, torch.stack(offsets, dim=1))
