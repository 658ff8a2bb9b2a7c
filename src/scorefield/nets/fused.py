"""Fused normalization, modulation and SiLU on a CPU, in channels-last memory, in bf16 or float32.

Convolutions are fastest in channels-last memory, where torch's group normalization is slowest; these loops are
most of what makes the ADM U-Net train 2.2 times as fast as diffusers' (docs/results/performance.md). Where they cannot be
compiled, the plain formula is used in the usual memory layout.
"""

from __future__ import annotations

import importlib.util
import os
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx

__all__ = [
    "available",
    "examples_at_once",
    "fused_norm",
    "is_fused",
    "plain_norm",
    "switch",
    "takes_fused_attention",
    "to_layout",
]

_DTYPES = (torch.bfloat16, torch.float32)
_CACHED = 2**20  # numbers
_enabled = True


@cache
def available() -> bool:
    """Whether the loops can be compiled here: numba is installed, and its compiler is not switched off."""
    return importlib.util.find_spec("numba") is not None and os.environ.get("NUMBA_DISABLE_JIT", "0") == "0"


def switch(on: bool) -> None:
    """Use the compiled loops (the default) or the plain formulas in this process."""
    global _enabled
    _enabled = on


def to_layout(x: Tensor) -> Tensor:
    """Images (B, C, H, W) in the memory layout in which the networks are fastest; the same numbers.

    Channels-last on CUDA under bf16 and where the compiled loops serve; as they are elsewhere.
    """
    if x.ndim != 4 or not (_serves(x) or (x.device.type == "cuda" and torch.is_autocast_enabled("cuda"))):
        return x
    if (
        x.shape[1] == 1
    ):  # in both layouts at once: only strides written as channels-last bring a convolution into it
        return x.reshape(len(x), *x.shape[2:], 1).as_strided(x.shape, (x[0].numel(), 1, x.shape[3], 1))
    return x.contiguous(memory_format=torch.channels_last)


def is_fused(x: Tensor) -> bool:
    """Whether x (B, C, H, W) is normalized by the compiled loops: `to_layout` brought its network's input
    into their layout.
    """
    return x.ndim == 4 and _serves(x) and x.is_contiguous(memory_format=torch.channels_last)


def plain_norm(
    x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, modulation: Tensor | None, silu: bool
) -> Tensor:
    """GN(x)·(1 + scale) + shift, then SiLU; `modulation` (B, 2C) is scales, then shifts."""
    # Contiguous: the CPU's channels-last kernel is several times slower, loses digits where the mean is large
    # (1e-4
    # in golden case C02) and has no forward-mode derivative. F.group_norm would refuse one example of one
    # pixel.
    h = torch.group_norm(x.contiguous(), groups, weight, bias, eps)
    if modulation is not None:
        scale, shift = modulation.reshape(*modulation.shape, *[1] * (x.ndim - 2)).chunk(2, dim=1)
        h = h * (1 + scale) + shift
    return F.silu(h) if silu else h


def fused_norm(
    x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float, modulation: Tensor | None, silu: bool
) -> Tensor:
    """`plain_norm` by the compiled loops, for x of which `is_fused` is true. It has a second derivative, by
    the plain formula.
    """
    result: Tensor = _Norm.apply(x, weight, bias, modulation, groups, eps, silu)
    return result


def takes_fused_attention(q: Tensor) -> bool:
    """Whether scaled_dot_product_attention is the faster one for queries (B, heads, L, d), and has all
    derivatives needed.

    On a CPU only in fp32 where nothing is recorded: it has no second derivative, its bf16 forward takes twice
    the time of the formula's and its bf16 backward several times.
    """
    if q.device.type == "cuda":
        return q.dtype in (torch.bfloat16, torch.float16)
    return not torch.is_grad_enabled() and _serves(q) and q.dtype == torch.float32


