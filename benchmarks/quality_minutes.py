"""Quality per minute: one recipe in many variations, each trained for the same processor time, as measured.

Each variation changes a few settings of the recipe. The number of steps that fits into the time is measured first, and
the learning rate is annealed over it. Judged are samples with the labels of the held-out images: their Fréchet distance
in the features of classifiers trained on the training images with several seeds (mean, and standard deviation over the
classifiers), the share that these put into the class asked for, copies of training images, and colours outside the data's.

    python benchmarks/quality_minutes.py portraits --minutes 4
    python benchmarks/quality_minutes.py portraits-unet --minutes 6
    python benchmarks/quality_minutes.py mnist --data mnist10k.npz --minutes 20 --only base "small batches"
    python benchmarks/quality_minutes.py earth --data earth.npz --minutes 10

Minutes are processor time on one thread. Where other work shares the machine, processor time depends on it:
`--steps N` gives every variation the operations of N steps of the base instead. Results are kept in the folder --out,
and a call goes on where another was interrupted. `--table` prints what is there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from scorefield.data import Dataset
from scorefield.evaluation import (
    EvaluationOptions,
    EvaluationTarget,
    MetricValue,
    evaluate,
    open_features,
    train_classifier,
)
from scorefield.evaluation.extractors import Extractor
from scorefield.evaluation.features import load_classifier
from scorefield.generation.sampling import build_sampling
from scorefield.models.network_model import ModelBase
from scorefield.planning.facts import cost
from scorefield.runs.build import build_model, build_objective, meta_model, open_data
from scorefield.runs.recipe import Recipe, read_recipe, with_overrides
from scorefield.runtime.errors import InputError
from scorefield.training import Trainer, train

# The recipe `images` as it was before these measurements, for the two sets in colour.
_IMAGES: Mapping[str, object] = {
    "net.channels": 64,
    "net.channel_mult": [1, 2, 2],
    "net.blocks": 2,
    "net.dropout": 0.1,
    "net.norm_groups": 32,
    "training.batch_size": 64,
    "training.lr": 5e-4,
    "training.warmup": 500,
    "training.ema": 0.9999,
    "training.anneal": False,
}
_FLOW: Mapping[str, object] = {
    "process": {"kind": "flow"},
    "model.parametrization": "flow",
    "model.noise_input": "scaled",
    "objective.weighting": "network",
}
# The recipe portraits before it took a transformer: portraits-unet.
_UNET: Mapping[str, object] = {
    "net": dict(read_recipe("portraits-unet").net),
    "model.parametrization": "v",
    "objective.weighting": "v",
    "training.lr": 2e-3,
    "training.batch_size": 16,
}
BEFORE: Mapping[str, Mapping[str, object]] = {
    "portraits": _UNET,
    "portraits-unet": _IMAGES,
    "earth": _IMAGES,
}
# Of recipes with a transformer.
TRANSFORMERS: Mapping[str, Mapping[str, object]] = {
    "base": {},
    "lr 2e-3": {"training.lr": 2e-3},
    "256 wide": {"net.hidden": 256},
    "256 wide, batch 16": {"net.hidden": 256, "training.batch_size": 16},
    "8 blocks": {"net.depth": 8},
    "patches of 2, batch 16": {"net.patch": 2, "training.batch_size": 16},
    "patches of 2, batch 16, v": {
        "net.patch": 2,
        "training.batch_size": 16,
        "model.parametrization": "v",
        "objective.weighting": "v",
    },
    "patches of 2, batch 16, weighted as v": {
        "net.patch": 2,
        "training.batch_size": 16,
        "objective.weighting": "v",
    },
    "v": {"model.parametrization": "v", "objective.weighting": "v"},
    "fixed positions": {"net.positions": "fixed"},
    "RMS, SwiGLU, rotary": {"net.norm": "rms", "net.mlp": "swiglu", "net.positions": "rotary"},
}
# Of recipes with a U-Net.
VARIATIONS: Mapping[str, Mapping[str, object]] = {
    "base": {},
    "lr 1e-3": {"training.lr": 1e-3},
    "lr 4e-3": {"training.lr": 4e-3},
    "constant lr": {"training.anneal": False},
    "small batches": {"training.batch_size": 16, "training.lr": 2e-3, "training.anneal": True},
    "warm-up 20": {"training.warmup": 20},
    "warm-up 300": {"training.warmup": 300},
    "batch 8": {"training.batch_size": 8},
    "batch 8, lr 1e-3": {"training.batch_size": 8, "training.lr": 1e-3},
    "batch 32": {"training.batch_size": 32},
    "batch 64": {"training.batch_size": 64},
    "batch 64, lr 1e-3": {"training.batch_size": 64, "training.lr": 1e-3},
    "ε": {"model.parametrization": "eps", "objective.weighting": "eps"},
    "ε weighted as v": {"model.parametrization": "eps"},
    "x̂0": {"model.parametrization": "x0"},
    "x̂0, lr 1e-3": {"model.parametrization": "x0", "training.lr": 1e-3},
    "x̂0, min-SNR": {"model.parametrization": "x0", "objective.weighting": "min-snr"},
    "min-SNR": {"objective.weighting": "min-snr"},
    "EMA 0.98": {"training.ema": 0.98},
    "EMA 0.99": {"training.ema": 0.99},
    "EMA 0.9999": {"training.ema": 0.9999},
    "β₂ 0.99": {"training.beta2": 0.99},
    "dropout 0.1": {"net.dropout": 0.1},
    "labels all kept": {"training.label_dropout": 0.0},
    "importance": {"objective.times": "importance"},
    "linear schedule": {"process.kind": "linear"},
    "flow": _FLOW,
    "flow, logit-normal": {**_FLOW, "objective.times": "logit-normal"},
    "64 channels": {"net.channels": 64},
    "2 blocks": {"net.blocks": 2},
    "wide, 2 levels": {"net.channels": 64, "net.channel_mult": [1, 2], "net.attention": [2]},
    "attention at 4 only": {"net.attention": [4]},
    "attention at 1, 2, 4": {"net.attention": [1, 2, 4]},
    "2 groups": {"net.norm_groups": 2},
    "32 groups": {"net.norm_groups": 32},
    "64 channels, 1 1 2": {"net.channels": 64, "net.channel_mult": [1, 1, 2]},
    "64 channels, 1 1 2, 32 groups": {
        "net.channels": 64,
        "net.channel_mult": [1, 1, 2],
        "net.norm_groups": 32,
    },
    "96 channels, 1 1 1, 32 groups": {
        "net.channels": 96,
        "net.channel_mult": [1, 1, 1],
        "net.norm_groups": 32,
    },
}
_TRIAL = (3, 12)  # steps that are not counted, and that are
_EXAMPLES = 200_000  # that a judge is trained on


def steps_within(seconds: float, recipe: Recipe, train_data: Dataset) -> int:
    """How many steps take so much processor time, by a trial."""
    trainer, taken = make_trainer(recipe, train_data), []
    for _ in range(sum(_TRIAL)):
        start = time.process_time()
        next(trainer)
        taken.append(time.process_time() - start)
    trainer.close()
    return max(int(seconds / statistics.mean(taken[_TRIAL[0] :])), 1)


def make_trainer(recipe: Recipe, data: Dataset) -> Trainer:
    torch.manual_seed(recipe.training.seed)
    model = build_model(recipe, data.spec)
    return train(build_objective(recipe, model), data, device="cpu", **recipe.training.model_dump())


def operations(recipe: Recipe, data: Dataset) -> float:
    """Floating-point operations of a step."""
    suited = recipe.suited_to(data.spec)
    return cost(meta_model(suited, data.spec)).training * recipe.training.batch_size


def measure(recipe: Recipe, base: Recipe, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One variation: train it, sample it, judge it."""
    train_data, heldout = open_data(recipe.data)
    recipe = recipe.suited_to(train_data.spec)
    if arguments.steps is None:
        steps = steps_within(60 * arguments.minutes, recipe, train_data)
    else:
        steps = round(arguments.steps * operations(base, train_data) / operations(recipe, train_data))
    recipe = with_overrides(recipe, {"training.steps": steps})
    trainer = make_trainer(recipe, train_data)
    start, losses = time.process_time(), []
    for step in trainer:
        losses.append(step.loss)
    seconds, model = time.process_time() - start, trainer.ema_model()
    trainer.close()
    found: dict[str, Any] = {
        "steps": steps,
        "seconds": seconds,
        "parameters": sum(p.numel() for p in model.parameters()),
        "loss": statistics.mean(losses[-100:]),
    }
    return found | judge(model, recipe, train_data, heldout, arguments, folder)


