"""Feature extractors: the protocol, and wrappers around networks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from scorefield.core.shapes import DataSpec
from scorefield.runtime.checks import brief, instance_of
from scorefield.runtime.errors import InputError

__all__ = ["Extractor", "ModuleFeatures", "Observed", "Pretrained", "check_images", "observe"]

_PART = 256  # images given to a user's module at a time
_LARGE = 32  # to a network that enlarges them


class Observed(NamedTuple):
    """What an extractor computes of B images, on the CPU.

    Attributes:
        features: (B, D) float32.
        log_probs: ln p(y|x), (B, K) float32; None where the extractor is no classifier.
    """

    features: Tensor
    log_probs: Tensor | None


class Extractor(Protocol):
    """Features of images, for any metric in feature space.

    Calling it raises InputError for images of another shape than it was made for.
    """

    @property
    def name(self) -> str:
        """For provenance: the network, the first digits of its weights' SHA-256, the layer."""
        ...

    @property
    def dimension(self) -> int:
        """D, the number of features."""
        ...

    def __call__(self, x0: Tensor) -> Observed:
        """Features (B, D), and ln p(y|x) (B, K) where it is a classifier.

        Args:
            x0: Images (B, C, H, W) in spec.range of the data it was made for, on any device.
        """
        ...


def check_images(x0: Tensor, spec: DataSpec, name: str) -> None:
    """InputError unless x0 is a batch of examples of `spec`."""
    if tuple(x0.shape[1:]) != spec.shape:
        raise InputError(
            f"{name}: takes images (B, {', '.join(map(str, spec.shape))}), got {tuple(x0.shape)}: use images of "
            "this size"
        )


def observe(see: Callable[[Tensor], tuple[Tensor, Tensor | None]], x0: Tensor, size: int) -> Observed:
    """`see` (images -> features and logits or None) on `size` images at a time, without gradients, gathered
    on the CPU.
    """
    some = x0 if len(x0) else x0.new_zeros(1, *x0.shape[1:])  # networks cannot be asked about no image
    features, logits = [], []
    with torch.no_grad():
        for part in some.split(size):
            found, scores = see(part)
            features.append(found.to("cpu", torch.float32))
            if scores is not None:
                logits.append(scores.to("cpu", torch.float32).log_softmax(dim=1))
    return Observed(torch.cat(features)[: len(x0)], torch.cat(logits)[: len(x0)] if logits else None)


class Pretrained:
    """A network trained on other images: RGB (B, 3, H, W) in [0, 1] -> features (B, D), logits (B, K).

    Grey images are repeated to three channels. The network runs in float32 on the device of the images it is
    given.
    InputError: data that are not images of one or three channels.
    """

    def __init__(self, net: nn.Module, spec: DataSpec, name: str, dimension: int) -> None:
        if len(spec.shape) != 3 or spec.shape[0] not in (1, 3):
            raise InputError(
                f"{name}: takes images of 1 or 3 channels (C, H, W), and an example here is {spec.shape}"
            )
        self.spec, self.name, self.dimension = spec, name, dimension
        self._net = net

    def __call__(self, x0: Tensor) -> Observed:
        check_images(x0, self.spec, self.name)
        self._net.to(x0.device)
        return observe(lambda part: self._net(self._rgb(part)), x0, _LARGE)

    def _rgb(self, x0: Tensor) -> Tensor:
        low, high = self.spec.range
        return ((x0.float() - low) / (high - low)).expand(-1, 3, -1, -1)


class ModuleFeatures:
    """Features from a module or function of the user's: x0 (B, C, H, W) in spec.range -> (B, D), or that and
    logits (B, K).

    A module runs in eval mode, where its parameters are and in their dtype, and is left as it was; a function
    gets float32 where x0 is. At most 256 images are given at a time, without gradients. The first call is one
    image, in the middle of the range.

    Args:
        module: The module or function.
        spec: What one image is.
        name: For provenance, as of `Extractor`.

    Raises:
        InputError: If what comes back has other shapes.
    """

    def __init__(self, module: Callable[[Tensor], object], spec: DataSpec, name: str) -> None:
        self.spec, self.name = instance_of("spec", spec, DataSpec, "a DataSpec"), name
        if not callable(module):
            raise InputError(f"module must be a module or a function of images, got {brief(module)}")
        self._module = module
        self.dimension = self(torch.full((1, *spec.shape), sum(spec.range) / 2)).features.shape[1]

    def __call__(self, x0: Tensor) -> Observed:
        """Features (B, D), and ln p(y|x) (B, K) where the module gives logits.

        Args:
            x0: Images (B, C, H, W) in spec.range, on any device.

        Raises:
            InputError: For images of another shape.
        """
        check_images(x0, self.spec, self.name)
        with _evaluating(self._module):
            return observe(self._see, x0, _PART)

    def _see(self, x0: Tensor) -> tuple[Tensor, Tensor | None]:
        like = next((p for p in _parameters(self._module) if p.is_floating_point()), None)
        found = self._module(x0.float() if like is None else x0.to(like.device, like.dtype))
        features, logits = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
        rows = self._checked(features, "features (B, D)", len(x0))
        return rows, None if logits is None else self._checked(logits, "logits (B, K)", len(x0))

    def _checked(self, value: object, what: str, count: int) -> Tensor:
        if isinstance(value, Tensor) and value.ndim == 2 and len(value) == count:
            return value
        got = tuple(value.shape) if isinstance(value, Tensor) else brief(value)
        raise InputError(
            f"{self.name}: expected {what} of {count} images, got {got}: flatten or pool what it gives"
        )


def _parameters(module: object) -> Iterator[Tensor]:
    return iter(module.parameters()) if isinstance(module, nn.Module) else iter(())


@contextmanager
def _evaluating(module: object) -> Iterator[None]:
    """Every part of a module in eval mode, and each back in its own mode afterwards."""
    modes = {part: part.training for part in module.modules()} if isinstance(module, nn.Module) else {}
    try:
        for part in modes:
            part.training = False
        yield
    finally:
        for part, training in modes.items():
            part.training = training
