"""scorefield sample"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scorefield.cli.console import print_json, progress, say
from scorefield.cli.options import Device, Eta, Grid, Json, Run, SamplerName, Seed, Settings, Steps, Variance, sampling_options

if TYPE_CHECKING:
    from torch import Tensor

    from scorefield.config import Sampling
    from scorefield.core.shapes import DataSpec
    from scorefield.denoiser import Denoiser


_FRAMES = 100  # of an animation, at the most


def sample(
    run: Run,
    n: Annotated[int, typer.Option("-n", min=1, help="How many.")] = 64,
    sampler: SamplerName = None,
    steps: Steps = None,
    grid: Grid = None,
    eta: Eta = None,
    variance: Variance = None,
    settings: Settings = None,
    label: Annotated[
        list[str] | None, typer.Option(help="Class by number or name; repeat it or use commas. All classes in turn if not given.")
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
    model = load(run).to(pick_device(device))
    model.autocast_dtype = autocast_dtype(recipe.training.precision, model.device)
    labels = class_labels(model, label)
    sampling = build_sampling(sampling_options(recipe, sampler, steps, grid, eta, variance, settings), model)
    target = out or _default_target(run, f"seed-{seed}-n-{n}{'.png' if are_images(spec.shape) else '.npz'}")
    check_target(target, spec.shape)
    if trajectory is not None:
        check_animation(trajectory, spec.shape)
    calls = sampling.sampler.calls(sampling.grid.tolist())
    precision = "bf16" if model.autocast_dtype else "fp32"
    say(f"{run}: EMA weights, {sampling.sampler}, {calls} network calls, seed {seed}, {precision}")
    start = time.perf_counter()
    samples, chosen, frames = _draw(model, sampling, n, seed, labels, spec if trajectory is not None else None)
    seconds = time.perf_counter() - start
    columns = len(labels) if labels is not None and 1 < len(labels) <= 20 else None
    _write(target, spec, samples, chosen, columns)
    if trajectory is not None:
        save_animation(trajectory, frames, columns)
        say(f"wrote {trajectory}")
    say(f"wrote {target}: {n} samples in {seconds:.1f} s ({n / seconds:,.1f} a second)")
    if as_json:
        facts = {"out": str(target), "n": n, "seed": seed, "sampler": str(sampling.sampler), "calls": calls}
        print_json({**facts, "weights": "ema", "seconds": round(seconds, 3)})


def _default_target(run: str, name: str) -> Path:
    from scorefield.training import RunFolder

    folder = RunFolder(Path(run)).samples
    folder.mkdir(exist_ok=True)
    return folder / name


def _draw(
    model: Any, sampling: Sampling, n: int, seed: int, labels: list[int] | None, shown: DataSpec | None
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


def class_labels(model: Denoiser, label: list[str] | None) -> list[int] | None:
    """The classes that --label names, by number or name; all of them if not given; None for an unconditional model."""
    from scorefield.core.errors import InputError
    from scorefield.core.options import did_you_mean

    if not getattr(model, "num_classes", 0):
        if label:
            raise InputError("this model is unconditional: leave --label out")
        return None
    names = list(model.data.classes) if model.data is not None else []
    if not label:
        return list(range(model.num_classes))
    chosen = []
    for word in (part.strip() for entry in label for part in entry.split(",")):
        if word in names:
            chosen.append(names.index(word))
        elif word.isdecimal() and int(word) < model.num_classes:
            chosen.append(int(word))
        else:
            raise InputError(
                f"there is no class {word!r}{did_you_mean(word, names)}; there are {', '.join(names[:20])} (0 … {model.num_classes - 1})"
            )
    return chosen