def judge(
    model: ModelBase,
    recipe: Recipe,
    train_data: Dataset,
    heldout: Dataset,
    arguments: argparse.Namespace,
    folder: Path,
) -> dict[str, Any]:
    target = EvaluationTarget(
        build_sampling(recipe.sampling, model), train_data, heldout, {"sha256": folder.name}, folder
    )
    folder.mkdir(parents=True, exist_ok=True)
    distances: list[MetricValue] = []
    agreements: list[MetricValue] = []
    for extractor in judges(train_data, arguments.judges, arguments.out / arguments.name):
        for figure in figures(target, "fd", arguments.n, extractor):
            {"frechet": distances, "agreement": agreements}.get(figure.name, []).append(figure)
    found: dict[str, Any] = {"classifier": spread(distances), "agreement": spread(agreements)}
    if arguments.imagenet:
        imagenet = open_features("imagenet", train_data.spec, train_data)
        found["imagenet"] = spread(figures(target, "fd", arguments.n, imagenet)[:1])
    if train_data.spec.bins is not None:
        for figure in figures(target, "copies,palette", arguments.n, None):
            found[figure.name] = spread([figure])
    return found


def figures(
    target: EvaluationTarget, metrics: str, n: int, extractor: Extractor | None
) -> tuple[MetricValue, ...]:
    options = EvaluationOptions(metrics=tuple(metrics.split(",")), n=n, sets=1)
    result = evaluate(target, options, extractor=extractor)
    assert result is not None  # one process
    return result.figures


