"""A device without a device: the tensors of "pretend:0" hold numbers of the CPU and refuse to meet its tensors, as
CUDA's do.

It is torch's private backend with kernels in Python, so importing this module changes torch for the whole process: only
`device_job.py`, a process of its own, does. What it cannot show: speed, memory, rounding, streams, autocast.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.utils.backend_registration as registration
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from scorefield.runtime import precision

__all__ = ["PRETEND", "WORK", "OnPretend", "pretend"]

registration._setup_privateuseone_for_python_backend("pretend")
torch.pretend.get_amp_supported_dtype = lambda: [torch.bfloat16]  # type: ignore[attr-defined]
PRETEND, CPU, aten = torch.device("pretend:0"), torch.device("cpu"), torch.ops.aten

# What may see both devices: copies, and reading one number.
CROSSING = {
    aten._to_copy.default,
    aten.copy_.default,
    aten._local_scalar_dense.default,
    aten.lift_fresh.default,
    aten.detach.default,
}
# CUDA takes indices that lie on the CPU.
INDEXING = {
    aten.index.Tensor,
    aten.index_put_.default,
    aten.index_put.default,
    aten._unsafe_index.Tensor,
}
# Products and convolutions, which networks are made of, counted by where they ran; on the CPU those of float32, since
# statistics are computed there in float64.
HEAVY = {aten.addmm.default, aten.mm.default, aten.convolution.default, aten.bmm.default}
WORK: Counter[str] = Counter()


class OnPretend(torch.Tensor):
    """A tensor on the device.   on_cpu: its numbers, on the CPU."""

    on_cpu: torch.Tensor

    @staticmethod
    def __new__(cls, on_cpu: torch.Tensor) -> OnPretend:
        made: OnPretend = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls,
            on_cpu.size(),
            strides=on_cpu.stride(),
            storage_offset=on_cpu.storage_offset(),
            dtype=on_cpu.dtype,
            layout=on_cpu.layout,
            device=PRETEND,
            requires_grad=on_cpu.requires_grad,
        )
        made.on_cpu = on_cpu
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnPretend({self.on_cpu})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return _run(func, args, kwargs or {})


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    """The tensors among an operation's arguments, which are tensors, lists of them, and what is none."""
    for value in values:
        if isinstance(value, torch.Tensor):
            yield value
        elif type(value) in (list, tuple):
            yield from _tensors(value)


def _each(value: Any, change: Callable[[torch.Tensor], Any]) -> Any:
    """A value with each of its tensors changed. Several times as fast as torch's own trees, which took half of the time."""
    if isinstance(value, torch.Tensor):
        return change(value)
    return type(value)(_each(part, change) for part in value) if type(value) in (list, tuple) else value


def _on_cpu(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.on_cpu if isinstance(tensor, OnPretend) else tensor


def _there(tensor: torch.Tensor) -> torch.Tensor:
    return tensor if isinstance(tensor, OnPretend) else OnPretend(tensor)


def _is_ours(device: Any) -> bool:
    return device is not None and torch.device(device).type == "pretend"


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    """Do on the CPU's numbers what was asked of the device's; RuntimeError where the two would mix."""
    tensors = [*_tensors(args), *_tensors(kwargs.values())]
    ours = [t for t in tensors if isinstance(t, OnPretend)]
    # A tensor without dimensions may come from the CPU, as with CUDA.
    strangers = [t for t in tensors if not isinstance(t, OnPretend) and t.dim() > 0]
    indexed = (
        func in INDEXING
        and isinstance(args[0], OnPretend)
        and all(not t.dtype.is_floating_point for t in strangers)
    )
    if ours and strangers and func not in CROSSING and not indexed:
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, pretend:0 and "
            f"cpu: {func}"
        )
    wanted = kwargs.get("device")
    here = bool(ours) if wanted is None else _is_ours(wanted)
    here = isinstance(args[0], OnPretend) if func is aten.copy_.default else here
    generator = kwargs.get("generator")
    if here and isinstance(generator, torch.Generator) and generator.device.type == "cpu":
        raise RuntimeError(f"Expected a 'pretend' device type for generator but found 'cpu': {func}")
    if func in HEAVY and (here or tensors[0].dtype == torch.float32):
        WORK["pretend" if here else tensors[0].device.type] += 1
    given = args[0] if args and isinstance(args[0], torch.Tensor) else None
    kwargs = {
        k: CPU if k == "device" and _is_ours(v) else False if k == "pin_memory" and v else _each(v, _on_cpu)
        for k, v in kwargs.items()
    }
    out = func(*(_each(arg, _on_cpu) for arg in args), **kwargs)
    if given is not None and func.__name__.split(".")[0].endswith("_") and func._schema.is_mutable:
        return given  # in place: what was given comes back
    return _each(out, _there) if here and func is not aten._local_scalar_dense.default else out


