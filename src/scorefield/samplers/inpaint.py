"""Inpainting: a sampler whose known values are replaced, at every step, by noisy draws of what is known of
the image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scorefield.core.noise import Noise
from scorefield.core.shapes import check_real
from scorefield.models.base import Denoise
from scorefield.models.foreign import as_model
from scorefield.process.base import GaussianProcess, Process
from scorefield.runtime.checks import brief, check_finite
from scorefield.runtime.errors import IncompatibleModel, InputError
from scorefield.samplers.base import Grid, Placing, Sampler, as_sampler
from scorefield.samplers.grids import as_floats

__all__ = ["Inpaint"]


class _State(NamedTuple):
    """The sampler's own state, and whether the known values of the first x have been put in."""

    inner: Any
    begun: bool


@dataclass(frozen=True, eq=False, repr=False)
class Inpaint(Sampler[_State]):
    """`sampler` with known values held: after each step they are a draw of q(x_s | x_0), at s = 0 x_0 itself.

    [Song et al. 2021 App. I.2; Lugmayr et al. 2022, RePaint without its resampling; NCSN, its inpainting by
    Langevin dynamics]

    The known part of the result is exact. The rest is only about a draw of p(unknown | known): each step
    meets the known values with noise of their own, so it learns of them as far as they can be told at that
    noise and takes back what earlier steps made of them. Where unknown and known values are independent it is
    as good as the sampler.

    One draw of x's shape a level, after the sampler's own: updates that stay at a level keep it. The first x
    gets its known values from the noise that the prior at step 0 is made of, so that the sampler's draws are
    those it makes without a mask.

    Args:
        sampler: The sampler of the unknown values.
        known: x_0 in the data's units, (*) or (B, *); what it holds elsewhere does not matter.
        mask: bool, True where known, of any shape that broadcasts to x, such as (H, W).
    """

    sampler: Sampler[Any]
    known: Tensor
    mask: Tensor

    def __post_init__(self) -> None:
        object.__setattr__(self, "sampler", as_sampler(self.sampler))
        if not isinstance(self.mask, Tensor) or self.mask.dtype != torch.bool or self.mask.is_meta:
            got = self.mask.dtype if isinstance(self.mask, Tensor) else brief(self.mask)
            raise InputError(f"mask is a bool tensor, True where the value is known; got {got}")
        if not check_real("known", self.known, "a tensor, x_0 in the data's units").is_floating_point():
            raise InputError(
                f"known is a tensor of floating-point numbers, x_0 in the data's units; got {self.known.dtype}"
            )

    def __repr__(self) -> str:
        """With a hash of what is known, because stored samples are told apart by this text."""
        digest = hashlib.sha256()
        for part in (self.known, self.mask):
            digest.update(
                f"{part.dtype} {tuple(part.shape)}".encode()
                + part.detach().cpu().contiguous().numpy().tobytes()
            )
        return f"Inpaint({self.sampler}, known={digest.hexdigest()[:12]})"

    @property
    def guidance(self) -> Placing | None:
        return self.sampler.guidance

    @property
    def between_levels(self) -> bool:
        return self.sampler.between_levels

    def check_model(self, model: Denoise) -> None:
        if as_model(model).family == "categorical":
            raise IncompatibleModel(
                "inpainting needs levels of Gaussian noise, and this model is categorical"
            )
        super().check_model(model)
        self.sampler.check_model(model)

    def calls(self, grid: Grid) -> int:
        """As many as `sampler` makes.

        Args:
            grid: Times that never ascend.

        Raises:
            InputError: For a grid that ascends, or that the sampler cannot walk.
        """
        if any(s > t for t, s in pairwise(as_floats(grid))):
            raise InputError("inpainting goes from noise to data: its grid must not ascend")
        return self.sampler.calls(grid)

    def calls_on(self, process: Process | None, grid: Grid) -> int:
        self.calls(grid)
        return self.sampler.calls_on(process, grid)

    def init(self, model: Denoise, x: Tensor) -> _State:
        if self.known.shape not in (x.shape, x.shape[1:]) or not _broadcasts(self.mask, x):
            raise InputError(
                f"known must have the shape of one example {tuple(x.shape[1:])} or of the batch {tuple(x.shape)}, and mask one that "
                f"fits it, such as (H, W); got {tuple(self.known.shape)} and {tuple(self.mask.shape)}"
            )
        known = torch.where(self.mask, self.known, 0).flatten()
        check_finite(known, "values that are kept", "mark them as unknown in the mask")
        return _State(self.sampler.init(model, x), False)

    def plan(self, model: Denoise, times: Sequence[float], state: _State) -> _State:
        return state._replace(inner=self.sampler.plan(model, times, state.inner))

    def step(
        self, model: Denoise, x_t: Tensor, t: float, s: float, state: _State, noise: Noise
    ) -> tuple[Tensor, Tensor, _State]:
        first = x_t if state.begun else self._held(model.process, x_t, t, noise.at(0))
        x_s, x0, inner = self.sampler.step(model, first, t, s, state.inner, noise)
        if s != t:
            return self._held(model.process, x_s, s, noise), x0, _State(inner, True)
        return torch.where(self.mask.to(x_s.device), first, x_s), x0, _State(inner, True)

    def _held(self, process: GaussianProcess, x: Tensor, t: float, noise: Noise) -> Tensor:
        """x at time t with a draw of q(x_t | x_0) in the place of the known values."""
        known = self.known.to(x).expand_as(x)
        if t > 0:
            known = process.sample(known, t, noise.normal_like(x))
        return torch.where(self.mask.to(x.device), known, x)


def _broadcasts(mask: Tensor, x: Tensor) -> bool:
    """Whether mask broadcasts to x without making it larger."""
    try:
        return torch.broadcast_shapes(mask.shape, x.shape) == x.shape
    except RuntimeError:
        return False
