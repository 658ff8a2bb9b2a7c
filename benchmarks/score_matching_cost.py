"""Time and peak memory of one training step of score matching against the data dimension D.

One step is loss, backward to the parameters and an Adam update, on the same MLP for every objective. Sliced
losses are measured in both derivative modes: "double" is the library's (double backward), "jvp" the same loss
by `torch.func.jvp` (forward over reverse), which stands here only to be compared. Times are medians over
rounds in which every configuration runs once, so that other load falls on all alike; the exact trace, too
slow for that, is timed in its child process.

Memory is measured in a child process for each configuration: how far its steps (two; one of exact at large D)
raise the high-water mark of the resident memory above that of a process that has torch imported and has run a
tiny step of the same kind. It counts weights, gradients, Adam's state and what the step keeps for its
backward passes.

    python benchmarks/score_matching_cost.py [--threads 2] [--rounds 15] [--json FILE]
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from scorefield.objectives import score_matching as sm

DIMENSIONS = (50, 100, 200, 400, 800)
Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]


def forward_mode(score: nn.Module, x: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """s(x) and Jv."""
    s, tangent, *_ = torch.func.jvp(score, (x,), (v,))
    return s, tangent


def sliced_jvp(score: nn.Module, x: Tensor, v: Tensor) -> Tensor:
    """vᵀ(Jv) + ½(vᵀs)², with Jv in forward mode."""
    s, tangent = forward_mode(score, x, v)
    return (v * tangent).sum(dim=1) + 0.5 * (v * s).sum(dim=1).square()


def sliced_vr_jvp(score: nn.Module, x: Tensor, v: Tensor) -> Tensor:
    """vᵀ(Jv) + ½‖s‖², with Jv in forward mode."""
    s, tangent = forward_mode(score, x, v)
    return (v * tangent).sum(dim=1) + 0.5 * s.square().sum(dim=1)


OBJECTIVES: dict[str, Loss] = {
    "denoising": lambda score, x, v: sm.denoising_score_matching(score, x, v, 0.1),
    "sliced, double": sm.sliced_score_matching,
    "sliced, jvp": sliced_jvp,
    "sliced-VR, double": sm.sliced_score_matching_vr,
    "sliced-VR, jvp": sliced_vr_jvp,
    "exact": lambda score, x, v: sm.implicit_score_matching(score, x),
}


class Step:
    """One training step of one objective at one D."""

    def __init__(self, name: str, dimensions: int, options: argparse.Namespace) -> None:
        torch.manual_seed(0)
        widths = [dimensions, *[options.width] * options.layers]
        layers: list[nn.Module] = []
        for fan_in, fan_out in itertools.pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out), nn.SiLU()]
        self.net = nn.Sequential(*layers, nn.Linear(options.width, dimensions))
        self.optimizer = torch.optim.Adam(self.net.parameters(), lr=1e-4)
        self.x = torch.randn(options.batch, dimensions)
        self.v = torch.randn(options.batch, dimensions).sign()
        self.loss = OBJECTIVES[name]

    def __call__(self) -> float:
        start = time.perf_counter()
        self.optimizer.zero_grad(set_to_none=True)
        self.loss(self.net, self.x, self.v).mean().backward()
        self.optimizer.step()
        return time.perf_counter() - start


def peak_mib() -> float:
    """High-water mark of this process's resident memory; VmHWM starts afresh at exec, getrusage's figure does
    not.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024


def measure_in_child(name: str, dimensions: int, options: argparse.Namespace) -> tuple[float, list[float]]:
    """MiB and the seconds of each step, in a fresh process."""
    arguments = [
        "--child",
        name,
        str(dimensions),
        "--threads",
        str(options.threads),
        "--batch",
        str(options.batch),
    ]
    arguments += ["--width", str(options.width), "--layers", str(options.layers)]
    done = subprocess.run(
        [sys.executable, __file__, *arguments], check=True, stdout=subprocess.PIPE, text=True
    )
    peak, *seconds = (float(word) for word in done.stdout.split())
    return peak, seconds


def child(name: str, dimensions: int, options: argparse.Namespace) -> None:
    """Print the memory and times of a configuration. A tiny one goes first, so that lazy imports do not
    count.
    """
    Step(name, 2, argparse.Namespace(width=8, layers=1, batch=2))()
    before = peak_mib()
    step = Step(name, dimensions, options)
    seconds = [step() for _ in range(1 if name == "exact" and dimensions > 200 else 2)]
    print(peak_mib() - before, *seconds)


