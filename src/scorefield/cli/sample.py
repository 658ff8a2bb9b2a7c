"""scorefield sample"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scorefield.cli.console import print_json, progress, say
from scorefield.cli.options import (
    Classifier,
    Device,
    Eta,
    Grid,
    Guidance,
    Json,
    Run,
    SamplerName,
    Seed,
    Settings,
    Steps,
    Variance,
    load_classifier,
    sampling_options,
)

if TYPE_CHECKING:
    from torch import Tensor

    from scorefield.config import Recipe, Sampling, SamplingOptions
    from scorefield.core.shapes import DataSpec
    from scorefield.data import Dataset
    from scorefield.denoiser import Denoiser
    from scorefield.noisy_classifier import NoisyClassifier

_FRAMES = 100  # of an animation, at the most


def sample(
    run: Run,
    n: Annotated[
        int | None, typer.Option("-n", min=1, help="How many; 64, or one for each image of --low-res, if not given.")
    ] = None,
    sampler: SamplerName = None,
    steps: Steps = None,
    grid: Grid = None,
    eta: Eta = None,
    variance: Variance = None,
    settings: Settings = None,
    label: Annotated[
        list[str] | None, typer.Option(help="Class by number or name; repeat it or use commas. All classes in turn if not given.")
    ] = None,
    classifier: Classifier = None,
    guidance: Guidance = None,
    low_res: Annotated[
        Path | None,
        typer.Option(
            "--low-res",
            metavar="FILE",
            help="The small images that a run of super-resolution enlarges, image i into sample i: an .npz with `images`, a picture or "
            "a folder of them. Classes are the file's own if --label is not given.",
        ),
    ] = None,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="FILE.png (a grid), FILE.npz (arrays) or a folder (one PNG each).")] = None,
    trajectory: Annotated[Path | None, typer.Option(metavar="FILE.gif", help="Show the denoising of the first images.")] = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Sample a run with its averaged (EMA) weights: images, or points as an .npz with `samples`."""
    from scorefield.config import build_sampling, load, read_run
    from scorefield.core.compute import autocast_dtype, pick_device
    from scorefield.data.pictures import are_images, check_animation, check_target, save_animation

    recipe, spec = read_run(run)
    small = _small_images(run, recipe, spec, low_res)
    n = n or (64 if small is None else len(small))
    model = load(run).to(pick_device(device))
    model.autocast_dtype = autocast_dtype(recipe.training.precision, model.device)
    guide = load_classifier(classifier, model.device)
    options = sampling_options(recipe, sampler, steps, grid, eta, variance, settings, classifier, guidance)
    sampling = build_sampling(options, model, guide)
    labels = class_labels(model, label, guide) if label or small is None else _labels_of(small, model, guide)
    target = out or _default_target(run, f"seed-{seed}-n-{n}{'.png' if are_images(spec.shape) else '.npz'}")
    check_target(target, spec.shape)
    if trajectory is not None:
        check_animation(trajectory, spec.shape)
    calls = sampling.sampler.calls(sampling.grid.tolist())
    precision = "bf16" if model.autocast_dtype else "fp32"
    guided = _guidance(options, classifier)
    say(f"{run}: EMA weights, {sampling.sampler}, {calls} network calls, seed {seed}, {precision}{guided and ', ' + guided}")
    start = time.perf_counter()
    samples, chosen, frames = _draw(model, sampling, n, seed, labels, small, spec if trajectory is not None else None)
    seconds = time.perf_counter() - start
    columns = len(labels) if labels is not None and 1 < len(labels) <= 20 else None
    _write(target, spec, samples, chosen, columns)
    if trajectory is not None:
        save_animation(trajectory, frames, columns)
        say(f"wrote {trajectory}")
    say(f"wrote {target}: {n} samples in {seconds:.1f} s ({n / seconds:,.1f} a second)")
    if as_json:
        facts = {"out": str(target), "n": n, "seed": seed, "sampler": str(sampling.sampler), "calls": calls}
        print_json({**facts, "guidance": guided or None, "weights": "ema", "seconds": round(seconds, 3)})