def examples_at_once(q: Tensor, k: Tensor) -> int:
    """Of how many examples the weights of attention are made at a time: on a CPU, of those whose weights stay
    in its caches.
    """
    weights = q.shape[1] * q.shape[2] * k.shape[2]
    return max(1, _CACHED // weights) if q.device.type == "cpu" else len(q)


class _Context(FunctionCtx):
    options: tuple[int, float, bool]
    saved_tensors: tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor]


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: _Context,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        modulation: Tensor | None,
        groups: int,
        eps: float,
        silu: bool,
    ) -> Tensor:
        y, stats = torch.empty_like(x), x.new_empty(2, len(x), groups, dtype=torch.float32)
        if not _is_fake(x):
            from scorefield.nets import numba_kernels

            kind = numba_kernels.BF16 if x.dtype == torch.bfloat16 else numba_kernels.FLOAT32
            options = (kind, _rows(x), groups, eps, silu, modulation is not None)
            read = (x, *_as_read(x, weight, bias, modulation))
            _match_threads()
            numba_kernels.forward_at(*options, *_addresses(*read, y, stats))
        ctx.save_for_backward(x, weight, bias, modulation, stats)  # type: ignore[arg-type]  # None is allowed
        ctx.options = groups, eps, silu
        return y

    @staticmethod
    def backward(ctx: _Context, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, modulation, stats = ctx.saved_tensors
        groups, eps, silu = ctx.options
        if torch.is_grad_enabled():  # create_graph: the loops have no derivative of their own
            inputs = [
                part for part in (x, weight, bias, modulation) if part is not None and part.requires_grad
            ]
            y = plain_norm(x, groups, weight.to(x.dtype), bias.to(x.dtype), eps, modulation, silu)
            found = iter(torch.autograd.grad(y, inputs, dy.to(y.dtype), create_graph=True))
            parts = (x, weight, bias, modulation)
            return (
                *(next(found) if part is not None and part.requires_grad else None for part in parts),
                None,
                None,
                None,
            )
        return *_gradients(dy, x, weight, bias, modulation, stats, groups, silu), None, None, None


def _gradients(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    modulation: Tensor | None,
    stats: Tensor,
    groups: int,
    silu: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    dy = dy.to(x.dtype).contiguous(memory_format=torch.channels_last)
    dx, dweights = torch.empty_like(x), x.new_empty(2, x.shape[1], dtype=torch.float32)
    dmodulation = None if modulation is None else modulation.new_empty(modulation.shape, dtype=x.dtype)
    if not _is_fake(x):
        from scorefield.nets import numba_kernels

        kind = numba_kernels.BF16 if x.dtype == torch.bfloat16 else numba_kernels.FLOAT32
        options = (kind, _rows(x), groups, silu, modulation is not None)
        read = (x, dy, *_as_read(x, weight, bias, modulation), stats)
        _match_threads()
        numba_kernels.backward_at(*options, *_addresses(*read, dx, dweights, dmodulation))
    dweight, dbias = dweights
    return (
        dx,
        dweight.to(weight.dtype),
        dbias.to(bias.dtype),
        None if modulation is None or dmodulation is None else dmodulation.to(modulation.dtype),
    )


def _serves(x: Tensor) -> bool:
    """Whether the loops can take this tensor: its place, its dtype, and no transformation of torch.func or
    forward mode around it.
    """
    if not (
        _enabled
        and x.device.type == "cpu"
        and x.dtype in _DTYPES
        and (type(x) in (Tensor, torch.nn.Parameter) or _is_fake(x))
    ):
        return False
    transformed = (
        torch._C._functorch.peek_interpreter_stack() is not None
        or torch.autograd.forward_ad._current_level >= 0
    )
    return not (transformed or torch.compiler.is_compiling()) and available()


def _is_fake(x: Tensor) -> bool:
    """Whether x has a shape and no numbers: what is computed from it is as large as it would be, and is not
    computed.
    """
    return type(x).__name__ == "FakeTensor"


@cache
def _start_threads() -> int:
    """How many threads the loops may have. Starting them changes torch's own number where both share one
    pool: put it back.

    A process that is forked off has no such threads, and must not wait for them: it uses the formulas.
    """
    from numba import config
    from numba.np.ufunc.parallel import _launch_threads

    threads = torch.get_num_threads()
    _launch_threads()
    torch.set_num_threads(threads)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: switch(False))
    return int(vars(config)["NUMBA_NUM_THREADS"])


def _match_threads() -> None:
    """As many threads as torch has."""
    import numba

    numba.set_num_threads(max(1, min(torch.get_num_threads(), _start_threads())))


def _rows(x: Tensor) -> tuple[int, int, int]:
    """(B, C, H, W) in channels-last memory, as the loops read it: (B, H·W, C)."""
    batch, channels, height, width = x.shape
    return batch, height * width, channels


def _as_read(
    x: Tensor, weight: Tensor, bias: Tensor, modulation: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Weights in float32, the modulation in x's dtype, without gaps."""
    mod = None if modulation is None else modulation.to(x.dtype).contiguous()
    return weight.float().contiguous(), bias.float().contiguous(), mod


def _addresses(*tensors: Tensor | None) -> list[int]:
    """Of their memory, 0 for none. Who calls must hold the tensors, in variables, until the loops are done."""
    return [0 if one is None else one.data_ptr() for one in tensors]
