"""What every model around a network shares: the network, what one example is, the device, and the precision
it runs in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from scorefield.core.shapes import DataSpec
from scorefield.runtime.errors import InputError
from scorefield.runtime.precision import Precision, is_compiled

__all__ = ["ModelBase"]


class ModelBase(nn.Module):
    """net: called as the model says.   data: what one example is.   autocast_dtype: the network runs in it,
    plainly if None.
    """

    def __init__(self, net: Callable[..., Tensor], data: DataSpec | None) -> None:
        super().__init__()
        self.net = net
        self.data = data
        self.autocast_dtype: torch.dtype | None = None
        self._precision = Precision()

    @property
    def device(self) -> torch.device:
        """Where the parameters are; the CPU without any."""
        parameter = next(self.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device

    def run_network(self, x: Tensor, *rest: Any, **given: Any) -> Tensor:
        """net(x, *rest, **given) in the model's precision: the result has whatever dtype the network gives."""
        return self._precision.call(self.net, self.autocast_dtype, x, *rest, **given)

    def compile_network(self) -> None:
        """Have torch.compile compile the network at its next call, which takes minutes for a large one; the
        same numbers up to rounding.

        On a CPU the library's own compiled loops step aside for it. InputError where there is no network to
        compile, or no compiler.
        """
        if not isinstance(self.net, nn.Module):
            raise InputError(
                f"torch.compile compiles modules, and this network is a {type(self.net).__name__}: leave compile out"
            )
        if self.device.type == "cpu":
            _need_compiler()
        self.net.compile()

    @property
    def is_compiled(self) -> bool:
        """Whether `compile_network` was asked for."""
        return is_compiled(self.net)

    def keep_weights(self) -> None:
        """The weights will stay as they are: under autocast they are then cast once and not at every call,
        where nothing is recorded.

        To be called again after they have changed; until then the old ones are used.
        """
        self._precision.keep()


def _need_compiler() -> None:
    """InputError unless torch.compile finds what it needs on a CPU."""
    from torch._inductor import cpp_builder

    try:
        cpp_builder.get_cpp_compiler()
    except Exception as error:
        raise InputError(
            f"torch.compile needs a C++ compiler on a CPU ({str(error).splitlines()[0]}): install g++, name another one in CXX, or leave "
            "compile out"
        ) from None
