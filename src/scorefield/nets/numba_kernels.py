"""Compiled loops for the CPU: group normalization, modulation and SiLU in two passes over channels-last
memory.

Loops over examples run on several threads: besides speed, only there does the compiler know that arrays do
not overlap, and vectorize. Everything is float32 arithmetic; bf16 numbers come and go as the upper halves of
their float32 bits (uint16). Importing this module needs numba, which compiles a loop at its first call
(seconds) and keeps the result on the disk.

`norm_forward` and `norm_backward` take arrays. `forward_at` and `backward_at` are the same for memory by its
addresses: in a small network, making arrays of tensors takes longer than the loops.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import carray, njit, prange, types
from numba.extending import intrinsic, overload

__all__ = ["BF16", "FLOAT32", "backward_at", "forward_at", "norm_backward", "norm_forward"]

# What numbers in memory are, to `forward_at` and `backward_at`.
BF16, FLOAT32 = np.uint16(0), np.float32(0)

# No "nnan" or "ninf": a diverged activation must stay visible.
_FAST = {"contract", "arcp", "nsz", "reassoc"}


def _load(a: np.ndarray, b: int, p: int, c: int) -> np.float32:
    """a[b, p, c] as float32. This and `_store` are what runs where the loops are interpreted."""
    value = a[b, p, c]
    return (value.astype(np.uint32) << np.uint32(16)).view(np.float32) if a.dtype == np.uint16 else value


def _store(a: np.ndarray, b: int, p: int, c: int, value: np.float32) -> None:
    """a[b, p, c] = value, rounded to nearest even where a is bf16."""
    if a.dtype == np.uint16:
        bits = np.float32(value).view(np.uint32)
        a[b, p, c] = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    else:
        a[b, p, c] = value


@overload(_load, inline="always")
def _typed_load(a, b, p, c):  # type: ignore[no-untyped-def]
    if a.dtype == types.uint16:
        return lambda a, b, p, c: np.uint32(np.uint32(a[b, p, c]) << np.uint32(16)).view(np.float32)
    return lambda a, b, p, c: a[b, p, c]


@overload(_store, inline="always")
def _typed_store(a, b, p, c, value):  # type: ignore[no-untyped-def]
    def store_bf16(a, b, p, c, value):  # type: ignore[no-untyped-def]
        bits = np.float32(value).view(np.uint32)
        a[b, p, c] = np.uint16(
            np.uint32(bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
        )

    def store(a, b, p, c, value):  # type: ignore[no-untyped-def]
        a[b, p, c] = value

    return store_bf16 if a.dtype == types.uint16 else store


@njit(error_model="numpy")
def _quiet(values):  # type: ignore[no-untyped-def]
    """The same with every NaN as the processor's own: rounding to bf16 would make zeros of some others, such
    as those of a GPU.
    """
    result = np.empty_like(values)
    for i in range(len(values)):
        result[i] = values[i] if values[i] == values[i] else np.float32(np.nan)
    return result


@njit(inline="always", error_model="numpy")
def _sigmoid(z):  # type: ignore[no-untyped-def]
    """1/(1 + e^{-z}), relative error at most (2 + |z|) units in the last place: e^{-z} = 2^n e^r, |r| ≤ ½ ln
    2, by Taylor's polynomial.
    """
    t = min(max(-z, np.float32(-87.0)), np.float32(87.0)) * np.float32(1.4426950408889634)
    biased = np.int32(t + np.float32(127.5))  # n + 127, rounded: what is truncated is positive
    r = (t - np.float32(biased - np.int32(127))) * np.float32(0.6931471805599453)
    e = np.float32(1 / 720)
    e = e * r + np.float32(1 / 120)
    e = e * r + np.float32(1 / 24)
    e = e * r + np.float32(1 / 6)
    e = e * r + np.float32(0.5)
    e = e * r + np.float32(1.0)
    e = e * r + np.float32(1.0)
    e = e * np.int32(biased << np.int32(23)).view(np.float32)
    return np.float32(1.0) / (np.float32(1.0) + e)


@njit(parallel=True, fastmath=_FAST, error_model="numpy", cache=True)
def norm_forward(x, weight, bias, modulation, groups, eps, silu, y, mean, rstd):  # type: ignore[no-untyped-def]
    """y = silu?(GN(x)·weight·(1 + scale) + bias·(1 + scale) + shift) for every example.

    Args:
        x: (B, P, C) uint16 or float32.
        weight: (C,).
        bias: (C,).
        modulation: (B, 2, C) like x, scales and shifts; (0, 2, C) for none.
        groups: Number of groups.
        eps: Added to the variance of a group.
        silu: Whether SiLU follows.
        y: Filled, like x.
        mean: Filled with the mean of each group, (B, groups).
        rstd: Filled with the reciprocal standard deviation of each group, (B, groups).
    """
    batch, pixels, channels = x.shape
    size = channels // groups
    modulated = modulation.shape[0] > 0
    weight, bias = _quiet(weight), _quiet(bias)
    for b in prange(batch):
        pivot, total, square = (
            np.empty(channels, np.float32),
            np.zeros(channels, np.float32),
            np.zeros(channels, np.float32),
        )
        # Sums of differences from the first pixel: nothing is lost where the mean is large. Four pixels share
        # a store.
        for c in range(channels):
            pivot[c] = _load(x, b, 0, c)
        whole = pixels - pixels % 4
        for p in range(0, whole, 4):
            for c in range(channels):
                k = pivot[c]
                v0, v1 = _load(x, b, p, c) - k, _load(x, b, p + 1, c) - k
                v2, v3 = _load(x, b, p + 2, c) - k, _load(x, b, p + 3, c) - k
                total[c] += (v0 + v1) + (v2 + v3)
                square[c] += (v0 * v0 + v1 * v1) + (v2 * v2 + v3 * v3)
        for p in range(whole, pixels):
            for c in range(channels):
                v = _load(x, b, p, c) - pivot[c]
                total[c] += v
                square[c] += v * v
        center, slope, offset = (
            np.empty(channels, np.float32),
            np.empty(channels, np.float32),
            np.empty(channels, np.float32),
        )
        for g in range(groups):
            first = g * size
            m, spread = 0.0, 0.0
            for c in range(first, first + size):
                m += pivot[c] + total[c] / pixels
            m /= size
            for c in range(first, first + size):
                away = pivot[c] + total[c] / pixels - m
                spread += square[c] - np.float64(total[c]) * total[c] / pixels + pixels * away * away
            r = 1.0 / math.sqrt(max(spread / (pixels * size), 0.0) + eps)
            mean[b, g], rstd[b, g] = m, r
            for c in range(first, first + size):
                more = np.float32(1.0) + _load(modulation, b, 0, c) if modulated else np.float32(1.0)
                center[c], slope[c], offset[c] = m, r * weight[c] * more, bias[c] * more
                if modulated:
                    offset[c] += _load(modulation, b, 1, c)
        if silu:
            for p in range(pixels):
                for c in range(channels):
                    z = (_load(x, b, p, c) - center[c]) * slope[c] + offset[c]
                    _store(y, b, p, c, z * _sigmoid(z))
        else:
            for p in range(pixels):
                for c in range(channels):
                    _store(y, b, p, c, (_load(x, b, p, c) - center[c]) * slope[c] + offset[c])


@njit(parallel=True, fastmath=_FAST, error_model="numpy", cache=True)
def norm_backward(x, dy, weight, bias, modulation, groups, silu, mean, rstd, dx, dweight, dbias, dmodulation):  # type: ignore[no-untyped-def]
    """Gradients of `norm_forward`, in the shapes of what they are of. dmodulation: (0, 2, C) for none.

    In z = x̂·γ + β, with x̂ the normalized x, γ = weight·(1 + scale), β = bias·(1 + scale) + shift and d =
    ∂L/∂z: ∂L/∂x = r(γd − ⟨γd⟩ − x̂⟨γd x̂⟩), means over a group; ∂L/∂γ = Σ d x̂ and ∂L/∂β = Σ d, sums over an
    example's pixels.
    """
    batch, pixels, channels = x.shape
    size = channels // groups
    modulated = modulation.shape[0] > 0
    weight, bias = _quiet(weight), _quiet(bias)
    dgamma, dbeta = np.empty((batch, channels), np.float32), np.empty((batch, channels), np.float32)
    for b in prange(batch):
        center, slope, offset = (
            np.empty(channels, np.float32),
            np.empty(channels, np.float32),
            np.empty(channels, np.float32),
        )
        gamma, sums, products = (
            np.empty(channels, np.float32),
            np.zeros(channels, np.float32),
            np.zeros(channels, np.float32),
        )
        for c in range(channels):
            more = np.float32(1.0) + _load(modulation, b, 0, c) if modulated else np.float32(1.0)
            gamma[c], offset[c] = weight[c] * more, bias[c] * more
            center[c], slope[c] = mean[b, c // size], rstd[b, c // size] * gamma[c]
            if modulated:
                offset[c] += _load(modulation, b, 1, c)
        for p in range(pixels):
            for c in range(channels):
                v, d = _load(x, b, p, c) - center[c], _load(dy, b, p, c)
                if silu:
                    z = v * slope[c] + offset[c]
                    s = _sigmoid(z)
                    d = d * s * (np.float32(1.0) + z * (np.float32(1.0) - s))
                    _store(dx, b, p, c, d)  # kept here for the second pass
                sums[c] += d
                products[c] += d * v
        constant, linear = np.empty(channels, np.float32), np.empty(channels, np.float32)
        for g in range(groups):
            first, r = g * size, rstd[b, g]
            mean_d, mean_dx = 0.0, 0.0
            for c in range(first, first + size):
                dgamma[b, c], dbeta[b, c] = r * products[c], sums[c]
                mean_d += gamma[c] * sums[c]
                mean_dx += gamma[c] * r * products[c]
            for c in range(first, first + size):
                constant[c] = -r * mean_d / (pixels * size)
                linear[c] = -r * r * mean_dx / (pixels * size)
        for p in range(pixels):
            for c in range(channels):
                d = _load(dx, b, p, c) if silu else _load(dy, b, p, c)
                _store(dx, b, p, c, slope[c] * d + linear[c] * (_load(x, b, p, c) - center[c]) + constant[c])
    of_weight, of_bias = np.zeros(channels, np.float64), np.zeros(channels, np.float64)
    for b in range(batch):
        for c in range(channels):
            more = np.float32(1.0) + _load(modulation, b, 0, c) if modulated else np.float32(1.0)
            of_weight[c] += dgamma[b, c] * more
            of_bias[c] += dbeta[b, c] * more
            if modulated:
                _store(dmodulation, b, 0, c, dgamma[b, c] * weight[c] + dbeta[b, c] * bias[c])
                _store(dmodulation, b, 1, c, dbeta[b, c])
    for c in range(channels):
        dweight[c], dbias[c] = of_weight[c], of_bias[c]


def _typed_pointer(context: Any, address: Any, kind: Any) -> Any:
    """The address as a pointer to numbers of the kind of this one."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(kind)(address, kind), generate


