"""Time and peak memory of one training step of score matching against the data dimension D.

One step is loss, backward to the parameters and an Adam update, on the same MLP for every objective. Sliced losses are measured in both
derivative modes: "double" is the library's (double backward), "jvp" the same loss by `torch.func.jvp` (forward over reverse), kept here to
compare. Times are medians of rounds in which every configuration runs once, so that other load falls on all alike; "x D=50" divides by the same
objective at the smallest D. Memory is measured in a child process for each configuration: the high-water mark of the resident memory of two
steps, less what the process held with torch imported and before the network was built: weights, gradients, Adam's state and the step.

    python benchmarks/score_matching_cost.py [--threads 2] [--rounds 15] [--exact-rounds 2] [--json FILE] [--no-memory]
"""

from __future__ import annotations

import argparse
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


def sliced_jvp(score: nn.Module, x: Tensor, v: Tensor) -> Tensor:
    """vᵀ(Jv) + ½(vᵀs)², with Jv in forward mode."""
    s, tangent = torch.func.jvp(score, (x,), (v,))
    return (v * tangent).sum(dim=1) + 0.5 * (v * s).sum(dim=1).square()


def sliced_vr_jvp(score: nn.Module, x: Tensor, v: Tensor) -> Tensor:
    """vᵀ(Jv) + ½‖s‖², with Jv in forward mode."""
    s, tangent = torch.func.jvp(score, (x,), (v,))
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
        for fan_in, fan_out in zip(widths, widths[1:], strict=False):
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
    """High-water mark of this process's resident memory; VmHWM starts afresh at exec, getrusage's figure does not."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024


def measure_memory(name: str, dimensions: int, options: argparse.Namespace) -> float:
    """MiB used by two steps, in a fresh process."""
    arguments = ["--child", name, str(dimensions), "--threads", str(options.threads), "--batch", str(options.batch)]
    arguments += ["--width", str(options.width), "--layers", str(options.layers)]
    done = subprocess.run([sys.executable, __file__, *arguments], check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def child(name: str, dimensions: int, options: argparse.Namespace) -> None:
    """Print the memory of two steps of a configuration. A tiny one goes first, so that lazy imports do not count."""
    tiny = argparse.Namespace(width=8, layers=1, batch=2)
    Step(name, 2, tiny)()
    before = peak_mib()
    step = Step(name, dimensions, options)
    for _ in range(1 if name == "exact" else 2):
        step()
    print(peak_mib() - before)


def measure_times(options: argparse.Namespace) -> dict[tuple[str, int], list[float]]:
    """Seconds of every step, all configurations in turn in every round."""
    times: dict[tuple[str, int], list[float]] = {(name, d): [] for name in OBJECTIVES for d in DIMENSIONS}
    steps = {(name, d): Step(name, d, options) for name in OBJECTIVES for d in DIMENSIONS}
    for (name, _), step in steps.items():
        if name != "exact":
            step()
    exact_at = {round(i * options.rounds / options.exact_rounds) for i in range(options.exact_rounds)}
    for i in range(options.rounds):
        for key, step in steps.items():
            if key[0] != "exact" or i in exact_at:
                times[key].append(step())
    return times


def machine(options: argparse.Namespace) -> str:
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} cores, {options.threads} threads, torch {torch.__version__}, fp32"


def table(results: list[dict[str, Any]]) -> str:
    header = f"{'objective':<18} {'D':>4} {'ms/step':>10} {'spread':>15} {'x D=50':>7} {'x denois.':>9} {'MiB':>8} {'x D=50':>7}"
    lines = [header, "-" * len(header)]
    for row in results:
        spread = f"{row['min_ms']:.1f}-{row['max_ms']:.1f}"
        memory = f"{row['peak_mib']:>8.0f} {row['memory_ratio']:>7.2f}" if row["peak_mib"] else f"{'-':>8} {'-':>7}"
        lines.append(
            f"{row['objective']:<18} {row['D']:>4} {row['median_ms']:>10.1f} {spread:>15} {row['time_ratio']:>7.2f} "
            f"{row['over_denoising']:>9.2f} {memory}"
        )
    return "\n".join(lines)


def summarize(times: dict[tuple[str, int], list[float]], memory: dict[tuple[str, int], float]) -> list[dict[str, Any]]:
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
            "peak_mib": memory.get((name, d)),
            "memory_ratio": memory[name, d] / memory[name, DIMENSIONS[0]] if memory else None,
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
            lines.append(f"{name}: D = 800 over 50 is {row['time_ratio']:.2f} (target: {target}): {'met' if met else 'MISSED'}")
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
    parser.add_argument("--layers", type=int, default=6, help="hidden layers; one more linear layer gives the output")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--exact-rounds", type=int, default=2, help="in how many of the rounds the exact trace is measured")
    parser.add_argument("--no-memory", action="store_true", help="times only")
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
    memory: dict[tuple[str, int], float] = {}
    if not options.no_memory:
        memory = {(name, d): measure_memory(name, d, options) for name in OBJECTIVES for d in DIMENSIONS}
    results = summarize(measure_times(options), memory)
    seconds = time.perf_counter() - start
    print(table(results), *verdicts(results), f"took {seconds:.0f} s", sep="\n")
    if options.json:
        record = {"machine": machine(options), "network": shape, "seconds": seconds, "results": results}
        options.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
