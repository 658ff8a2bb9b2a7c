"""Derivatives of networks with respect to their input, by double backward, in any gradient mode."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from scorefield.core.shapes import check_real
from scorefield.runtime.checks import brief
from scorefield.runtime.errors import InputError

__all__ = ["check_batch", "differentiable", "recording", "score_from_energy", "vjp"]


def score_from_energy(energy: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The score s(x) = −∇E(x) of the density p ∝ exp(−E), by autograd: curl-free, and trainable.

    Args:
        energy: x (B, *) -> (B,), which treats examples independently.
    Returns:
        s, a callable x (B, *) -> (B, *), differentiable in x and in the energy's parameters. It raises InputError
        where the energy has another shape than (B,).
    """

    if not callable(energy) or isinstance(energy, type):
        raise InputError(f"an energy is called x (B, *) -> (B,), got {brief(energy)}")

    def score(x: Tensor) -> Tensor:
        check_batch(x)
        with recording() as create_graph:
            x_in = differentiable(x, create_graph)
            value = energy(x_in)
            if not isinstance(value, Tensor) or value.shape != x.shape[:1]:
                got = tuple(value.shape) if isinstance(value, Tensor) else brief(value)
                raise InputError(
                    f"an energy must give one value per example, shape ({x.shape[0]},), got {got}"
                )
            s = -vjp(value, x_in, torch.ones_like(value), create_graph)
        return s if create_graph else s.detach()

    return score


def vjp(output: Tensor, x: Tensor, v: Tensor, create_graph: bool) -> Tensor:
    """vᵀ(d output/dx), of x's shape; zero where the output does not depend on x."""
    if not output.requires_grad:
        return torch.zeros_like(x)
    product: Tensor
    (product,) = torch.autograd.grad(
        output, x, v, create_graph=create_graph, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    return product


@contextmanager
def recording() -> Iterator[bool]:
    """Record gradients inside, whatever the caller's mode. Yields whether the caller wants the graph."""
    wanted = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.enable_grad():
        yield wanted


def differentiable(x: Tensor, keep_graph: bool) -> Tensor:
    """x as an input to take derivatives at, sharing memory. The caller's tensor and its .grad stay as they
    are.
    """
    if x.is_inference():
        x = x.clone()
    if keep_graph and x.requires_grad:
        return x.view_as(x)
    return x.detach().requires_grad_(True)


def check_batch(x: Tensor) -> None:
    """InputError unless x is a non-empty batch (B, *) of floats."""
    check_real("x", x, "a tensor (B, *) of real numbers")
    if not x.is_floating_point():
        raise InputError(
            f"x must hold floating-point values, got {x.dtype}: convert it, for example with x.float()"
        )
    if x.ndim < 2 or x.numel() == 0:
        raise InputError(
            f"x must be a non-empty batch (B, ...) of at least two dimensions, got shape {tuple(x.shape)}"
        )
