"""What the machine can do: the one place that picks a precision by device."""

from __future__ import annotations

import torch

from scorefield.core.errors import InputError

__all__ = ["PRECISIONS", "autocast_dtype", "has_bf16_units", "pick_device"]

PRECISIONS = ("auto", "bf16", "fp32")


def has_bf16_units(device: torch.device) -> bool:
    """Whether the device multiplies bf16 matrices in hardware: AMX or AVX512-BF16 on a CPU, Ampere or later on CUDA."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    probes = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return any(probe() for probe in probes if probe is not None)


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The dtype that networks run in under autocast: bf16, or None for plain fp32. "auto" asks the device."""
    if precision not in PRECISIONS:
        raise InputError(f"precision must be one of {', '.join(PRECISIONS)}; got {precision!r}")
    use = has_bf16_units(device) if precision == "auto" else precision == "bf16"
    return torch.bfloat16 if use else None


def pick_device(name: str | None) -> torch.device:
    """The device of that name, or the fastest one found. InputError where this machine has no such device."""
    has = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name is None:
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if has[kind]))
    kind = name.partition(":")[0]
    if kind not in has:
        raise InputError(f"device must be one of {', '.join(has)}, got {name!r}")
    if not has[kind]:
        raise InputError(f"torch finds no {kind} device on this machine: leave --device out, or use cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device must be one of {', '.join(has)}, perhaps with a number such as cuda:1; got {name!r}") from None
    if kind == "cuda" and device.index is not None and device.index >= torch.cuda.device_count():
        raise InputError(f"this machine has {torch.cuda.device_count()} CUDA devices, numbered from 0; got {name!r}")
    return device
