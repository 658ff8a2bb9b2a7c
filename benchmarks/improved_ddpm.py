"""Improved DDPM on the digits: bits/dim and Fréchet distance of its objectives and schedules, as measured.

Twelve configurations (two schedules, L_simple, L_hybrid, L_vlb with uniform and with importance-sampled t;
three seeds each) of the recipe digits-iddpm, all with the same network and number of steps. For each:

- bits/dim: the variational bound over all T = 1,000 steps on the held-out images (decoder and prior exact,
  the other terms by one draw from each of 200 parts of the steps), with the standard error over images; 17
grey levels, x̂0 clipped.
- Fréchet distance of 3 × 360 samples to the training images in the features of a classifier, 100 ancestral
  steps on the uniform grid, beside that of the held-out images. L_simple is sampled with its better fixed
variance here, "lower".
- of L_vlb: the gradient-noise scale tr Σ/|G|² of the trained weights under uniform and importance-sampled t
[McCandlish et al. 2018].

    python benchmarks/improved_ddpm.py run [--out runs/improved-ddpm] [--seeds 0 1 2]     resumes where it was
    stopped python benchmarks/improved_ddpm.py table [--out runs/improved-ddpm]                   the table of
    what has been measured python benchmarks/improved_ddpm.py parts [--out runs/improved-ddpm]
    at which noise the bits are spent python benchmarks/improved_ddpm.py sweep [--out runs/improved-ddpm]
    Fréchet distance against sampling steps

Several may run at once on different seeds; give each one thread then (OMP_NUM_THREADS=1).
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import time
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import scorefield as sf
from scorefield.core.noise import NoiseSource
from scorefield.data import Dataset
from scorefield.evaluation import FeatureNet, Moments, frechet_distance, train_classifier
from scorefield.evaluation.features import batches
from scorefield.generation.sample_blocks import sample_blocks
from scorefield.objectives import VLB
from scorefield.runs.build import (
    build_model,
    build_objective,
    describe,
    load,
    open_data,
    read_recipe,
    with_overrides,
)
from scorefield.runtime.precision import autocast_dtype

SCHEDULES = ("linear", "cosine")
NAMES = {
    "simple": "L_simple",
    "hybrid": "L_hybrid",
    "vlb-uniform": "L_vlb, uniform t",
    "vlb-importance": "L_vlb, importance-sampled t",
}
TERMS, STEPS, SETS, PARTS = 200, 100, 3, 48
SWEEP = (10, 25, 50, 100, 1000)


CHANGES: dict[str, dict[str, Any]] = {
    "simple": {"objective": {"kind": "simple"}},
    "hybrid": {},
    "vlb-uniform": {"objective": {"kind": "vlb"}},
    "vlb-importance": {"objective": {"kind": "vlb", "times": {"kind": "importance"}}},
}


def recipe_of(schedule: str, objective: str, seed: int) -> Any:
    recipe = with_overrides(
        read_recipe("digits-iddpm"), [f"process.kind={schedule!r}", f"training.seed={seed}"]
    )
    changes = dict(CHANGES[objective])
    if objective == "simple":
        changes["model"] = recipe.model.model_copy(update={"variance": None})
    return recipe.model_copy(update=changes)


def train(folder: Path, recipe: Any, data: Dataset) -> float:
    """Train to the end, from the newest checkpoint if there is one; the seconds that the steps of this call
    took.
    """
    start, seed = time.perf_counter(), recipe.training.seed
    torch.manual_seed(seed)
    objective = build_objective(recipe, build_model(recipe, data.spec))
    resume = any((folder / "checkpoints").glob("*")) if folder.exists() else False
    if folder.exists() and not resume:
        shutil.rmtree(folder)  # stopped before its first checkpoint
    for _ in sf.train(
        objective, data, run=folder, resume=resume, describe=describe(recipe), **recipe.training.model_dump()
    ):
        pass
    return time.perf_counter() - start


def ready(folder: Path) -> Any:
    """The trained model as `scorefield sample` runs it."""
    model = load(folder)
    model.autocast_dtype = autocast_dtype("auto", model.device)
    return model


def bits(model: Any, heldout: Dataset) -> dict[str, float]:
    x0 = torch.cat(list(batches(heldout)))
    found = sf.likelihood.estimate_bits_per_dim(sf.guidance.ClipX0(model), x0, NoiseSource(0), TERMS)
    error = float(found.total.std()) / math.sqrt(len(x0))
    return {"bits": float(found.total.mean()), "bits_error": error, "prior": float(found.prior.mean())}


def moments(images: Iterable[Tensor], judge: FeatureNet) -> Moments:
    result = Moments()
    for x0 in images:
        result.update(judge.features(x0))
    return result


def frechet(
    model: Any, variance: str, steps: int, sets: int, count: int, judge: FeatureNet, reference: Moments
) -> list[float]:
    """The Fréchet distance of each set of `count` samples to the reference; samples are rounded to the data's
    levels.
    """
    grid = sf.grids.uniform(model.process, steps)
    sampler, spec = sf.samplers.Ancestral(variance), model.data  # type: ignore[arg-type]
    distances = []
    for seed in range(sets):
        blocks = sample_blocks(model, sampler, grid, count, seed, wrap=sf.guidance.ClipX0)  # type: ignore[arg-type]
        made = moments((spec.from_bins(spec.to_bins(block.x)) for block in blocks), judge)
        distances.append(frechet_distance(made, reference))
    return distances


def gradient_noise(model: Any, data: Dataset) -> dict[str, float]:
    """tr Σ of the gradient of L_vlb for one example, and tr Σ/|G|², under both ways to draw t."""
    found: dict[str, Any] = {}
    for times in ("uniform", "importance"):
        objective = VLB(model, times=times)
        if times == "importance":
            warm_up(objective, data)
        found |= {f"{times}_{name}": value for name, value in noise_scale(objective, data).items()}
    return found


def warm_up(objective: VLB, data: Dataset) -> None:
    """Fill the history of every t: ten losses each, of images and noise drawn anew."""
    times: Any = objective.times
    uniform = VLB(objective.model)
    step = 0
    while not times.warm:
        indices = torch.randint(len(data), (256,), generator=torch.Generator().manual_seed(step))
        with torch.no_grad():
            loss = uniform(data.batch(indices)[0], None, NoiseSource(1, range(256), step))
        if loss.t is not None and loss.unweighted is not None:
            times.update(loss.t, loss.unweighted)
        step += 1


def noise_scale(objective: VLB, data: Dataset, batch: int = 64) -> dict[str, float]:
    """Unbiased estimates of |G|² and tr Σ from the norms of PARTS gradients of `batch` examples and of their
    mean.
    """
    parameters = [p for p in objective.model.parameters() if p.requires_grad]
    mean, square = [torch.zeros_like(p, dtype=torch.float64) for p in parameters], 0.0
    for part in range(PARTS):
        indices = torch.randint(len(data), (batch,), generator=torch.Generator().manual_seed(part))
        loss = objective(data.batch(indices)[0], None, NoiseSource(2, range(batch), part))
        gradient = torch.autograd.grad(loss.per_example.mean(), parameters)
        square += sum(float(g.double().square().sum()) for g in gradient) / PARTS
        mean = [m + g.double() / PARTS for m, g in zip(mean, gradient, strict=True)]
    of_mean = sum(float(m.square().sum()) for m in mean)
    trace = batch * (square - of_mean) * PARTS / (PARTS - 1)
    signal = (PARTS * of_mean - square) / (PARTS - 1)
    return {"trace": trace, "signal": signal}


def run(out: Path, seeds: list[int]) -> None:
    data, heldout = open_data(read_recipe("digits-iddpm").data)
    judge = train_classifier(data)
    reference = moments(batches(data), judge)
    print(
        f"held-out images: Fréchet distance {frechet_distance(moments(batches(heldout), judge), reference):.3f}",
        flush=True,
    )
    for seed, schedule, objective in product(seeds, SCHEDULES, NAMES):
        name = f"{schedule}-{objective}-{seed}"
        result = out / f"{name}.json"
        if result.exists():
            continue
        seconds = train(out / name, recipe_of(schedule, objective, seed), data)
        model = ready(out / name)
        facts: dict[str, Any] = {
            "schedule": schedule,
            "objective": objective,
            "seed": seed,
            "train_seconds": seconds,
        }
        facts |= bits(model, heldout)
        variance = "lower" if objective == "simple" else "learned"
        facts["frechet"] = frechet(model, variance, STEPS, SETS, len(heldout), judge, reference)
        if objective.startswith("vlb"):
            facts |= gradient_noise(model, data)
        write(result, facts)
        print(json.dumps(facts), flush=True)


def write(path: Path, facts: dict[str, Any]) -> None:
    """Whole or not at all."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(facts))
    partial.rename(path)


