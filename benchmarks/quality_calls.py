"""How near samplers come to the many-step image of the same noise in 5, 8, 12 and 20 network calls, on three grids.

Models are mixtures of Gaussians whose x̂0 is exact, in float64, under the linear and the cosine schedule, in 2 and 48
dimensions; with --run, a trained run beside them. A figure is the mean distance from a sampler's end to that of many
steps from the same x_T, over the mean distance of the latter from x_T. Heun and DPM-Solver++(2S) make two calls a step
and have half as many steps. Fitted grids are fitted to each sampler on other noise than they are measured on.

    python benchmarks/quality_calls.py
    python benchmarks/quality_calls.py --run runs/portraits --label 0
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import scorefield as sf
from scorefield.samplers.base import as_sampler

CALLS = (5, 8, 12, 20)
SAMPLERS: dict[str, Any] = {
    "DDIM": sf.samplers.DDIM(),
    "Heun": sf.samplers.Heun(),
    "DPM-Solver++(2M)": sf.samplers.DPMSolver2M(),
    "DPM-Solver++(3M)": sf.samplers.DPMSolver3M(),
    "UniPC-2": sf.samplers.UniPC(2),
    "UniPC-3": sf.samplers.UniPC(3),
}
GRIDS = ("uniform", "log_snr", "fitted")
COUNT = 64
F64 = torch.float64


def plane() -> sf.oracle.GaussianMixture:
    """Three Gaussians in the plane."""
    eye = torch.eye(2, dtype=F64)
    oblique = torch.tensor([[0.2, 0.1], [0.1, 0.15]], dtype=F64)
    means = [[-1.0, 0.5], [1.5, 1.0], [0.3, -1.5]]
    return sf.oracle.GaussianMixture(means, torch.stack([0.1 * eye, oblique, 0.05 * eye]), [0.5, 0.2, 0.3])


def many_dimensions() -> sf.oracle.GaussianMixture:
    """Eight Gaussians in 48 dimensions, each of which varies mostly along six directions."""
    draw = torch.Generator().manual_seed(48)
    means = 0.7 * torch.randn(8, 48, generator=draw, dtype=F64)
    along = 0.3 * torch.randn(8, 48, 6, generator=draw, dtype=F64)
    return sf.oracle.GaussianMixture(means, along @ along.mT + 0.01 * torch.eye(48, dtype=F64), [1 / 8] * 8)


def steps_for(sampler: Any, process: sf.GaussianProcess, calls: int) -> int:
    """The most steps of the uniform grid that make no more calls."""
    fits = [n for n in range(1, calls + 1) if sampler.calls(sf.grids.uniform(process, n)) <= calls]
    return max(fits)


def measure(model: Any, x_T: Tensor, reference: Tensor) -> dict[tuple[str, str, int], float]:
    """{(sampler, grid, calls): distance over path length}."""
    with torch.no_grad():
        end = sf.sample(model, sf.samplers.DPMSolver2M(), sf.grids.full(model.process), x_T=x_T)
    length = (end - x_T).flatten(1).norm(dim=1).mean()
    makers: dict[str, Callable[[int, Any], Tensor]] = {
        "uniform": lambda n, sampler: sf.grids.uniform(model.process, n),
        "log_snr": lambda n, sampler: sf.grids.log_snr(model.process, n),
        "fitted": lambda n, sampler: sf.grids.fitted(model, n, reference, sampler=sampler),
    }
    found = {}
    for name, sampler in SAMPLERS.items():
        for calls in CALLS:
            n = steps_for(as_sampler(sampler), model.process, calls)
            for grid, make in makers.items():
                x = sf.sample(model, sampler, make(n, sampler), x_T=x_T)
                found[name, grid, calls] = float((x - end).flatten(1).norm(dim=1).mean() / length)
    return found


def show(title: str, found: dict[tuple[str, str, int], float]) -> None:
    print(f"\n{title}\n")
    print("| sampler | grid | " + " | ".join(f"{calls} calls" for calls in CALLS) + " |")
    print("|---" * (2 + len(CALLS)) + "|")
    least = {calls: min(v for (_, _, c), v in found.items() if c == calls) for calls in CALLS}
    for name in SAMPLERS:
        for grid in GRIDS:
            cells = []
            for calls in CALLS:
                value = found[name, grid, calls]
                cells.append(f"**{value:.4f}**" if value == least[calls] else f"{value:.4f}")
            print(f"| {name} | {grid} | " + " | ".join(cells) + " |")


def conclude(tables: list[dict[tuple[str, str, int], float]]) -> None:
    """What fitted grids gain, over all models, and where one is farther than uniform."""
    print("\n| | " + " | ".join(f"{calls} calls" for calls in CALLS) + " |")
    print("|---" * (1 + len(CALLS)) + "|")
    gains = []
    for calls in CALLS:
        logs = []
        for found in tables:
            fitted = min(v for (_, g, c), v in found.items() if c == calls and g == "fitted")
            other = min(v for (_, g, c), v in found.items() if c == calls and g != "fitted")
            logs.append(math.log(other / fitted))
        gains.append(math.exp(sum(logs) / len(logs)))
    print("| best on another grid / best on a fitted grid | " + " | ".join(f"{g:.2f}" for g in gains) + " |")
    for name in SAMPLERS:
        means = [_mean([f[name, "fitted", calls] for f in tables]) for calls in CALLS]
        print(f"| {name}, fitted, geometric mean | " + " | ".join(f"{mean:.4f}" for mean in means) + " |")
    pairs = [
        (found[name, "fitted", calls] / found[name, "uniform", calls], name, calls)
        for found in tables
        for name in SAMPLERS
        for calls in CALLS
    ]
    farther = sorted((pair for pair in pairs if pair[0] > 1 + 1e-9), reverse=True)
    print(f"\nfarther on the fitted grid than on uniform: {len(farther)} of {len(pairs)} cells", end="")
    print("".join(f"; {name} at {calls} calls, {ratio:.3f} times" for ratio, name, calls in farther[:5]))


def _mean(values: list[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", help="a trained run with a table of levels, measured beside the oracles")
    parser.add_argument("--label", type=int, help="the class that the run draws")
    arguments = parser.parse_args()
    torch.set_grad_enabled(False)
    tables = []
    processes = {"linear": sf.process.linear(1000), "cosine": sf.process.cosine(1000)}
    for schedule, process in processes.items():
        for dimensions, make in ((2, plane), (48, many_dimensions)):
            x_T, reference = (
                sf.noise.NoiseSource(seed).normal((COUNT, dimensions)).double() for seed in (0, 1)
            )
            found = measure(make().denoiser(process), x_T, reference)
            show(f"{schedule}, {dimensions} dimensions", found)
            tables.append(found)
    print("\nover the mixtures:")
    conclude(tables)
    if arguments.run:
        model: Any = sf.load(arguments.run)
        if arguments.label is not None:
            model = model.given([arguments.label] * COUNT)
        x_T, reference = (
            model.process.prior((COUNT, *model.data.shape), sf.noise.NoiseSource(s)) for s in (0, 1)
        )
        found = measure(model, x_T.to(model.device), reference.to(model.device))
        show(f"{arguments.run}", found)
        conclude([found])


if __name__ == "__main__":
    main()
