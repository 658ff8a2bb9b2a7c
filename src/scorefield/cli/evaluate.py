"""scorefield evaluate"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scorefield.cli.console import print_json, print_table, progress, say
from scorefield.cli.options import Device, Eta, Grid, Json, Run, SamplerName, Seed, Settings, Steps, Variance, sampling_options

if TYPE_CHECKING:
    from scorefield.core.shapes import DataSpec
    from scorefield.data import Dataset
    from scorefield.evaluation import Quality

_METRICS = ("fd",)


def evaluate(
    run: Run,
    metrics: Annotated[str, typer.Option(help="fd: Fréchet distance, class agreement and the check for copies.")] = "fd",
    data: Annotated[str | None, typer.Option(help="Where the data is now; where it was in training if not given.")] = None,
    samples: Annotated[
        Path | None, typer.Option(metavar="DIR|NPZ", help="Judge these images instead of sampling the run.")
    ] = None,
    n: Annotated[int | None, typer.Option("-n", min=2, help="Images a set; as many as are held out if not given.")] = None,
    sets: Annotated[int, typer.Option(min=1, help="Generated sets, for the mean and the spread.")] = 3,
    sampler: SamplerName = None,
    steps: Steps = None,
    grid: Grid = None,
    eta: Eta = None,
    variance: Variance = None,
    settings: Settings = None,
    seed: Seed = 0,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Judge a run by figures, each next to that of held-out real images: distance to the data, classes, copying."""
    from scorefield.config import open_data, read_run
    from scorefield.core.errors import InputError
    from scorefield.data.pictures import are_images
    from scorefield.evaluation import quality, train_classifier

    unknown = [name for name in metrics.split(",") if name not in _METRICS]
    if unknown:
        raise InputError(f"there is no metric {unknown[0]!r}; there is {', '.join(_METRICS)}")
    recipe, spec = read_run(run)
    if not are_images(spec.shape):
        raise InputError(
            f"fd compares images, and this run makes points of shape {spec.shape}: look at them with scorefield plot {run}"
        )
    options = recipe.data if data is None else recipe.data.model_copy(update={"source": data})
    train, heldout = open_data(options)
    if recipe.trained_on is not None and train.fingerprint() != recipe.trained_on.fingerprint:
        say(f"note: {options.source} is not what this run was trained on (fingerprint {train.fingerprint()})")
    if len(heldout) < 2:
        raise InputError(
            f"figures are read next to held-out images, and this run holds out {len(heldout)}: train with data.holdout above 0"
        )
    count = n or len(heldout)
    with progress("training the judge", 1) as bar:
        classifier = train_classifier(train, progress=lambda done, total: bar.update(done, total=total))
    if samples is not None:
        generate, sets, stamp = _given(samples, spec, count, sets)
    else:
        chosen = sampling_options(recipe, sampler, steps, grid, eta, variance, settings)
        generate, stamp = _sampled(run, chosen, heldout, count, sets, seed, device)
    result = quality(generate, train, heldout, classifier, sets)
    for warning in result.warnings:
        say(f"warning: {warning}")
    if as_json:
        print_json({"run": run, "stamp": stamp, **result.as_dict()})
    else:
        _print(result, stamp)


def _sampled(
    run: str, options: Any, heldout: Dataset, count: int, sets: int, seed: int, device: str | None
) -> tuple[Callable[[int], Any], str]:
    """(k -> the k-th set of the run's samples and their labels, how they were made).

    Classes are asked for as often as they are held out: a Fréchet distance also measures how often each class comes.
    """
    import torch

    from scorefield.config import build_sampling, load, read_run
    from scorefield.core.compute import autocast_dtype, pick_device
    from scorefield.data.order import permutation
    from scorefield.samplers.blocks import sample_blocks

    model = load(run).to(pick_device(device))
    model.autocast_dtype = autocast_dtype(read_run(run)[0].training.precision, model.device)
    sampler, times, wrap, start = build_sampling(options, model)
    conditional = bool(getattr(model, "num_classes", 0)) and heldout.labels is not None
    # The order in which `quality` takes held-out images where it needs fewer than all: the classes come in the same shares.
    shuffled = permutation(len(heldout), seed=0)
    labels = heldout.labels[shuffled].tolist() if conditional and heldout.labels is not None else None
    stamp = f"{sampler} on {options.grid} grid of {len(times) - 1} steps, clip {options.clip}, EMA weights, seed {seed}"

    def generate(k: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        images, classes = [], []
        with progress(f"sampling set {k + 1} of {sets}", -(-count // 64) * (len(times) - 1)) as bar:
            every: dict[str, Any] = {"labels": labels, "wrap": wrap, "start": start, "on_step": lambda _, __: bar.advance()}
            for block in sample_blocks(model, sampler, times, count, seed + k, **every):
                images.append(block.x.cpu())
                classes += block.labels or []
        return torch.cat(images), torch.tensor(classes) if classes else None

    return generate, stamp


def _given(path: Path, spec: DataSpec, count: int, sets: int) -> tuple[Callable[[int], Any], int, str]:
    """(k -> the k-th `count` of the images in a folder or .npz file, how many such sets there are, where they came from)."""
    import torch

    from scorefield.core.errors import InputError
    from scorefield.data import folder, npz

    channels, size = spec.shape[0], spec.shape[-1]
    images = npz(str(path)) if path.suffix == ".npz" else folder(str(path), size=size, channels=channels)
    if images.spec.shape != spec.shape:
        raise InputError(f"{path} holds images of shape {images.spec.shape}, but the run makes {spec.shape}")
    whole = len(images) // count
    if whole < 1:
        raise InputError(f"{path} holds {len(images)} images, fewer than one set of {count}: give a smaller -n")
    low, high = spec.range

    known = images.labels is not None and set(images.spec.classes) <= set(spec.classes)
    classes = [spec.classes.index(name) for name in images.spec.classes] if known else []

    def generate(k: int) -> tuple[Any, Any]:
        part = slice(k * count, (k + 1) * count)
        labels = torch.tensor(classes)[images.labels[part]] if known and images.labels is not None else None
        return low + (high - low) * images.levels[part].float() / 255, labels

    return generate, min(sets, whole), f"images of {path}"


def _print(result: Quality, stamp: str) -> None:
    spread = "" if result.frechet_std is None else f" ± {result.frechet_std:.3f}"
    copying = "" if result.copying_std is None else f" ± {result.copying_std:.3f}"
    rows = [
        (
            "Fréchet distance to the training images",
            f"{result.frechet_mean:.3f}{spread}",
            f"{result.frechet_heldout:.3f}",
            f"{result.frechet_ratio:.3f}",
        ),
        (
            "distance to the nearest training image (median)",
            f"{result.nearest_mean:.3f}",
            f"{result.nearest_heldout:.3f}",
            f"{result.copying_ratio:.3f}{copying}",
        ),
        ("nearer to one than 99 % of held-out images", f"{result.near:.1%}", "1.0%", ""),
    ]
    if result.agreement is not None:
        rows.append(("agreement with the requested class", f"{result.agreement:.2%}", f"{result.accuracy:.2%}", ""))
    print_table(("", "samples", "held-out images", "ratio"), rows)
    sets = len(result.frechet)
    print(
        f"{sets} sets of {result.count} samples (mean ± standard deviation), {result.heldout_count} held-out and {result.train_count} training images"
    )
    print(f"samples: {stamp}")
    print(f"features: {result.features}")
