"""What every model around a network shares: the network, its device and precision, and how recipes build it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from scorefield.core.shapes import DataSpec
from scorefield.models.base import Model
from scorefield.models.network import ModelSettings, NetworkFacts, NetworkInputs, Null, describe_network
from scorefield.nets.blocks import pieces
from scorefield.process.base import Process
from scorefield.runtime.checks import brief, did_you_mean, instance_of
from scorefield.runtime.errors import InputError, first_reason
from scorefield.runtime.precision import Precision, is_compiled

__all__ = ["ModelBase", "checked_labels", "need_classes"]


class ModelBase(nn.Module, Model, ABC):
    """What every model around a network shares: the network, what one example is, the device, and the
    precision it runs in.

    Args:
        net: The network, called as the model says.
        data: What one example is.

    Attributes:
        autocast_dtype: What the network runs in under autocast; None for plain float32.
    """

    gives: ClassVar[str] = (
        "data"  # what its network gives, see Network.gives: "data", numbers of the data's shape, or "logits"
    )
    summary: ClassVar[str] = "a model around a network"  # what it is, for messages
    objectives: ClassVar[str] = "an objective of its own"  # by which it is trained
    autocast_dtype: torch.dtype | None = None

    def __init__(self, net: Callable[..., Tensor], data: DataSpec | None) -> None:
        super().__init__()
        if not callable(net) or isinstance(net, type):
            raise InputError(f"net must be a network, called net(x, c, y=None), got {brief(net)}")
        self.net = net
        self.data = None if data is None else instance_of("data", data, DataSpec, "a sf.DataSpec")
        self.autocast_dtype = None
        self._precision = Precision()
        self._first: tuple[object, nn.Module | None, str] = (None, None, "")
        self._described: tuple[Callable[..., Tensor], NetworkFacts] | None = None

    @classmethod
    @abstractmethod
    def takes(cls, process: Process | None) -> bool:
        """Whether a model of this kind can be built for this process.

        Args:
            process: What a recipe's [process] describes; None without levels.
        """

    @classmethod
    @abstractmethod
    def build(
        cls,
        process: Process | None,
        data: DataSpec,
        settings: ModelSettings,
        make_net: Callable[[], Callable[..., Tensor]],
    ) -> Self:
        """The model that a recipe's tables describe.

        Args:
            process: What its [process] describes.
            data: What one example is.
            settings: Its [model] table.
            make_net: Makes the network, once all else is known to fit.

        Raises:
            InputError: Where the tables do not fit this kind of model.
        """

    @classmethod
    def network_sizes(
        cls, process: Process | None, data: DataSpec, settings: ModelSettings, accepts: Collection[str]
    ) -> dict[str, int | bool]:
        """The arguments of a network's constructor that follow from the data, by every name that networks have for them.

        Args:
            process: What the recipe's [process] describes.
            data: What one example is.
            settings: Its [model] table.
            accepts: The names of the constructor's arguments.
        """
        wide, heads = cls.channels(process, settings)
        labels = {"num_classes": data.num_classes} if settings.conditional else {}
        levels = {} if process is None else {"levels": int(process.T)}
        return {
            "in_channels": wide * data.shape[0],
            "channels_in": wide * data.shape[0],
            "dim": wide * data.dimensions,
            "out_channels": heads * data.shape[0],
            "out_dim": heads * data.dimensions,
            "noise_levels": process is not None,
            "low_res": settings.low_res is not None,
            "image_size": data.shape[-1],
            **levels,
            **labels,
        }

    @classmethod
    def channels(cls, process: Process | None, settings: ModelSettings) -> tuple[int, int]:
        """How many channels the network receives and gives for each channel of the data.

        Args:
            process: What the recipe's [process] describes; None without levels.
            settings: Its [model] table.
        """
        return 1, 1

    @classmethod
    def check_network(cls, facts: NetworkFacts, settings: ModelSettings, name: str) -> None:
        """Check that a network takes what the recipe's [model] table asks.

        Args:
            facts: What the network says of itself.
            settings: The [model] table.
            name: Of the network, for the message.

        Raises:
            InputError: Where labels or the small images of super-resolution are asked of a network that does
                not take them, and where it needs small images that the table does not mention.
        """
        if settings.conditional and not facts.num_classes:
            raise InputError(
                f"the network {name} is unconditional: use model.conditional=false, or another net.kind",
                command="--set model.conditional=false",
            )
        if settings.low_res is not None and "low_res" not in facts.arrays:
            raise InputError(
                f"the network {name} is not a super-resolution network: remove model.low_res, or use net.kind=unet"
            )
        if settings.low_res is None and "low_res" in facts.required:
            raise InputError(
                "this is a super-resolution network: give the side of the small images, such as model.low_res=64",
                command="--set model.low_res=64",
            )

    def network_inputs(self, batch: int) -> NetworkInputs:
        """What it calls its network with.

        Args:
            batch: B, the number of examples.

        Raises:
            InputError: Where that depends on data that are not here: the shape of an example, or of a
                further array.
        """
        if self.data is None:
            raise InputError(
                "the shape of an example is not known: build the model with data=sf.DataSpec(shape)"
            )
        if unknown := sorted(self.missing - {"low_res"}):
            raise InputError(f"the shape of the array {unknown[0]!r} is known only from data")
        x = (batch, *self.data.shape)
        arrays = {name: x for name in ("low_res",) if name in self.missing}
        return NetworkInputs(x, self.noise_at_T(), self.num_classes > 0, arrays)

    def network_blocks(self) -> list[nn.Module]:
        """The blocks that its network calls one after another; none of a network that does not describe itself, which may
        use the weights of a block without calling it.
        """
        net = self.net
        return pieces(net) if isinstance(net, nn.Module) and self.network.config is not None else []

    def noise_at_T(self) -> tuple[float, torch.dtype] | None:
        """What its network receives as the noisiest level, and its dtype; None without levels."""
        return None

    def describe_levels(self) -> str:
        """Its noise levels in words, such as "1000, σ/α from 0.01 to 157 (linear)"."""
        return "none: a score of the data itself"

    def describe_output(self) -> str:
        """What its network gives in words, such as "predicts eps, noise input index"."""
        return self.summary

    @property
    def device(self) -> torch.device:
        """Where the parameters are; the CPU without any."""
        parameter = next(self.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device

    @property
    def network(self) -> NetworkFacts:
        """What the network says of itself."""
        if self._described is None or self._described[0] is not self.net:
            self._described = (self.net, describe_network(self.net))
        return self._described[1]

    @property
    def net_config(self) -> Mapping[str, object] | None:
        return self.network.config

    @property
    def arrays(self) -> frozenset[str]:
        return self.network.arrays

    @property
    def missing(self) -> frozenset[str]:
        return self.network.required

    @property
    def nulls(self) -> Mapping[str, Null]:
        return self.network.nulls

    def check_arrays(self, arrays: Mapping[str, Tensor]) -> None:
        takes = self.arrays
        for name, array in arrays.items():
            if name not in takes and not self.network.takes_any:
                known = f"it takes {', '.join(sorted(takes))}" if takes else "it takes none"
                raise InputError(
                    f"the network of this model takes no array {name!r} ({known}{did_you_mean(name, takes)}): remove {name}"
                )
            if not isinstance(array, Tensor):
                raise InputError(f"{name} must be a tensor (B, *), got a {type(array).__name__}")
            if array.ndim < 1 or not len(array):
                raise InputError(
                    f"{name} must hold one row per example, (B, *), or one for all, (1, *); got shape {tuple(array.shape)}"
                )

    def run_in(self, dtype: torch.dtype | None) -> None:
        self.autocast_dtype = dtype

    @property
    def dtype(self) -> torch.dtype | None:
        """What its parameters are in; None without any."""
        net, module, name = self._first
        parameter = None if module is None else module._parameters.get(name)
        if net is not self.net or parameter is None:
            # Found once: to walk through the modules takes as long as a few layers of a small network.
            self._first = (self.net, *_first_parameter(self.net))
            net, module, name = self._first
            parameter = None if module is None else module._parameters[name]
        return None if parameter is None else parameter.dtype

    def run_network(self, x: Tensor, *rest: Any, **given: Any) -> Tensor:
        """net(x, *rest, **given) in the model's precision: the result has whatever dtype the network gives.

        Where the parameters have another dtype than x, x and the real numbers among `given` are brought to
        theirs.

        Args:
            x: The network's first argument, (B, *).
            rest: Its further positional arguments, such as c.
            given: Its keyword arguments, such as y.

        Raises:
            InputError: Where the network fails, and x or one of `given` lies on another device than the
                parameters.
        """
        dtype = self.dtype
        if dtype is not None:
            x = x.to(dtype)
            given = {n: v.to(dtype) if v.is_floating_point() else v for n, v in given.items()}
        try:
            return self._precision.call(self.net, self.autocast_dtype, x, *rest, **given)
        except RuntimeError as error:
            self._check_devices({"x": x, **given}, error)
            raise

    def _check_devices(self, tensors: Mapping[str, Tensor], error: RuntimeError) -> None:
        """Refuse tensors on another device than the model.

        Args:
            tensors: What the network was called with, by name.
            error: Of the network, which they have led to.

        Raises:
            InputError: For the first tensor on another device.
        """
        here = self.device
        for name, tensor in tensors.items():
            if tensor.device != here:
                raise InputError(
                    f"{name} is on the device {tensor.device}, and the model is on {here}: move one of them, such as by "
                    f"{name}.to(model.device)"
                ) from error

    def conditioned(self, x: Tensor, y: Tensor | None, arrays: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Labels and further arrays as keywords of the network.

        Their values are not looked at, which would make the host wait for the device.

        Args:
            x: The examples, (B, *).
            y: Labels, (B,) integers, or None.
            arrays: (B, *) by name.

        Raises:
            InputError: Where they do not fit the examples, or the network does not take them.
        """
        if arrays:
            self.check_arrays(arrays)
        for name, array in arrays.items():
            if len(array) != len(x):
                raise InputError(
                    f"{name} has {len(array)} rows, and the batch has {len(x)} examples: give one row for each"
                )
        return dict(arrays) if y is None else {"y": checked_labels(y, x), **arrays}

    def compile_network(self) -> None:
        """Have torch.compile compile the network at its next call, which takes minutes for a large one; the
        same numbers up to rounding.

        On a CPU the library's own compiled loops step aside for it.

        Raises:
            InputError: Where there is no network to compile, or no compiler.
        """
        if not isinstance(self.net, nn.Module):
            raise InputError(
                f"torch.compile needs a torch.nn.Module, and this network is a {type(self.net).__name__}: remove "
                "compile"
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


def _first_parameter(net: object) -> tuple[nn.Module | None, str]:
    """The module and the name of the first parameter of real numbers."""
    for module in net.modules() if isinstance(net, nn.Module) else ():
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter.is_floating_point():
                return module, name
    return None, ""


def checked_labels(y: Tensor, x: Tensor) -> Tensor:
    """Labels (B,) of examples x (B, *) as int64. InputError where they are no such labels."""
    fits = isinstance(y, Tensor) and y.dtype in _INTEGERS and y.shape == x.shape[:1]
    if not fits:
        got = f"{y.dtype} of shape {tuple(y.shape)}" if isinstance(y, Tensor) else brief(y)
        raise InputError(f"labels y must be a tensor of integers, one an example, ({len(x)},); got {got}")
    if y.device != x.device:  # torch looks up rows by indices of the meta device, and finds anything
        raise InputError(
            f"labels y are on the device {y.device}, and the examples on {x.device}: move them by y.to(x.device)"
        )
    return y.long()


_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def need_classes(data: DataSpec, settings: ModelSettings) -> None:
    """InputError for a class-conditional model of data without labels."""
    if settings.conditional and not data.classes:
        raise InputError(
            "this recipe is class-conditional, but the data has no labels: use model.conditional=false",
            command="--set model.conditional=false",
        )


def _need_compiler() -> None:
    """InputError unless torch.compile finds what it needs on a CPU."""
    from torch._inductor import cpp_builder

    try:
        cpp_builder.get_cpp_compiler()
    except Exception as error:
        raise InputError(
            f"torch.compile needs a C++ compiler on a CPU ({first_reason(error)}): install g++, set CXX to "
            "another compiler, or remove compile"
        ) from None
