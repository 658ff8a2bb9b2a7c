"""The networks that `performance.py` times side by side: this library's, the same in plain formulas, and
other libraries' at equal FLOPs.

`diffusers` comes with the development extra. `azula` and `denoising-diffusion-pytorch` ask for torchvision,
of which their networks use nothing: they are installed without what they ask for (`make bench` does), and are
left out where they are not installed.
"""

from __future__ import annotations

import copy
import importlib.util
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple
from unittest.mock import MagicMock

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from scorefield.core.shapes import DataSpec
from scorefield.models.denoiser import Denoiser
from scorefield.nets import UNet, fused
from scorefield.process import cosine
from scorefield.runs.build import read_recipe
from scorefield.runtime.precision import autocast_dtype

__all__ = [
    "CASES",
    "OURS",
    "PLAIN",
    "Batch",
    "Case",
    "Contestant",
    "call_bare",
    "contestants",
    "denoiser",
    "make",
    "side_by_side",
]

OURS, PLAIN = "scorefield", "plain formulas, fp32"
UNUSED = (
    "gdown",
    "torchvision",
    "ema_pytorch",
    "pytorch_fid",
    "pytorch_fid.fid_score",
    "pytorch_fid.inception",
)


@dataclass(frozen=True)
class Case:
    """A network of `nets.UNet` by its keywords, and the images that it is shown.   batch: of training;
    denoise_batch: of sampling.
    """

    name: str
    options: Mapping[str, Any]
    in_channels: int
    side: int
    batch: int
    denoise_batch: int = 64
    classes: int = 0

    def of_size(self, batch: int, side: int | None = None, channels: int | None = None) -> Case:
        """The same with other images, and another width of the network."""
        options = {**self.options, "channels": channels or self.options["channels"]}
        return replace(self, options=options, batch=batch, denoise_batch=batch, side=side or self.side)

    def net(self) -> UNet:
        return UNet(self.in_channels, num_classes=self.classes, **self.options)


def of_recipe(name: str, side: int) -> Case:
    """The network of a recipe of ten grey digits."""
    recipe = read_recipe(name)
    options = {key: value for key, value in recipe.net.items() if key != "kind"}
    return Case(name, options, 1, side, recipe.training.batch_size, classes=10)


# Attention at 16 and 8 pixels, heads of 64 channels.
ADM = Case(
    "adm",
    {"channels": 64, "channel_mult": [1, 2, 2], "blocks": 2, "attention": [2, 4], "head_channels": 64},
    3,
    32,
    32,
)
CASES = {case.name: case for case in (ADM, of_recipe("digits", 8), of_recipe("mnist", 28))}


class Batch(NamedTuple):
    """x, target: (B, C, H, W).   c: (B,).   y: (B,) or None."""

    x: Tensor
    c: Tensor
    y: Tensor | None
    target: Tensor

    @classmethod
    def of(cls, case: Case, size: int) -> Batch:
        shape, generator = (size, case.in_channels, case.side, case.side), torch.Generator().manual_seed(0)
        x, target = torch.randn(2, *shape, generator=generator)
        c = torch.randint(1, 1000, (size,), generator=generator).float()
        return cls(x, c, torch.arange(size) % case.classes if case.classes else None, target)

    def to(self, **how: Any) -> Batch:
        return self._replace(x=self.x.to(**how), target=self.target.to(**how))

    def to_meta(self) -> Batch:
        return Batch(*(None if part is None else part.to("meta") for part in self))


Call = Callable[[nn.Module, Batch], Tensor]


