"""What `scorefield evaluate` does with a classifier: its accuracy at each noise level, printed and drawn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from scorefield.cli.console import print_json, print_table, progress
from scorefield.cli.parameters import load_model, note_other_data, weights_hash

if TYPE_CHECKING:
    from scorefield.data import Dataset
    from scorefield.evaluation import NoisyAccuracy
    from scorefield.models.noisy_classifier import NoisyClassifier
    from scorefield.runs.build import Recipe

__all__ = ["evaluate_classifier"]

_KEYS = {"held-out": "heldout", "training": "train"}  # in JSON
_MOST = 2000  # examples of a part unless told otherwise: a standard error of at most 1.1 %


def evaluate_classifier(
    run: str, recipe: Recipe, data: str | None, n: int | None, seed: int, device: str | None, as_json: bool
) -> None:
    """Judge a classifier's run on n held-out and n training examples (2,000, or all where there are fewer, if
    not given).
    """
    from scorefield.plots.evaluation_figures import draw_accuracy
    from scorefield.plots.style import save_figure
    from scorefield.runs.build import open_data
    from scorefield.runtime.precision import pick_device
    from scorefield.training import RunFolder

    options = recipe.data if data is None else recipe.data.model_copy(update={"source": data})
    train, heldout = open_data(options)
    note_other_data(recipe, train)
    model, sources = load_model(run, recipe, pick_device(device)), {"held-out": heldout, "training": train}
    parts = {
        name: _measure(model, part, n or _MOST, seed, name) for name, part in sources.items() if len(part)
    }
    folder = RunFolder(Path(run))
    target = folder.path / "figures" / "accuracy.png"
    target.parent.mkdir(exist_ok=True)
    save_figure(draw_accuracy(parts, recipe.name), target)
    if as_json:
        stamp = {"run": run, "weights": weights_hash(run), "data": options.source, "seed": seed}
        print_json(
            {**stamp, "figure": str(target), **{_KEYS[name]: part.as_dict() for name, part in parts.items()}}
        )
    else:
        _print(parts, target)


def _measure(model: NoisyClassifier, examples: Dataset, n: int, seed: int, name: str) -> NoisyAccuracy:
    """The figures of n of the examples, which hold all classes in about their shares."""
    import torch

    from scorefield.core.noise import NoiseSource
    from scorefield.data.loading.epoch_order import permutation
    from scorefield.evaluation import noisy_accuracy

    chosen = examples.subset(torch.from_numpy(permutation(len(examples), seed=0)[:n]))
    with progress(f"{name} examples", 1) as bar:
        return noisy_accuracy(
            model, chosen, noise=NoiseSource(seed), progress=lambda done, total: bar.update(done, total=total)
        )


def _print(parts: dict[str, NoisyAccuracy], target: Path) -> None:
    first = next(iter(parts.values()))
    headers = ["t", "σ/α"]
    columns = [[f"{t:.4g}" for t in first.times], [f"{ratio:.3g}" for ratio in first.ratios]]
    for name, part in parts.items():
        headers += [f"{name}: accuracy", "cross-entropy"]
        columns.append(
            [f"{a:.1%} ± {e:.1%}" for a, e in zip(part.accuracy, part.accuracy_error, strict=True)]
        )
        columns.append(
            [f"{h:.3f} ± {e:.3f}" for h, e in zip(part.cross_entropy, part.cross_entropy_error, strict=True)]
        )
    print_table(headers, zip(*columns, strict=True))
    counts = " and ".join(f"{part.examples:,} {name}" for name, part in parts.items())
    print(f"{counts} examples (mean ± standard error); cross-entropy in nats")
    print(f"guessing without looking: accuracy {first.chance:.1%}, cross-entropy {first.entropy:.3f}")
    print(f"figure: {target}")
