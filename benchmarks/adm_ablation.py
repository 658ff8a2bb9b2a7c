"""ADM's ablation on the digits: every switch of the network against the base, at equal computing time.

Each variant changes one option of the base network and trains for the same processor time on one thread, so a
slower network makes fewer steps. The figure is the Fréchet distance of 3 × 360 class-conditional samples
(DDIM, 20 uniform steps) to the training digits, in the features of a small classifier. Beside it stands the
paper's change in FID (ImageNet 128×128, 700K steps, ADM Tables 1-3), which was measured at equal steps and on
other data: agreement is not to be expected of eight pixels, and the spread over seeds says how much of ours
is noise.

    python benchmarks/adm_ablation.py [--seconds 90] [--seeds 0 1] [--out runs/adm-ablation.json]
    resumes where it was stopped
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from itertools import product
from pathlib import Path
from typing import Any

import torch

import scorefield as sf
from scorefield.data import Dataset
from scorefield.evaluation import FeatureNet, Moments, frechet_distance, train_classifier
from scorefield.evaluation.features import batches
from scorefield.generation.sample_blocks import sample_blocks
from scorefield.runs.build import build_model, build_objective, open_data, read_recipe
from scorefield.runtime.precision import autocast_dtype

BASE: dict[str, Any] = {
    "kind": "unet",
    "channels": 64,
    "channel_mult": [1, 2],
    "blocks": 1,
    "attention": [2],
    "heads": 1,
    "updown": False,
    "rescale_residual": False,
    "scale_shift": True,
}
# name: (options that differ from the base, the paper's change in FID)
VARIANTS: dict[str, tuple[dict[str, Any], str]] = {
    "base": ({}, "15.33"),
    "depth: 2 blocks a level": ({"blocks": 2}, "−0.21 (4 for 2)"),
    "depth at the base's size: 2 blocks, 54 channels": (
        {"blocks": 2, "channels": 54, "norm_groups": 27},  # two channels a group, as in the base
        "",
    ),
    "4 heads": ({"heads": 4}, "−0.54"),
    "attention at 8 and 4 pixels": ({"attention": [1, 2]}, "−0.72 (at 32, 16, 8 for 16)"),
    "BigGAN up and down": ({"updown": True}, "−1.20"),
    "rescaled residuals": ({"rescale_residual": True}, "+0.16"),
    "all but rescaling": ({"heads": 4, "attention": [1, 2], "updown": True}, "−3.14 (160 channels)"),
    "addition for adaptive normalization": ({"scale_shift": False}, "15.08 against 13.06"),
}


def train(net: dict[str, Any], data: Dataset, seed: int, seconds: float) -> tuple[Any, int]:
    """(the averaged model, the steps made in so many seconds of processor time)."""
    recipe = read_recipe("digits").model_copy(update={"net": net})
    torch.manual_seed(seed)
    options = recipe.training.model_dump() | {"seed": seed, "steps": 1_000_000, "checkpoint_every": 1_000_000}
    trainer = sf.train(build_objective(recipe, build_model(recipe, data.spec)), data, **options)
    start = time.process_time()
    for step in trainer:
        if time.process_time() - start > seconds:
            return trainer.ema_model(), step.step
    raise SystemExit("a million steps were not enough: give fewer --seconds")


def frechet(model: Any, heldout: Dataset, judge: FeatureNet, reference: Moments) -> float:
    """The mean over 3 sets, each with the labels of the held-out digits."""
    model.autocast_dtype = autocast_dtype("auto", model.device)
    labels = heldout.labels.tolist() if heldout.labels is not None else None
    distances = []
    for seed in range(3):
        made = Moments()
        grid = sf.grids.uniform(model.process, 20)
        for block in sample_blocks(model, sf.samplers.DDIM(), grid, len(heldout), seed, labels=labels):
            made.update(judge.features(model.data.from_bins(model.data.to_bins(block.x))))
        distances.append(frechet_distance(made, reference))
    return statistics.fmean(distances)


def measure(found: dict[str, Any], path: Path, seeds: list[int], seconds: float) -> None:
    data, heldout = open_data(read_recipe("digits").data)
    judge, reference = train_classifier(data), Moments()
    for x0 in batches(data):
        reference.update(judge.features(x0))
    for seed, name in product(seeds, VARIANTS):
        key = f"{name}/{seed}/{seconds:g}"
        if key in found:
            continue
        model, steps = train(BASE | VARIANTS[name][0], data, seed, seconds)
        parameters = sum(p.numel() for p in model.parameters())
        found[key] = {
            "frechet": frechet(model, heldout, judge, reference),
            "steps": steps,
            "parameters": parameters,
        }
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(found))
        partial.rename(path)
        print(key, found[key], flush=True)


def table(found: dict[str, Any], seeds: list[int], seconds: float) -> None:
    print(f"\n{seconds:g} s of processor time each, one thread, seeds {', '.join(map(str, seeds))}")
    print(
        "| network | parameters | steps | Fréchet distance | change | the paper's FID, change |\n|---|---|---|---|---|---|"
    )
    base = None
    for name, (_, paper) in VARIANTS.items():
        rows = [found[f"{name}/{seed}/{seconds:g}"] for seed in seeds]
        values = [row["frechet"] for row in rows]
        mean, steps = statistics.fmean(values), round(statistics.fmean(row["steps"] for row in rows))
        base = mean if base is None else base
        spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        change = "" if name == "base" else f"{mean - base:+.2f}"
        print(f"| {name} | {rows[0]['parameters']:,} | {steps:,} | {mean:.2f}{spread} | {change} | {paper} |")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=90.0, help="of processor time, for each network")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--out", type=Path, default=Path("runs/adm-ablation.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    measure(found, arguments.out, arguments.seeds, arguments.seconds)
    table(found, arguments.seeds, arguments.seconds)


if __name__ == "__main__":
    main()
