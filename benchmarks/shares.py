"""Where the time of a training step and of a sampling step goes: in the network, and outside it.
`performance.py` runs these.
"""

from __future__ import annotations

import argparse
import re
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from accelerate import Accelerator
from contestants import CASES, OURS, Case, denoiser, make
from torch.profiler import ProfilerActivity

import scorefield as sf
from scorefield.nets import fused
from scorefield.runtime.precision import autocast_dtype
from scorefield.training.ema import EMA

__all__ = ["profile", "sampler", "trainer"]

Row = dict[str, Any]


class Clock(Counter[str]):
    """Seconds by name."""

    @contextmanager
    def on(self, owner: Any, function: str, name: str) -> Iterator[None]:
        """Count the seconds spent in owner.function."""
        original = getattr(owner, function)

        @wraps(original)
        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return original(*args, **kwargs)
            finally:
                self[name] += time.perf_counter() - start  # type: ignore[assignment]

        with patch.object(owner, function, timed):
            yield


def trainer(options: argparse.Namespace) -> list[Row]:
    """The rest is data, random numbers, the loss and logging."""
    fused.switch(True)
    rows = []
    for name in options.cases:
        case, clock = CASES[name], Clock()
        objective = sf.objectives.Simple(denoiser(case, case.net(), "v"))
        shares = {id: (owner, function) for id, owner, function in _parts_of_training(objective.model.net)}  # type: ignore[arg-type]
        with tempfile.TemporaryDirectory() as folder, ExitStack() as clocks:
            steps = sf.train(
                objective,
                _data(case),
                run=Path(folder) / "run",
                steps=options.steps + 2,
                batch_size=case.batch,
                flip=True,
                device="cpu",
            )
            for part, (owner, function) in shares.items():
                clocks.enter_context(clock.on(owner, function, part))
            figures = [_clocked(clock, steps.__next__) for _ in range(options.steps + 1)][
                1:
            ]  # the last step saves
        rows.append(_shares(name, "a training step", figures, ("forward", "backward"), [*shares]))
    return rows


def _parts_of_training(net: torch.nn.Module) -> Iterator[tuple[str, Any, str]]:
    yield "forward", net, "forward"
    yield "backward", Accelerator, "backward"
    yield "clipping", torch.nn.utils, "clip_grad_norm_"
    yield "optimizer", torch.optim.AdamW, "step"
    yield "EMA", EMA, "update"


def sampler(options: argparse.Namespace) -> list[Row]:
    """The rest is the sampler's arithmetic, its noise and all bookkeeping."""
    fused.switch(True)
    model = denoiser(CASES["adm"], CASES["adm"].net()).eval()
    model.autocast_dtype = autocast_dtype("auto", torch.device("cpu"))
    model.keep_weights()
    grid = sf.grids.uniform(model.process, options.steps + 1)
    rows = []
    for chosen in (sf.samplers.DDIM(), sf.samplers.DDIM(eta=1.0), sf.samplers.Ancestral("lower")):
        clock, noise = Clock(), sf.noise.NoiseSource(0)
        walk = sf.trajectory(model, chosen, grid, noise.at(0).normal((64, 3, 32, 32)), noise)
        with clock.on(model.net, "forward", "network"):
            figures = [_clocked(clock, walk.__next__) for _ in range(options.steps)]
        rows.append(_shares("adm", str(chosen), figures, ("network",), ["network"]))
    return rows


def _data(case: Case) -> Any:
    x = torch.rand(512, case.in_channels, case.side, case.side) * 2 - 1
    return (x, torch.arange(512) % case.classes) if case.classes else x


def _clocked(clock: Clock, step: Callable[[], Any]) -> dict[str, float]:
    """Seconds of one step, and of each part that has a clock."""
    clock.clear()
    start = time.perf_counter()
    step()
    return {"step": time.perf_counter() - start, **clock}


def _shares(
    case: str, of: str, figures: list[dict[str, float]], inside: tuple[str, ...], parts: list[str]
) -> Row:
    """Medians over steps. outside: the share that is not the network's."""
    shares = {
        part: statistics.median(100 * step.get(part, 0.0) / step["step"] for step in figures)
        for part in parts
    }
    outside = statistics.median(
        100 * (1 - sum(step[part] for part in inside) / step["step"]) for step in figures
    )
    seconds = statistics.median(step["step"] for step in figures)
    rest = outside - sum(share for part, share in shares.items() if part not in inside)
    percent = {f"{part} %": share for part, share in shares.items()}
    return {"case": case, "of": of, "ms": 1e3 * seconds, **percent, "rest %": rest, "outside %": outside}


# Groups of operators, the first that fits; a name is what stands after its namespace.
GROUPS = {
    "optimizer, EMA, clipping": r"_foreach|_fused_adam|optimizer|vector_norm|clip_grad",
    "convolutions": r"conv",
    "matrix products, attention": r"mm$|matmul|linear|softmax|attention|bmm|addmm|baddbmm",
    "normalization (with modulation, SiLU)": r"_norm|norm_|group_norm",
    "copies, casts, joins": r"copy_?$|^to$|_to_copy|contiguous|cat|clone|slice|split|narrow|empty|resize|fill_|zero|stack",
    "elementwise, sums": r"add|mul|div|sub|sum|mean|silu|mse|pow|exp|sqrt|cos|sin|rsub|neg|upsample|avg_pool|embedding|where",
}


def profile(options: argparse.Namespace) -> list[Row]:
    """Shares of the processor's time by group of operators, each with the largest of it, in ms a step."""
    rows = []
    for name in options.cases:
        for action in ("train", "denoise"):
            step, count = getattr(make(OURS, CASES[name]), action), max(3, options.rounds)
            step()
            with torch.profiler.profile(activities=[ProfilerActivity.CPU]) as record:
                for _ in range(count):
                    step()
            own = {event.key: event.self_cpu_time_total / 1e3 / count for event in record.key_averages()}
            rows += _grouped(name, action, own)
    return rows


def _grouped(case: str, action: str, own: Mapping[str, float]) -> list[Row]:
    groups: dict[str, dict[str, float]] = {}
    for key, ms in own.items():
        operator = key.rpartition("::")[2].lower() if "evaluate_function" not in key else "engine"
        group = next((group for group, pattern in GROUPS.items() if re.search(pattern, operator)), "rest")
        groups.setdefault(group, {})[key] = ms
    total = sum(own.values())
    rows = []
    for group, members in sorted(groups.items(), key=lambda item: -sum(item[1].values())):
        ms, largest = sum(members.values()), sorted(members.items(), key=lambda item: -item[1])[:4]
        most = ", ".join(f"{key.rpartition('::')[2]} {value:.1f}" for key, value in largest)
        rows.append(
            {
                "case": case,
                "step": action,
                "group": group,
                "ms": ms,
                "%": 100 * ms / total,
                "most of it": most,
            }
        )
    return rows