def measure_rounds(options: argparse.Namespace) -> dict[tuple[str, int], list[float]]:
    """Seconds of every step, all configurations but the exact trace in turn in every round."""
    steps = {(name, d): Step(name, d, options) for name in OBJECTIVES if name != "exact" for d in DIMENSIONS}
    for step in steps.values():
        step()
    times: dict[tuple[str, int], list[float]] = {key: [] for key in steps}
    for _ in range(options.rounds):
        for key, step in steps.items():
            times[key].append(step())
    return times


def machine(options: argparse.Namespace) -> str:
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":")[1].strip()
            for line in info.read_text().splitlines()
            if line.startswith("model name")
        ]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} cores, {options.threads} threads, torch {torch.__version__}, fp32"


def table(results: list[dict[str, Any]]) -> str:
    header = f"{'objective':<18} {'D':>4} {'ms/step':>10} {'spread':>15} {'x D=50':>7} {'x denois.':>9} {'MiB':>8} {'x D=50':>7}"
    lines = [header, "-" * len(header)]
    for row in results:
        spread = f"{row['min_ms']:.1f}-{row['max_ms']:.1f}"
        lines.append(
            f"{row['objective']:<18} {row['D']:>4} {row['median_ms']:>10.1f} {spread:>15} {row['time_ratio']:>7.2f} "
            f"{row['over_denoising']:>9.2f} {row['peak_mib']:>8.0f} {row['memory_ratio']:>7.2f}"
        )
    return "\n".join(lines)


def summarize(
    times: dict[tuple[str, int], list[float]], memory: dict[tuple[str, int], float]
) -> list[dict[str, Any]]:
    median = {key: 1e3 * statistics.median(values) for key, values in times.items()}
    return [
        {
            "objective": name,
            "D": d,
            "median_ms": median[name, d],
            "min_ms": 1e3 * min(times[name, d]),
            "max_ms": 1e3 * max(times[name, d]),
            "rounds": len(times[name, d]),
            "time_ratio": median[name, d] / median[name, DIMENSIONS[0]],
            "over_denoising": median[name, d] / median["denoising", d],
            "peak_mib": memory[name, d],
            "memory_ratio": memory[name, d] / memory[name, DIMENSIONS[0]],
        }
        for name, d in times
    ]


def verdicts(results: list[dict[str, Any]]) -> list[str]:
    """The targets of the issue, and the choice of the derivative mode."""
    last = {row["objective"]: row for row in results if row["D"] == DIMENSIONS[-1]}
    lines = []
    for name, row in last.items():
        target = "at least 8" if name == "exact" else "at most 1.5" if name.endswith("double") else None
        if target:
            met = row["time_ratio"] >= 8 if name == "exact" else row["time_ratio"] <= 1.5
            lines.append(
                f"{name}: D = 800 over 50 is {row['time_ratio']:.2f} (target: {target}): {'met' if met else 'MISSED'}"
            )
    by_key = {(row["objective"], row["D"]): row["median_ms"] for row in results}
    for name in ("sliced", "sliced-VR"):
        ratios = [f"{by_key[f'{name}, jvp', d] / by_key[f'{name}, double', d]:.2f}" for d in DIMENSIONS]
        lines.append(f"{name}: jvp over double backward at D = {DIMENSIONS}: {', '.join(ratios)}")
    return lines


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--threads", type=int, default=int(os.environ.get("OMP_NUM_THREADS", "2")))
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument(
        "--layers", type=int, default=5, help="hidden layers; one more linear layer gives the output"
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    if options.child:
        child(options.child[0], int(options.child[1]), options)
        return
    start = time.perf_counter()
    shape = f"MLP, {options.layers} hidden layers of {options.width}, SiLU, batch {options.batch}, one projection, Adam"
    print(machine(options), shape, sep="\n")
    children = {(name, d): measure_in_child(name, d, options) for name in OBJECTIVES for d in DIMENSIONS}
    times = measure_rounds(options) | {
        key: steps for key, (_, steps) in children.items() if key[0] == "exact"
    }
    results = summarize(times, {key: peak for key, (peak, _) in children.items()})
    seconds = time.perf_counter() - start
    print(table(results), *verdicts(results), f"took {seconds:.0f} s", sep="\n")
    if options.json:
        record = {"machine": machine(options), "network": shape, "seconds": seconds, "results": results}
        options.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
