"""Latents of the deterministic flow: images to x_T and back, and walks between latents.  [DDIM §5.3, §5.4]

Encoding walks the grid of decoding upwards, so both take the same grid and the same labels. Neither clips nor
guides, and the network runs in fp32: the flow is inverted as the grid becomes finer, with an error of order
1/S in S steps of DDIM.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from scorefield.core.shapes import check_batch_of, check_device, check_real, is_true
from scorefield.models.base import AnyModel, GaussianModel
from scorefield.models.foreign import as_gaussian
from scorefield.runtime.checks import LARGEST, brief, number, numbers, positive_int
from scorefield.runtime.errors import IncompatibleModel, InputError
from scorefield.samplers.base import Grid, Sampler, Step, as_sampler, trajectory
from scorefield.samplers.ddim import DDIM, grid_direction
from scorefield.samplers.grids import as_grid

__all__ = ["decode", "encode", "interpolate", "slerp", "spherical_walk"]

_FLOW = DDIM()
_MOST_FRAMES = 100_000
_STRAIGHT = 1e-6  # radians from 0 or π, where the plane of two vectors is lost in rounding


def encode(
    model: AnyModel,
    x0: Tensor,
    grid: Grid,
    sampler: Sampler = _FLOW,
    on_step: Callable[[Step], object] | None = None,
) -> Tensor:
    """x_T (B, *) of images x0 (B, *): the deterministic flow from the grid's last time up to its first.
    [DDIM Eq. 14]

    From t = 0 the first step uses ε̂(x_0, t₁) with t₁ the smallest positive time.

    Args:
        model: A model with its labels bound, neither clipped nor guided.
        x0: Images in the data's range, (B, *).
        grid: The grid that `decode` is to walk down.
        sampler: DDIM(0), Euler or Heun, the same for both ways.
        on_step: Receives every step. Default: nothing does.

    Returns:
        Latents x_T, (B, *).

    Raises:
        InputError: For a grid that does not strictly descend.
        IncompatibleModel: For a model or a sampler without such a flow.
    """
    _, times = _checked(model, grid, sampler)
    return _walked(trajectory(model, sampler, times[::-1], x0), x0, on_step)


def decode(
    model: AnyModel,
    x_T: Tensor,
    grid: Grid,
    sampler: Sampler = _FLOW,
    on_step: Callable[[Step], object] | None = None,
) -> Tensor:
    """The images (B, *) of latents x_T (B, *): the deterministic flow down the grid.

    `sf.sample(model, sampler, grid, x_T=x_T)` starts any other sampler, or a clipped or guided model, from a
    latent.

    Args:
        model: A model with its labels bound, neither clipped nor guided.
        x_T: Latents, (B, *).
        grid: Times from T, or the first time of the encoding, down.
        sampler: DDIM(0), Euler or Heun, the same as in `encode`.
        on_step: Receives every step. Default: nothing does.

    Returns:
        Images in the data's range, (B, *).

    Raises:
        InputError: For a grid that does not strictly descend.
        IncompatibleModel: For a model or a sampler without such a flow.
    """
    _, times = _checked(model, grid, sampler)
    return _walked(trajectory(model, sampler, times, x_T), x_T, on_step)


def interpolate(
    model: AnyModel, a: Tensor, b: Tensor, frames: int, grid: Grid, sampler: Sampler = _FLOW
) -> Tensor:
    """Images on the way from latent a to latent b, (frames, *), both ends included.  [DDIM appendix D.5]

    `spherical_walk` joins the latents around the mean of the process's prior.

    Args:
        model: A model with one class bound, or one for each frame; neither clipped nor guided.
        a: The first latent, (*).
        b: The last latent, (*).
        frames: How many images, at least 2.
        grid: As in `decode`.
        sampler: As in `decode`.

    Returns:
        Images in the data's range, (frames, *).

    Raises:
        InputError: As `decode` and `spherical_walk`.
        IncompatibleModel: As `decode`.
    """
    asked, _ = _checked(model, grid, sampler)
    return decode(model, spherical_walk(a, b, frames, asked.process.prior_mean), grid, sampler)


def spherical_walk(a: Tensor, b: Tensor, frames: int, centre: float = 0.0) -> Tensor:
    """Latents from a to b, (frames, *) with both ends, by `slerp` around `centre`.

    Args:
        a: The first latent, (*).
        b: The last latent, (*).
        frames: How many latents, at least 2.
        centre: The mean of the process's prior.

    Raises:
        InputError: For latents of different shapes, and for fewer than 2 frames.
    """
    positive_int("frames", frames, at_least=2, at_most=_MOST_FRAMES)  # both ends
    number("centre", centre, at_least=-LARGEST, at_most=LARGEST)
    for name, x in (("a", a), ("b", b)):
        check_real(name, x, "one latent, a tensor (*)")
        if not x.is_floating_point() or not x.ndim or x.shape != a.shape:
            got = f"{x.dtype} of shape {tuple(x.shape)}"
            raise InputError(f"{name} is one latent, a tensor (*) of the other one's shape; got {got}")
        check_device(name, x, a)
    start, end = ((x - centre).expand(frames, *x.shape) for x in (a, b))
    return centre + slerp(start, end, torch.linspace(0, 1, frames, dtype=torch.float64, device=a.device))


def slerp(a: Tensor, b: Tensor, weight: float | Tensor) -> Tensor:
    """sin((1 − w)θ)/sin θ · a + sin(wθ)/sin θ · b with θ the angle between a and b.  [DDIM Eq. 67]

    At θ = 0 this is a straight line. At θ = π every half circle is as short, and the one through a quarter
    turn of a is taken: pairs of values (p, q) become (−q, p), which has the law of noise where a has it.

    Args:
        a: (B, *), each example by itself over all its dimensions.
        b: (B, *), in the shape of a.
        weight: w in [0, 1], a number or (B,); 0 gives a, 1 gives b.

    Returns:
        (B, *), computed in float64 and returned in the dtype of a.

    Raises:
        InputError: For NaN, infinite values, different shapes, and weights outside [0, 1].
    """
    for name, x in (("a", a), ("b", b)):
        check_batch_of(name, x)
        check_real(name, x)
        if is_true((~x.isfinite()).any()):
            raise InputError(f"{name} holds NaN or infinite values, which cannot be interpolated")
    if a.shape != b.shape or a.ndim < 2:
        raise InputError(
            f"two batches of one shape (B, *) are needed, got {tuple(a.shape)} and {tuple(b.shape)}"
        )
    check_device("b", b, a)
    w = numbers("weight", weight).to(a.device)
    if not bool(((w >= 0) & (w <= 1)).all()) or w.ndim > 1 or (w.ndim == 1 and len(w) != len(a)):
        raise InputError(
            f"weight lies in [0, 1], a number or one for each of {len(a)} examples; got {brief(weight)}"
        )
    flat_a, flat_b = (x.to(torch.float64).reshape(len(x), -1) for x in (a, b))
    w = w.expand(len(a))[:, None]
    unit_a, unit_b = (x / x.norm(dim=1, keepdim=True).clamp_min(1e-300) for x in (flat_a, flat_b))
    # Kahan's form of the angle keeps its digits near 0 and π, where the arc cosine of a product has lost
    # them.
    theta = 2 * torch.atan2(
        (unit_a - unit_b).norm(dim=1, keepdim=True), (unit_a + unit_b).norm(dim=1, keepdim=True)
    )
    on_arc = (
        torch.sin((1 - w) * theta) / torch.sin(theta) * flat_a
        + torch.sin(w * theta) / torch.sin(theta) * flat_b
    )
    on_line = (1 - w) * flat_a + w * flat_b
    path = torch.where(theta < _STRAIGHT, on_line, on_arc)
    path = torch.where(math.pi - theta < _STRAIGHT, _half_circle(unit_a, flat_a, flat_b, w), path)
    return path.reshape(a.shape).to(a.dtype)


def _half_circle(unit_a: Tensor, a: Tensor, b: Tensor, w: Tensor) -> Tensor:
    """From a to the opposite b, (B, D): through a quarter turn, while the length goes evenly from ‖a‖ to ‖b‖."""
    turned = torch.zeros_like(unit_a)
    even = unit_a.shape[1] // 2 * 2
    turned[:, 0:even:2], turned[:, 1:even:2] = -unit_a[:, 1:even:2], unit_a[:, 0:even:2]
    turned = turned / turned.norm(dim=1, keepdim=True).clamp_min(1e-300)
    length = (1 - w) * a.norm(dim=1, keepdim=True) + w * b.norm(dim=1, keepdim=True)
    return length * (torch.cos(math.pi * w) * unit_a + torch.sin(math.pi * w) * turned)


def _walked(steps: Iterator[Step], x: Tensor, on_step: Callable[[Step], object] | None) -> Tensor:
    """The last x of these steps."""
    if on_step is not None and (not callable(on_step) or isinstance(on_step, type)):
        raise InputError(f"on_step is called with every step, a sf.Step, got {brief(on_step)}")
    for step in steps:
        x = step.x
        if on_step is not None:
            on_step(step)
    return x


def _checked(model: AnyModel, grid: Grid, sampler: Sampler) -> tuple[GaussianModel, list[int] | list[float]]:
    """The model, and the grid's times, descending, where they and the sampler have a flow that can be walked both ways."""
    walker = as_sampler(sampler)
    asked = as_gaussian(model, type(sampler).__name__, categorical="CategoricalAncestral or CategoricalDDIM")
    if asked.guided:
        raise IncompatibleModel("latents are defined without guidance: encode and decode the unguided model")
    if asked.clips:
        raise IncompatibleModel("clipping x̂0 is not invertible: encode and decode the model without ClipX0")
    if asked.autocast_dtype is not None:
        raise IncompatibleModel(
            "latents need fp32, and this model runs in bf16: set its autocast_dtype to None"
        )
    times = as_grid(asked.process, grid)
    if grid_direction(sampler, times) != "down":
        raise InputError(
            f"give the grid in the order of decoding, descending from noise to data; got {brief(times)}"
        )
    walker.calls(times[::-1])  # refuses a sampler that only walks down, or that adds noise
    return asked, times