def table(out: Path) -> None:
    found = [json.loads(path.read_text()) for path in sorted(out.glob("*.json")) if path.name != "sweep.json"]
    if not found:
        raise SystemExit(f"{out} holds no results yet: run `python benchmarks/improved_ddpm.py run` first")
    print(
        "| schedule | objective | runs | bits/dim | Fréchet distance | tr Σ/|G|², uniform t | importance-sampled t | tr Σ ratio |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for schedule, objective in product(SCHEDULES, NAMES):
        rows = [row for row in found if (row["schedule"], row["objective"]) == (schedule, objective)]
        if rows:
            print("| " + " | ".join([schedule, NAMES[objective], str(len(rows)), *_cells(rows)]) + " |")
    errors = [row["bits_error"] for row in found]
    print(
        f"\n± is the standard deviation over seeds; the standard error over images is {min(errors):.3f} to {max(errors):.3f} bits/dim."
    )


def _cells(rows: list[dict[str, Any]]) -> list[str]:
    cells = [
        _spread([row["bits"] for row in rows]),
        _spread([statistics.fmean(row["frechet"]) for row in rows]),
    ]
    if "uniform_trace" not in rows[0]:
        return [*cells, "", "", ""]
    for times in ("uniform", "importance"):
        # G is the same however t is drawn, so |G|² is taken from the draws that know it better.
        cells.append(_spread([row[f"{times}_trace"] / row["importance_signal"] for row in rows], digits=0))
    return [*cells, _spread([row["uniform_trace"] / row["importance_trace"] for row in rows])]


def _spread(values: list[float], digits: int = 2) -> str:
    text = f"{statistics.fmean(values):,.{digits}f}"
    return text if len(values) < 2 else f"{text} ± {statistics.stdev(values):,.{digits}f}"


def parts(out: Path, images: int = 60) -> None:
    """Where the bits go, seed 0: the decoder, the noise levels finer than half a bin of the data (σ/α <
    1/16), and the others.
    """
    _, heldout = open_data(read_recipe("digits-iddpm").data)
    x0 = torch.cat(list(batches(heldout)))[:images]
    print(
        "| schedule | objective | decoder | σ/α below half a bin | above | in all |\n|---|---|---|---|---|---|"
    )
    for schedule, objective in product(SCHEDULES, NAMES):
        model = ready(out / f"{schedule}-{objective}-0")
        found = sf.likelihood.bits_per_dim(sf.guidance.ClipX0(model), x0, NoiseSource(0))
        level = model.process.level(torch.arange(1, model.process.T + 1))
        terms, fine = found.terms.mean(dim=0), level.sigma / level.alpha < 1 / 16
        fine[0] = False
        values = (terms[0], terms[fine].sum(), terms[1:][~fine[1:]].sum(), found.total.mean())
        print(
            f"| {schedule} | {NAMES[objective]} | "
            + " | ".join(f"{float(value):.2f}" for value in values)
            + " |",
            flush=True,
        )
    print(
        f"\n{images} held-out images, every term; σ/α at t = 1 is finer than the data's bins on both schedules."
    )


def sweep(out: Path, picture: Path) -> None:
    data, heldout = open_data(read_recipe("digits-iddpm").data)
    judge = train_classifier(data)
    reference = moments(batches(data), judge)
    path = out / "sweep.json"
    found: dict[str, list[float]] = json.loads(path.read_text()) if path.exists() else {}
    for steps, (label, (objective, variance)) in product(SWEEP, LINES.items()):
        key = f"{label}/{steps}"
        if key not in found:
            sets = SETS if steps < 1000 else 1
            found[key] = frechet(
                ready(out / f"cosine-{objective}-0"), variance, steps, sets, len(heldout), judge, reference
            )
            write(path, found)
            print(key, found[key], flush=True)
    floor = frechet_distance(moments(batches(heldout), judge), reference)
    print("| model and variance | " + " | ".join(f"{steps:,} steps" for steps in SWEEP) + " |")
    print("|---" * (len(SWEEP) + 1) + "|")
    for label in LINES:
        print(f"| {label} | " + " | ".join(_spread(found[f"{label}/{steps}"]) for steps in SWEEP) + " |")
    print(f"\nheld-out images: {floor:.2f}")
    draw(found, floor, picture)


LINES = {
    "L_hybrid, learned variance": ("hybrid", "learned"),
    "L_hybrid, fixed variance β̃": ("hybrid", "lower"),
    "L_simple, fixed variance β̃": ("simple", "lower"),
    "L_simple, fixed variance β": ("simple", "upper"),
}


def draw(found: dict[str, list[float]], floor: float, picture: Path) -> None:
    from matplotlib.figure import Figure

    from scorefield.plots.style import plot_style, save_figure

    with plot_style():
        figure = Figure(figsize=(7, 4.2), layout="compressed")
        axes = figure.subplots()
        for label, color in zip(LINES, ("#d1495b", "#edae49", "#1b2a41", "#7a93ac"), strict=True):
            axes.plot(
                SWEEP,
                [statistics.fmean(found[f"{label}/{steps}"]) for steps in SWEEP],
                "o-",
                color=color,
                label=label,
            )
        axes.axhline(floor, color="0.6", linestyle=":", label="held-out images")
        axes.set(
            xscale="log", ylim=(0, None), xlabel="ancestral steps", ylabel="Fréchet distance", xticks=SWEEP
        )
        axes.set_xticklabels([f"{steps:,}" for steps in SWEEP])
        axes.minorticks_off()
        axes.set_title("Fast sampling of the digits: learned against fixed variances")
        axes.legend()
    save_figure(figure, picture)
    print(f"wrote {picture}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("run", "table", "parts", "sweep"))
    parser.add_argument("--out", type=Path, default=Path("runs/improved-ddpm"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--picture", type=Path, default=Path("docs/figures/fast-sampling.png"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    commands = {
        "run": lambda: run(arguments.out, arguments.seeds),
        "table": lambda: table(arguments.out),
        "parts": lambda: parts(arguments.out),
        "sweep": lambda: sweep(arguments.out, arguments.picture),
    }
    commands[arguments.what]()


if __name__ == "__main__":
    main()
