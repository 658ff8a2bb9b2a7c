"""Device and precision: bf16 where there are units for it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from scorefield.runtime.checks import one_of
from scorefield.runtime.errors import InputError

__all__ = ["PRECISIONS", "Precision", "autocast_dtype", "bf16_units", "is_compiled", "pick_device"]

PRECISIONS = ("auto", "bf16", "fp32")


def bf16_units(device: torch.device) -> str | None:
    """What multiplies bf16 matrices in hardware: AMX or AVX512-BF16 on a CPU, tensor cores from Ampere on;
    None where nothing does.
    """
    if device.type == "cuda":
        return "tensor cores" if torch.cuda.is_bf16_supported(including_emulation=False) else None
    if device.type != "cpu":
        return None
    probes = {"AMX": "_is_amx_tile_supported", "AVX512-BF16": "_is_avx512_bf16_supported"}
    return next((name for name, probe in probes.items() if getattr(torch.cpu, probe, lambda: False)()), None)


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The dtype that networks run in under autocast: bf16, or None for plain fp32. "auto" asks the device."""
    one_of("precision", precision, PRECISIONS)
    use = bf16_units(device) is not None if precision == "auto" else precision == "bf16"
    return torch.bfloat16 if use else None


def pick_device(name: str | torch.device | None) -> torch.device:
    """The device of that name, or the fastest one found. InputError where this machine has no such device."""
    has = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if isinstance(name, torch.device):
        if name.type not in (*has, "meta"):
            return name  # of a backend that torch was extended by
        name = str(name)
    if name is None:
        return torch.device(next(kind for kind in ("cuda", "mps", "cpu") if has[kind]))
    kind = one_of("device", name.partition(":")[0] if isinstance(name, str) else name, has)
    if not has[kind]:
        raise InputError(
            f"torch finds no {kind} device on this machine: remove device, or use cpu",
            command="--device cpu",
        )
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(
            f"device must be one of {', '.join(has)}, perhaps with a number such as cuda:1; got {name!r}"
        ) from None
    if kind == "cuda" and device.index is not None and device.index >= torch.cuda.device_count():
        raise InputError(
            f"this machine has {torch.cuda.device_count()} CUDA devices, numbered from 0; got {name!r}"
        )
    return device


def is_compiled(net: object) -> bool:
    """Whether torch.compile was asked for by net.compile()."""
    return isinstance(net, nn.Module) and net._compiled_call_impl is not None


class Precision:
    """Calls a network under autocast, or plainly.

    Autocast casts every weight at every call. Where `keep` was called and nothing is recorded they are cast
    once instead; the result is the same to the bit. Nothing tells reliably that weights have changed
    (`p.data` changes them unseen), so it must be asked for.
    """

    def __init__(self) -> None:
        self._keeps = False
        self._of: tuple[torch.dtype, torch.device] | None = None
        self._weights: dict[str, Tensor] = {}

    def keep(self) -> None:
        """From now on the weights stay as they are. To be called again after they have changed."""
        self._keeps, self._of, self._weights = True, None, {}

    def call(
        self, net: Callable[..., Tensor], dtype: torch.dtype | None, x: Tensor, *rest: object, **given: object
    ) -> Tensor:
        """net(x, *rest, **given) under autocast to `dtype`, or plainly where that is None."""
        if dtype is None:
            return net(x, *rest, **given)
        with torch.autocast(x.device.type, dtype=dtype):
            # A compiled network is compiled for the weights that it has.
            if (
                not self._keeps
                or is_compiled(net)
                or torch.is_grad_enabled()
                or not isinstance(net, nn.Module)
            ):
                return net(x, *rest, **given)
            # Weights that are tied are all in the table: to look for ties takes longer than to call a small
            # network.
            result: Tensor = torch.func.functional_call(
                net, self._cast(net, dtype, x.device), (x, *rest), given, tie_weights=False
            )
            return result

    def _cast(self, net: nn.Module, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
        """The float32 weights of products and convolutions in this dtype: those that autocast would cast."""
        if self._of != (dtype, device):
            self._of = (dtype, device)
            self._weights = {
                f"{path}.{name}" if path else name: _laid_out(value.detach().to(dtype))
                for path, module in net.named_modules()
                if isinstance(module, _CAST)
                for name, value in module.named_parameters(recurse=False)
                if value.dtype == torch.float32
            }
        return self._weights


_CAST = (nn.Linear, nn.Conv1d, nn.Conv2d)


def _laid_out(weight: Tensor) -> Tensor:
    """Convolutions' weights in the layout of their fastest kernels."""
    return weight.contiguous(memory_format=torch.channels_last) if weight.ndim == 4 else weight
