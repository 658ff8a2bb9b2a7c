"""scorefield sample"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scorefield.cli.console import print_json, progress, say
from scorefield.cli.options import Device, Eta, Grid, Json, Run, SamplerName, Seed, Steps, Variance, sampling_options

if TYPE_CHECKING:
    from scorefield.denoiser import Denoiser


def sample(
    run: Run,
    n: Annotated[int, typer.Option("-n", min=1, help="How many.")] = 64,
    sampler: SamplerName = None,
    steps: Steps = None,
    grid: Grid = None,
    eta: Eta = None,
    variance: Variance = None,
    label: Annotated[list[str] | None, typer.Option(help="Class by number or name; repeat it or use commas. All classes in turn if not given.")] = None,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="FILE.png (a grid), FILE.npz (arrays) or a folder (one PNG each).")] = None,
    trajectory: Annotated[Path | None, typer.Option(metavar="FILE.gif", help="Show the denoising of the first images.")] = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Sample a run with its averaged (EMA) weights."""
    import torch

    from scorefield.config import build_sampling, load, read_run
    from scorefield.core.compute import autocast_dtype, pick_device
    from scorefield.data.pictures import check_target, save_animation, save_images
    from scorefield.samplers.blocks import sample_blocks
    from scorefield.training import RunFolder

    recipe, spec = read_run(run)
    model = load(run).to(pick_device(device))
    model.autocast_dtype = autocast_dtype(recipe.training.precision, model.device)
    labels = class_labels(model, label)
    options = sampling_options(recipe.sampling, sampler, steps, grid, eta, variance)
    chosen, times, wrap = build_sampling(options, model)
    target = out or RunFolder(Path(run)).samples / f"seed-{seed}-n-{n}.png"
    if out is None:
        target.parent.mkdir(exist_ok=True)
    check_target(target)
    calls, blocks = chosen.calls(times.tolist()), -(-n // 64)
    say(f"{run}: EMA weights, {chosen}, {calls} network calls, seed {seed}, {'bf16' if model.autocast_dtype else 'fp32'}")
    frames: list[torch.Tensor] = []
    start, images, chosen_labels = time.perf_counter(), [], []
    with progress("sampling", blocks * (len(times) - 1)) as bar:

        def on_step(k: int, step: Any) -> None:
            bar.advance()
            if k == 0 and trajectory is not None:
                frames.append(spec.to_uint8(step.x[:n]).cpu())

        for block in sample_blocks(model, chosen, times, n, seed, labels=labels, wrap=wrap, on_step=on_step):
            images.append(spec.to_uint8(block.x).cpu())
            chosen_labels += block.labels or []
    seconds = time.perf_counter() - start
    columns = len(labels) if labels is not None and 1 < len(labels) <= 20 else None
    save_images(target, torch.cat(images), chosen_labels or None, columns)
    if trajectory is not None:
        save_animation(trajectory, frames, columns)
        say(f"wrote {trajectory}")
    say(f"wrote {target}: {n} images in {seconds:.1f} s ({n / seconds:,.1f} images/s)")
    if as_json:
        print_json({"out": str(target), "n": n, "seed": seed, "sampler": str(chosen), "calls": calls, "weights": "ema", "seconds": round(seconds, 3)})


def class_labels(model: Denoiser, label: list[str] | None) -> list[int] | None:
    """The classes that --label names, by number or name; all of them if not given; None for an unconditional model."""
    from scorefield.core.errors import InputError
    from scorefield.core.options import did_you_mean

    if not model.num_classes:
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
            raise InputError(f"there is no class {word!r}{did_you_mean(word, names)}; there are {', '.join(names[:20])} (0 … {model.num_classes - 1})")
    return chosen