def _small_images(run: str, recipe: Recipe, spec: DataSpec, low_res: Path | None) -> Dataset | None:
    """The images of --low-res; None for a run that enlarges none. InputError where they are missing, or nothing enlarges them."""
    from scorefield.core.errors import InputError
    from scorefield.data.low_res import low_res_images

    side = recipe.model.low_res
    if side is None and low_res is not None:
        raise InputError(f"{run} is a run of {recipe.name}, which enlarges no images: leave --low-res out")
    if side is not None and low_res is None:
        raise InputError(f"{run} enlarges images of {side}×{side} pixels: give them by --low-res, an .npz, a picture or a folder")
    return None if side is None or low_res is None else low_res_images(low_res, side, spec)


def _labels_of(small: Dataset, model: Denoiser, classifier: NoisyClassifier | None) -> list[int] | None:
    """The classes of the images to be enlarged, in the numbering of the model, or of the classifier of an unconditional one."""
    from scorefield.core.errors import InputError

    labelled = model if model.num_classes else classifier
    if labelled is None:
        return None
    if small.labels is None:
        raise InputError(f"{small.source} does not say the classes of its images: name them by --label")
    return [_class_number(labelled, small.spec.classes[label]) for label in small.labels.tolist()]


def _guidance(options: SamplingOptions, classifier: str | None) -> str:
    """How the samples are guided, in words; nothing where they are not."""
    if classifier is not None:
        return f"guided by {classifier}, scale {1.0 if options.guidance is None else options.guidance:g}"
    return "" if options.guidance is None else f"classifier-free guidance, scale {options.guidance:g}"


def _default_target(run: str, name: str) -> Path:
    from scorefield.training import RunFolder

    folder = RunFolder(Path(run)).samples
    folder.mkdir(exist_ok=True)
    return folder / name


def _draw(
    model: Any, sampling: Sampling, n: int, seed: int, labels: list[int] | None, small: Dataset | None, shown: DataSpec | None
) -> tuple[Tensor, list[int] | None, list[Tensor]]:
    """Samples (n, *), their labels, and the states of the first block as uint8 images where `shown` says how to show them."""
    import torch

    from scorefield.samplers.blocks import sample_blocks

    parts: list[Tensor] = []
    frames: list[Tensor] = []
    chosen: list[int] = []
    with progress("sampling", -(-n // 64) * (len(sampling.grid) - 1)) as bar:
        every = max(1, (len(sampling.grid) - 1) // _FRAMES)

        def on_step(k: int, step: Any) -> None:
            bar.advance()
            if k == 0 and shown is not None and (bar.done % every == 0 or bar.done == len(sampling.grid) - 1):
                frames.append(shown.to_uint8(step.x[:n]).cpu())

        options: dict[str, Any] = {"labels": labels, "wrap": sampling.wrap, "start": sampling.start, "on_step": on_step}
        if small is not None:
            options["low_res"] = small.batch(torch.arange(len(small)))[0]
        for block in sample_blocks(model, sampling.sampler, sampling.grid, n, seed, **options):
            parts.append(block.x.cpu())
            chosen += block.labels or []
    return torch.cat(parts), chosen or None, frames


def _write(target: Path, spec: DataSpec, samples: Tensor, labels: list[int] | None, columns: int | None) -> None:
    from scorefield.data.pictures import are_images, save_images, save_points

    if are_images(spec.shape):
        save_images(target, spec.to_uint8(samples), labels, columns)
    else:
        save_points(target, samples, labels)


def class_labels(
    model: Denoiser | NoisyClassifier, label: list[str] | None, classifier: NoisyClassifier | None = None
) -> list[int] | None:
    """The classes that --label names, by number or name; all of them if not given.

    Those of the model, of the classifier where the model is unconditional, and None where it has no classifier either.
    """
    from scorefield.core.errors import InputError

    if not getattr(model, "num_classes", 0):
        if classifier is not None:
            return class_labels(classifier, label)
        if label:
            raise InputError("this model is unconditional: leave --label out, or guide it by a classifier (--classifier RUN)")
        return None
    if not label:
        return list(range(model.num_classes))
    return [_class_number(model, part.strip()) for entry in label for part in entry.split(",")]


def _class_number(model: Denoiser | NoisyClassifier, word: str) -> int:
    """The class of this name, or else of this number."""
    from scorefield.core.errors import InputError
    from scorefield.core.options import did_you_mean

    names = list(model.data.classes) if model.data is not None else []
    if word in names:
        return names.index(word)
    if word.isdecimal() and int(word) < model.num_classes:
        return int(word)
    raise InputError(
        f"there is no class {word!r}{did_you_mean(word, names)}; there are {', '.join(names[:20])} (0 … {model.num_classes - 1})"
    )