class Contestant:
    """One way of computing a network.   net: module whose weights are trained, called by `call`.   counted:
    module of which the FLOPs are counted, and how it is called.   dtype: of autocast around the call, None
    for none.   tuned: channels-last weights and images.
    fast: with this library's compiled loops.
    """

    def __init__(
        self,
        name: str,
        case: Case,
        net: nn.Module,
        call: Call,
        *,
        counted: tuple[nn.Module, Call] | None = None,
        dtype: torch.dtype | None = None,
        tuned: bool = False,
        fast: bool = False,
    ) -> None:
        self.name, self.net, self.call, self.dtype, self.fast = name, net, call, dtype, fast
        self.flops = network_flops(*(counted or (net, call)), Batch.of(case, 1))  # type: ignore[call-arg]
        layout = {"memory_format": torch.channels_last} if tuned else {}
        self.net.to(**layout)  # type: ignore[call-overload]
        self.batch, self.shown = (
            Batch.of(case, size).to(**layout) for size in (case.batch, case.denoise_batch)
        )
        self.optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)
        self.average = [weight.detach().clone() for weight in net.parameters()]

    def predict(self, batch: Batch) -> Tensor:
        fused.switch(self.fast)
        with torch.autocast("cpu", dtype=self.dtype or torch.bfloat16, enabled=self.dtype is not None):
            return self.call(self.net, batch).float()

    def train(self) -> dict[str, float]:
        """Seconds of forward and backward pass, and of the whole step, which also clips, updates and averages
        the weights.
        """
        start = time.perf_counter()
        F.mse_loss(self.predict(self.batch), self.batch.target).backward()
        middle = time.perf_counter()
        weights = list(self.net.parameters())
        nn.utils.clip_grad_norm_(weights, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            torch._foreach_lerp_(self.average, weights, 1e-4)  # type: ignore[arg-type]
        return {"forward+backward": middle - start, "training": time.perf_counter() - start}

    @torch.no_grad()
    def denoise(self) -> dict[str, float]:
        start = time.perf_counter()
        self.predict(self.shown)
        return {"denoising": time.perf_counter() - start}


def network_flops(net: nn.Module, call: Call, one: Batch) -> dict[str, float]:
    """FLOPs an image of a forward pass and of forward and backward, on tensors without numbers; attention is
    counted as its products.
    """
    net = copy.deepcopy(net).to("meta")
    forward, both = _count(net, call, one, False), _count(net, call, one, True)
    return {"denoising": forward, "forward+backward": both, "training": both}


def _count(net: nn.Module, call: Call, one: Batch, backward: bool) -> float:
    """FLOPs of a network on the meta device."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        out = call(net, one.to_meta())
        if backward:
            out.square().mean().backward()
    return float(counter.get_total_flops())


# The contestants


def contestants(case: Case) -> list[Contestant]:
    """All whose libraries are installed, this one's first."""
    return [make(name, case) for name in MAKERS if name not in left_out()]


def left_out() -> list[str]:
    """Those whose libraries are not installed."""
    return [name for name in MAKERS if not _installed(name)]


def make(name: str, case: Case) -> Contestant:
    return MAKERS[name](case)


def _ours(name: str, precision: str, fast: bool, case: Case) -> Contestant:
    """By way of a Denoiser, which decides how the network is called."""
    net = case.net()
    model = denoiser(case, net)
    model.autocast_dtype = autocast_dtype(precision, torch.device("cpu"))
    model.keep_weights()

    def call(model: nn.Module, batch: Batch) -> Tensor:
        return model(batch.x, batch.c, batch.y).raw

    return Contestant(name, case, model, call, counted=(net, call_bare), fast=fast)


def denoiser(case: Case, net: nn.Module, parametrization: str = "eps") -> Denoiser:
    data = DataSpec(
        (case.in_channels, case.side, case.side), classes=tuple(str(label) for label in range(case.classes))
    )
    return Denoiser(net, cosine(1000), parametrization, data=data)


def call_bare(net: nn.Module, batch: Batch) -> Tensor:
    return net(batch.x, batch.c, batch.y)


def _peer(build: Callable[[Case], tuple[nn.Module, Call]], name: str, tuned: bool, case: Case) -> Contestant:
    net, call = build(case)
    dtype = autocast_dtype("auto", torch.device("cpu")) if tuned else None
    return Contestant(f"{name}, tuned" if tuned else name, case, net, call, dtype=dtype, tuned=tuned)


def _diffusers(case: Case) -> tuple[nn.Module, Call]:
    from diffusers import UNet2DModel

    options = case.options
    attend = [
        "Attn" if 2**level in options["attention"] else "" for level in range(len(options["channel_mult"]))
    ]
    widths = [options["channels"] * multiplier for multiplier in options["channel_mult"]]
    net = UNet2DModel(
        sample_size=case.side,
        in_channels=case.in_channels,
        out_channels=case.in_channels,
        block_out_channels=tuple(widths),
        layers_per_block=options["blocks"],
        down_block_types=tuple(f"{kind}DownBlock2D" for kind in attend),
        up_block_types=tuple(f"{kind}UpBlock2D" for kind in reversed(attend)),
        attention_head_dim=options.get("head_channels", widths[-1] // options.get("heads", 4)),
        resnet_time_scale_shift="scale_shift",
        num_class_embeds=case.classes or None,
    )
    return net, lambda net, batch: net(batch.x, batch.c, class_labels=batch.y).sample  # type: ignore[return-value]


def _azula(case: Case) -> tuple[nn.Module, Call]:
    """The original code of ADM, which azula carries: the same network exactly."""
    with _stand_ins():
        from azula.plugins.adm._src.unet import UNetModel
    options = case.options
    net = UNetModel(
        case.side,
        case.in_channels,
        options["channels"],
        case.in_channels,
        options["blocks"],
        options["attention"],
        channel_mult=options["channel_mult"],
        num_classes=case.classes or None,
        num_heads=options.get("heads", 4),
        num_head_channels=options.get("head_channels", -1),
        use_scale_shift_norm=True,
    )
    return net, lambda net, batch: net(batch.x, batch.c, *([batch.y] if case.classes else []))


def _ddpm_pytorch(case: Case) -> tuple[nn.Module, Call]:
    """The width, a multiple of 8, whose FLOPs come nearest: its blocks differ, its attention on large images
    is linear, it has no labels.
    """
    with _stand_ins():
        from denoising_diffusion_pytorch.denoising_diffusion_pytorch import Unet
    options, heads = case.options, case.options.get("heads", 2)
    attend = tuple(2**level in options["attention"] for level in range(len(options["channel_mult"])))
    build = partial(
        Unet,
        dim_mults=tuple(options["channel_mult"]),
        channels=case.in_channels,
        full_attn=attend,
        attn_heads=heads,
    )

    def call(net: nn.Module, batch: Batch) -> Tensor:
        return net(batch.x, batch.c)

    def distance(width: int) -> float:
        with torch.device("meta"):
            return abs(_count(build(width), call, one, False) - wanted)

    one = Batch.of(case, 1)
    wanted = _count(case.net().to("meta"), call_bare, one, False)
    return build(min(range(options["channels"] // 2, 2 * options["channels"], 8), key=distance)), call


@contextmanager
def _stand_ins() -> Iterator[None]:
    """Empty modules for what a peer imports beside its network, while it is imported."""
    missing = [name for name in UNUSED if importlib.util.find_spec(name.partition(".")[0]) is None]
    sys.modules.update((name, MagicMock()) for name in missing)
    try:
        yield
    finally:
        for name in missing:
            del sys.modules[name]


_PEERS = {
    "diffusers": (_diffusers, ("diffusers",)),
    "azula": (_azula, ("azula", "einops")),
    "denoising-diffusion-pytorch": (_ddpm_pytorch, ("denoising_diffusion_pytorch", "einops")),
}
MAKERS: dict[str, Callable[[Case], Contestant]] = {
    OURS: partial(_ours, OURS, "auto", True),
    PLAIN: partial(_ours, PLAIN, "fp32", False),
}
for _name, (_build, _) in _PEERS.items():
    MAKERS |= {
        _name: partial(_peer, _build, _name, False),
        f"{_name}, tuned": partial(_peer, _build, _name, True),
    }


def _installed(name: str) -> bool:
    needed = _PEERS.get(name.removesuffix(", tuned"), (None, ()))[1]
    return all(importlib.util.find_spec(module) for module in needed)


# Timing


def side_by_side(
    actions: Mapping[str, Callable[[], Mapping[str, float]]], rounds: int, seconds: float
) -> dict[str, dict[str, list[float]]]:
    """A B A B …: every action once to warm up, then in each round each of them for at least so many seconds.

    An action returns the seconds of its parts. The result: for each action and part the mean of every round.
    """
    for action in actions.values():
        action()
    times: dict[str, dict[str, list[float]]] = {name: {} for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            start, calls = time.perf_counter(), [action()]
            while time.perf_counter() - start < seconds:
                calls.append(action())
            for part in calls[0]:
                times[name].setdefault(part, []).append(sum(call[part] for call in calls) / len(calls))
    return times
