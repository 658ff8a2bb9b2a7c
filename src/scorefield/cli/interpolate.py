"""scorefield interpolate"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scorefield.cli.console import print_json, say
from scorefield.cli.encode import decoded, encoded, flow_grid, load_flow
from scorefield.cli.labels import class_labels
from scorefield.cli.parameters import Device, Grid, Json, Run, Steps

if TYPE_CHECKING:
    from torch import Tensor

    from scorefield.core.shapes import DataSpec
    from scorefield.models.denoiser import Denoiser

__all__ = ["interpolate"]

_END = "A picture of the run's size, or a seed: a whole number is always a seed, so a file called 7 is written ./7."
_WIDEST = 16  # frames in a row of a .png


def interpolate(
    run: Run,
    a: Annotated[str, typer.Argument(metavar="A", help=_END)],
    b: Annotated[str, typer.Argument(metavar="B", help="The other end, likewise.")],
    out: Annotated[Path, typer.Option(help="FILE.gif (an animation) or FILE.png (the frames in a grid).")],
    frames: Annotated[int, typer.Option(min=2, help="How many, both ends included.")] = 10,
    label: Annotated[str | None, typer.Option(help="The class of the whole walk, by number or name.")] = None,
    steps: Steps = None,
    grid: Grid = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Walk from one image to another through their latents, along the sphere that noise lies on.

    A seed stands for sample 0 of that seed. A class-conditional run needs one --label: both pictures are
    encoded and every frame is decoded under it, so that the ends are the pictures, whatever they show.
    """
    import torch

    from scorefield.samplers.latents import spherical_walk
    from scorefield.store.writers import save_animation, save_images

    _check_out(out)
    recipe, spec, model = load_flow(run, device)
    chosen = _label(model, label)
    times = flow_grid(recipe, model, steps, grid)
    start, end = (_latent(word, model, spec, chosen, times) for word in (a, b))
    latents = spherical_walk(start, end, frames, model.process.prior_mean)
    images = spec.to_uint8(
        decoded(model, latents, None if chosen is None else [chosen] * frames, times, "decoding")
    )
    if out.suffix.lower() == ".gif":
        save_animation(out, list(images.split(1)))
    else:
        save_images(out, images, columns=min(frames, _WIDEST))
    cosine = float(torch.cosine_similarity(start.flatten(), end.flatten(), dim=0))
    say(
        f"wrote {out}: {frames} frames from {a} to {b}, {len(times) - 1} steps, cosine of the two latents {cosine:.2f}"
    )
    if as_json:
        facts = {
            "out": str(out),
            "frames": frames,
            "steps": len(times) - 1,
            "label": chosen,
            "weights": "ema",
        }
        print_json({**facts, "cosine": cosine})


def _check_out(out: Path) -> None:
    from scorefield.runtime.errors import InputError
    from scorefield.store.writers import check_animation, check_target

    if out.suffix.lower() == ".gif":
        check_animation(out)
    elif out.suffix.lower() == ".png":
        check_target(out)
    else:
        raise InputError(f"{out}: a walk is written as .gif (an animation) or .png (the frames in a grid)")


def _label(model: Denoiser, label: str | None) -> int | None:
    """The class of the walk; None for an unconditional run. InputError unless a conditional one is given one
    class.
    """
    from scorefield.runtime.errors import InputError

    chosen = class_labels(model, None if label is None else [label])
    if chosen is None:
        return None
    if label is None or len(chosen) != 1:
        raise InputError("this run is class-conditional: name the one class of the walk by --label")
    return chosen[0]


def _latent(word: str, model: Denoiser, spec: DataSpec, label: int | None, grid: Tensor) -> Tensor:
    """x_T of one end: of sample 0 of a seed, or of a picture."""
    import torch

    from scorefield.core.noise import NoiseSource
    from scorefield.data.user_images import images_of
    from scorefield.runtime.errors import InputError
    from scorefield.runtime.parsing import whole_number

    seed = whole_number(word)
    if seed is not None:
        return model.process.prior((1, *spec.shape), NoiseSource(seed).at(0))[0]
    if not Path(word).exists():
        raise InputError(f"{word!r} is neither a file nor a seed (a whole number): give one of them")
    data = images_of(word, spec)
    if len(data) != 1:
        raise InputError(f"{word} holds {len(data)} images, and an end of the walk is one: give one picture")
    x0 = data.batch(torch.arange(1))[0]
    return encoded(model, x0, None if label is None else [label], grid)[0]