_pointer: Any = intrinsic(_typed_pointer)


@njit(error_model="numpy", cache=True)
def forward_at(kind, shape, groups, eps, silu, modulated, x, weight, bias, modulation, y, stats):  # type: ignore[no-untyped-def]
    """`norm_forward` of arrays at addresses.

    Args:
        kind: BF16 or FLOAT32, of x, y and modulation.
        shape: (B, P, C).
        groups: As there.
        eps: As there.
        silu: As there.
        modulated: Whether there is a modulation.
        x: Address.
        weight: Address.
        bias: Address.
        modulation: Address.
        y: Address.
        stats: Address of mean and rstd, one after the other.
    """
    batch, _, channels = shape
    mean, rstd = carray(_pointer(stats, FLOAT32), (2, batch, groups))
    norm_forward(
        carray(_pointer(x, kind), shape),
        carray(_pointer(weight, FLOAT32), channels),
        carray(_pointer(bias, FLOAT32), channels),
        carray(_pointer(modulation, kind), (batch if modulated else 0, 2, channels)),
        groups,
        eps,
        silu,
        carray(_pointer(y, kind), shape),
        mean,
        rstd,
    )


@njit(error_model="numpy", cache=True)
def backward_at(  # type: ignore[no-untyped-def]
    kind, shape, groups, silu, modulated, x, dy, weight, bias, modulation, stats, dx, dweights, dmodulation
):
    """`norm_backward` of arrays at addresses.

    Args:
        kind: BF16 or FLOAT32, of x, dy, dx and modulations.
        shape: (B, P, C).
        groups: As there.
        silu: As there.
        modulated: Whether there is a modulation.
        x: Address.
        dy: Address.
        weight: Address.
        bias: Address.
        modulation: Address.
        stats: Address of mean and rstd, one after the other.
        dx: Address.
        dweights: Address of dweight and dbias, one after the other.
        dmodulation: Address.
    """
    batch, _, channels = shape
    mean, rstd = carray(_pointer(stats, FLOAT32), (2, batch, groups))
    dweight, dbias = carray(_pointer(dweights, FLOAT32), (2, channels))
    mods = (batch if modulated else 0, 2, channels)
    norm_backward(
        carray(_pointer(x, kind), shape),
        carray(_pointer(dy, kind), shape),
        carray(_pointer(weight, FLOAT32), channels),
        carray(_pointer(bias, FLOAT32), channels),
        carray(_pointer(modulation, kind), mods),
        groups,
        silu,
        mean,
        rstd,
        carray(_pointer(dx, kind), shape),
        dweight,
        dbias,
        carray(_pointer(dmodulation, kind), mods),
    )