class _Functions(TorchFunctionMode):
    """What asks a driver before it is dispatched."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        def named(a: Any) -> Any:
            by_device = isinstance(a, torch.device) and a.type == "pretend"
            return PRETEND if by_device or (isinstance(a, str) and a.startswith("pretend")) else a

        args = args if func is torch.device else tuple(map(named, args))
        kwargs = {k: named(v) for k, v in (kwargs or {}).items()}
        if args and isinstance(args[0], OnPretend):
            if func is torch.Tensor.tolist:
                return args[0].on_cpu.detach().tolist()
            if func in (torch.Tensor.numpy, torch.Tensor.__array__):
                raise TypeError(
                    "can't convert pretend:0 device type tensor to numpy. Use Tensor.cpu() first."
                )
        return func(*args, **kwargs)


class _Dispatch(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


@contextlib.contextmanager
def pretend() -> Iterator[None]:
    """Where tensors are made on the device, moved there, or meet those of the CPU."""
    with _Functions(), _Dispatch():
        yield


def _keep_parameters() -> None:
    """Parameters cannot be moved there in place: `Module.to` replaces them by new ones, which an optimizer would not know.
    Hence a module that is where it shall be stays as it is.
    """
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    move = torch.nn.Module.to

    def to(self: torch.nn.Module, *args: Any, **kwargs: Any) -> torch.nn.Module:
        place = args[0] if len(args) == 1 and not kwargs and isinstance(args[0], str | torch.device) else None
        held = {tensor.device.type for tensor in [*self.parameters(), *self.buffers()]}
        there = place is not None and held <= {torch.device(place).type}
        return self if there else move(self, *args, **kwargs)

    torch.nn.Module.to = to  # type: ignore[assignment]


def _empty(
    size: Any,
    dtype: Any = None,
    layout: Any = None,
    device: Any = None,
    pin_memory: Any = None,
    memory_format: Any = None,
) -> torch.Tensor:
    form = memory_format or torch.contiguous_format
    return OnPretend(torch.empty(size, dtype=dtype or torch.get_default_dtype(), memory_format=form))


def _empty_strided(
    size: Any, stride: Any, dtype: Any = None, layout: Any = None, device: Any = None, pin_memory: Any = None
) -> torch.Tensor:
    return OnPretend(torch.empty_strided(size, stride, dtype=dtype or torch.get_default_dtype()))


def _copy_from(source: Any, target: Any, non_blocking: bool = False) -> Any:
    on_cpu = source.on_cpu if isinstance(source, OnPretend) else source
    (target.on_cpu if isinstance(target, OnPretend) else target).copy_(on_cpu)
    return target


_PICK = precision.pick_device
# Before any other module takes the function by its name; without a name it is the fastest device found.
precision.pick_device = lambda name: (
    PRETEND if name is None or str(name).startswith("pretend") else _PICK(name)
)
_keep_parameters()
# Tensors that torch makes in C++ itself. The library is kept: its kernels go with it.
_KERNELS = torch.library.Library("aten", "IMPL")
for name, kernel in (
    ("empty.memory_format", _empty),
    ("empty_strided", _empty_strided),
    ("_copy_from", _copy_from),
):
    _KERNELS.impl(name, kernel, "PrivateUse1")
