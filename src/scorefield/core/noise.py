"""Reproducible random numbers: every draw is a function of (seed, sample, step, draw)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from scorefield.runtime.checks import brief, check_length, instance_of, is_list, positive_int
from scorefield.runtime.errors import InputError

__all__ = ["Noise", "NoiseSource", "Recorded", "as_noise", "check_noise", "fresh_seed"]


_STREAM_VALUES = 4096
_LARGEST_STEP = 2**64 - 1
_MOST_DIMENSIONS = 64  # of a tensor, in torch and NumPy
_LARGEST_DRAW = 2**36  # values


@runtime_checkable
class Noise(Protocol):
    """What samplers and objectives draw from. Every draw has shape (B, *), one row per sample."""

    def at(self, step: int) -> Noise:
        """The same samples at another step.

        Args:
            step: Number of the step, from 0.
        """
        ...

    def normal(self, shape: Sequence[int]) -> Tensor:
        """A standard normal draw.

        Args:
            shape: (B, *), one row per sample.
        """
        ...

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """A uniform draw on [0, 1).

        Args:
            shape: (B, *), one row per sample.
        """
        ...

    def normal_like(self, x: Tensor) -> Tensor:
        """A standard normal draw of x's shape, in its dtype and on its device.

        Args:
            x: (B, *), floating-point; its values are not used.
        """
        ...


class NoiseSource:
    """Counter-based random streams, keyed by (seed, sample, step, draw).

    The k-th draw of a sample at a step comes from a Philox generator with key `seed` and a counter made of k,
    the step and the sample, so sample i receives the same bits at any batch size, in any order and on any
    number of processes. Values are drawn on the CPU in float32 and cast where they are used.

    Args:
        seed: 0 ≤ seed < 2**128.
        samples: Identities of the rows, (B,) non-negative integers. Default: 0 … B − 1.
        step: The step that draws.
    """

    def __init__(self, seed: int, samples: Tensor | Iterable[int] | None = None, step: int = 0) -> None:
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**128:
            raise InputError(f"a seed is an integer from 0 to 2**128 - 1, got {brief(seed)}")
        self.seed = seed
        self.step = positive_int("step, the one that draws,", step, at_least=0, at_most=_LARGEST_STEP)
        self.samples = None if samples is None else _identities(samples)
        self._draw = 0

    def __repr__(self) -> str:
        samples = "" if self.samples is None else f", {len(self.samples)} samples"
        return f"NoiseSource(seed={self.seed}{samples}{f', step={self.step}' if self.step else ''})"

    def at(self, step: int) -> NoiseSource:
        """The same samples at another step, its draws counted from 0.

        Args:
            step: 0 ≤ step < 2**64.
        """
        return NoiseSource(self.seed, self.samples, step)

    def of(self, samples: Tensor | Iterable[int]) -> NoiseSource:
        """The same step for other samples.

        Args:
            samples: Identities of the rows, (B,) non-negative integers.
        """
        return NoiseSource(self.seed, samples, self.step)

    def normal(self, shape: Sequence[int]) -> Tensor:
        """A standard normal draw, float32 on the CPU.

        Args:
            shape: (B, *), one row per sample.

        Raises:
            InputError: For a shape that is none, and where B is not the number of `samples`.
        """
        return self._rows(shape, lambda rng, out: rng.standard_normal(dtype=np.float32, out=out))

    def uniform(self, shape: Sequence[int]) -> Tensor:
        """A uniform draw on [0, 1), float32 on the CPU.

        Args:
            shape: (B, *), one row per sample.

        Raises:
            InputError: As `normal`.
        """
        return self._rows(shape, lambda rng, out: rng.random(dtype=np.float32, out=out))

    def normal_like(self, x: Tensor) -> Tensor:
        """A standard normal draw of x's shape, drawn in float32 and cast to its dtype and device.

        Args:
            x: (B, *), floating-point; its values are not used.

        Raises:
            InputError: As `normal`, and for an x that is not floating-point.
        """
        _check_real(x)
        return self.normal(x.shape).to(device=x.device, dtype=x.dtype)

    def _rows(
        self, shape: Sequence[int], fill: Callable[[np.random.Generator, np.ndarray], object]
    ) -> Tensor:
        shape = _sizes(shape)
        batch, row = shape[0], math.prod(shape[1:])
        samples = np.arange(batch) if self.samples is None else self.samples
        if len(samples) != batch:
            raise InputError(f"this noise source is for {len(samples)} samples, but {batch} were requested")
        # One stream serves `per` consecutive samples, so that two-dimensional toys do not pay for a generator
        # a row; `per`
        # depends on the size of a row alone, so a sample's bits still do not depend on who else is in the
        # batch.
        per = max(1, _STREAM_VALUES // max(row, 1))
        streams, where = np.unique(samples // per, return_inverse=True)
        try:
            table = np.empty((len(streams), per * row), dtype=np.float32)
        except MemoryError:
            raise InputError(
                f"a draw of shape {shape} does not fit into memory: draw fewer samples at once"
            ) from None
        for values, stream in zip(table, streams, strict=True):
            # Philox counts up its first word; the other three are free to name the stream.
            counter = np.array([0, self._draw, self.step, stream], dtype=np.uint64)
            fill(np.random.Generator(np.random.Philox(key=self.seed, counter=counter)), values)
        self._draw += 1
        rows = table.reshape(len(streams), per, row)[where, samples % per]
        return torch.from_numpy(rows).reshape(shape)


class Recorded:
    """A tape: hands out the given tensors in order, so that a test or a golden case decides every draw.

    Args:
        tensors: One for each draw, in the order in which they are drawn.
    """

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        wanted = "a list of tensors, in the order in which they are drawn"
        if not isinstance(tensors, Iterable) or (isinstance(tensors, Tensor) and not tensors.ndim):
            raise InputError(f"recorded noise must be {wanted}, got {brief(tensors)}")
        check_length("recorded noise", tensors)
        self._tensors = list(tensors)
        for tensor in self._tensors:
            instance_of("what is recorded", tensor, Tensor, wanted)
        self._next = 0

    def __repr__(self) -> str:
        return f"Recorded({len(self._tensors)} draws, {self._next} used)"

    def at(self, step: int) -> Recorded:
        """This tape: a step takes the draws that come next.

        Args:
            step: Not used.
        """
        return self

    def normal(self, shape: Sequence[int]) -> Tensor:
        """The next tensor of the tape.

        Args:
            shape: The shape that it must have.

        Raises:
            InputError: When the tape has ended or holds another shape.
        """
        if self._next >= len(self._tensors):
            raise InputError(
                f"the recorded noise is used up: it holds {len(self._tensors)} draws and one more was requested"
            )
        tensor = self._tensors[self._next]
        sizes = () if isinstance(shape, tuple) and not shape else _sizes(shape)
        if tuple(tensor.shape) != tuple(sizes):
            raise InputError(
                f"recorded draw {self._next} has shape {tuple(tensor.shape)}, but {tuple(sizes)} was requested"
            )
        self._next += 1
        return tensor

    uniform = normal

    def normal_like(self, x: Tensor) -> Tensor:
        """The next tensor of the tape, in x's dtype and on its device.

        Args:
            x: A tensor of the shape that it must have, floating-point.

        Raises:
            InputError: When the tape has ended or holds another shape.
        """
        _check_real(x)
        return self.normal(x.shape).to(device=x.device, dtype=x.dtype)


def as_noise(noise: Noise | None) -> Noise:
    """The noise itself, or a `NoiseSource` with a fresh seed in the place of None.

    Args:
        noise: Where draws come from, or None.

    Raises:
        InputError: For what is no noise.
    """
    return NoiseSource(fresh_seed()) if noise is None else check_noise(noise)


def check_noise(noise: object) -> Noise:
    """The noise itself.

    Args:
        noise: Anything.

    Raises:
        InputError: For what has not the methods of `Noise`.
    """
    if isinstance(noise, Noise) and not isinstance(noise, type):
        return noise
    raise InputError(
        f"noise must be a noise source, such as sf.noise.NoiseSource(seed=0); got {brief(noise)}"
    )


def _identities(samples: Tensor | Iterable[int]) -> np.ndarray:
    expected = "the identities of samples are a list of integers from 0 up"
    check_length("the identities of samples", samples)
    try:
        found = np.asarray(samples.cpu() if isinstance(samples, Tensor) else list(samples))
    except (TypeError, ValueError, OverflowError, RuntimeError):
        raise InputError(f"{expected}; got {brief(samples)}") from None
    if found.ndim != 1 or (found.size and (found.dtype.kind not in "iu" or (found < 0).any())):
        raise InputError(f"{expected}; got {brief(samples)}")
    return found.astype(np.int64)


def _sizes(shape: Sequence[int]) -> tuple[int, ...]:
    """The shape of a draw. InputError for what is none."""
    sizes = tuple(shape) if is_list(shape) and len(shape) <= _MOST_DIMENSIONS else ()
    if not sizes or not all(isinstance(n, int | np.integer) and n >= 0 and n is not True for n in sizes):
        raise InputError(f"the shape of a draw is (B, *), one row for each sample; got {brief(shape)}")
    if math.prod(sizes) > _LARGEST_DRAW:
        raise InputError(f"{math.prod(sizes):,} numbers of shape {sizes} are too many to be drawn at once")
    return sizes


def _check_real(x: object) -> None:
    if not isinstance(x, Tensor) or not x.is_floating_point():
        got = f"one of {x.dtype}" if isinstance(x, Tensor) else brief(x)
        raise InputError(f"noise is drawn like a tensor of floating-point numbers, got {got}")


def fresh_seed() -> int:
    """A new seed from torch's global generator, so that `torch.manual_seed` makes a script repeatable."""
    return int(torch.randint(0, 2**62, ()).item())