def judges(data: Dataset, count: int, folder: Path) -> list[Extractor]:
    """The classifiers, trained once for each data set."""
    found: list[Extractor] = []
    for seed in range(count):
        path = folder / f"judge-{seed}.safetensors"
        try:
            found.append(load_classifier(path, data.spec))
        except InputError:
            folder.mkdir(parents=True, exist_ok=True)
            made = train_classifier(data, seed=seed, examples=_EXAMPLES)
            made.save(path)
            found.append(made)
    return found


def spread(values: Sequence[MetricValue]) -> dict[str, float]:
    """Mean and standard deviation, and the mean of the held-out images' figure."""
    numbers = [figure.value for figure in values]
    own = [figure.heldout for figure in values if figure.heldout is not None]
    return {
        "value": statistics.mean(numbers),
        "error": statistics.stdev(numbers) if len(numbers) > 1 else 0.0,
        "heldout": statistics.mean(own) if own else float("nan"),
    }


def print_table(folder: Path) -> None:
    """Everything that was measured for one data set, the nearest first."""
    rows = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    names = ("classifier", "agreement", "imagenet", "copies", "palette")
    shown = [name for name in names if any(name in row for row in rows)]
    print(f"| variation | budget | seed | parameters | steps | loss | {' | '.join(shown)} |")
    print("|---" * (6 + len(shown)) + "|")
    for row in sorted(rows, key=lambda row: float(row["classifier"]["value"])):
        cells = [
            row["variation"],
            row["budget"],
            row["seed"],
            f"{row['parameters'] / 1e6:.2f} M",
            f"{row['steps']:,}",
        ]
        cells += [f"{row['loss']:.4f}", *(_cell(row.get(name)) for name in shown)]
        print("| " + " | ".join(map(str, cells)) + " |")
    if rows:
        floor = [f"{name} {row[name]['heldout']:.4g}" for row in rows[:1] for name in shown if name in row]
        print(f"\nheld-out images: {', '.join(floor)}")


def _cell(figure: dict[str, float] | None) -> str:
    if figure is None:
        return ""
    return f"{figure['value']:.4g}" + (f" ± {figure['error']:.2g}" if figure["error"] else "")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("name", choices=[*BEFORE, "mnist"], help="of the data set")
    parser.add_argument("--data", help="a source, where the recipe names none")
    parser.add_argument("--minutes", type=float, default=6.0, help="processor minutes of each training")
    parser.add_argument(
        "--steps",
        type=int,
        help="equal operations in place of equal time: those of so many steps of the base",
    )
    parser.add_argument("--only", nargs="+", metavar="VARIATION")
    parser.add_argument("--set", nargs="*", default=[], metavar="A.B=C", help="another base")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("-n", type=int, default=1000, help="samples")
    parser.add_argument("--judges", type=int, default=3, help="classifiers, of seeds 0, 1, …")
    parser.add_argument("--imagenet", action="store_true", help="EfficientNet's features too: takes minutes")
    parser.add_argument("--out", type=Path, default=Path("runs/quality-minutes"))
    parser.add_argument("--table", action="store_true", help="print what was measured, and measure nothing")
    arguments = parser.parse_args()
    folder = arguments.out / arguments.name
    known = {"before": BEFORE[arguments.name]} if arguments.name in BEFORE else {}
    known |= TRANSFORMERS if arguments.name == "portraits" else VARIATIONS
    if unknown := set(arguments.only or ()) - set(known):
        parser.error(f"unknown variations {sorted(unknown)}: choose from {list(known)}")
    torch.set_num_threads(1)
    for seed in [] if arguments.table else arguments.seeds:
        for name in arguments.only or known:
            changes = known[name]
            given = {} if arguments.data is None else {"data.source": arguments.data}
            label = " ".join([name, *arguments.set])
            budget = f"{arguments.minutes:g} min" if arguments.steps is None else f"{arguments.steps} steps"
            path = folder / f"{label.replace('/', '-')}, {budget}, {seed}.json"
            if path.exists():
                continue
            base = with_overrides(read_recipe(arguments.name), given)
            recipe = with_overrides(with_overrides(base, changes), [*arguments.set, f"training.seed={seed}"])
            found = measure(recipe, base, arguments, folder / "samples" / path.stem)
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"variation": label, "seed": seed, "budget": budget, **found}))
            print(path.stem, json.dumps(found), flush=True)
    print_table(folder)


if __name__ == "__main__":
    main()
