"""scorefield interpolate"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scorefield.cli import console
from scorefield.cli.console import print_json, say
from scorefield.cli.parameters import Allow, Device, Grid, Json, RunFolder, Steps
from scorefield.generation.ddim_latents import check_walk_target
from scorefield.runs.run import Run
from scorefield.runtime.errors import InputError
from scorefield.runtime.parsing import whole_number
from scorefield.runtime.reading import as_path

__all__ = ["interpolate"]

_END = "An image file or a seed. An integer is always a seed; write ./7 for a file named 7."


def interpolate(
    run: RunFolder,
    a: Annotated[str, typer.Argument(metavar="A", help=_END)],
    b: Annotated[str, typer.Argument(metavar="B", help="The other end: an image file or a seed.")],
    out: Annotated[Path, typer.Option(help="FILE.gif (an animation) or FILE.png (the frames in a grid).")],
    frames: Annotated[int, typer.Option(min=2, help="Number of frames, both ends included.")] = 10,
    label: Annotated[str | None, typer.Option(help="Class of all frames, by number or name.")] = None,
    steps: Steps = None,
    grid: Grid = None,
    device: Device = None,
    allow: Allow = None,
    as_json: Json = False,
) -> None:
    """Interpolate between two images by spherical interpolation of their DDIM latents.

    A seed means sample 0 of that seed, which has the first class unless --label gives another. Between
    images a class-conditional run needs one --label: both images are encoded and every frame is decoded with
    it, so that the two ends reproduce the images.

    From Python: sf.Run(RUN).interpolate(a, b, frames)
    """
    check_walk_target(out)
    walk = Run(run, allow or ()).interpolate(
        _end(a), _end(b), frames, label, steps=steps, grid=grid, device=device, progress=console
    )
    walk.save(out)
    say(
        f"wrote {out}: {frames} frames from {a} to {b}, {walk.steps} steps, cosine of the two latents {walk.cosine:.2f}"
    )
    if as_json:
        facts = {"out": str(out), "frames": frames, "steps": walk.steps, "label": walk.label}
        print_json({**facts, "weights": "ema", "cosine": walk.cosine})


def _end(word: str) -> int | Path:
    """A seed or a file."""
    seed = whole_number(word)
    if seed is not None:
        return seed
    path = as_path(word, "an image")
    if not path.exists():
        raise InputError(f"{word!r} is neither an image file nor a seed (an integer)")
    return path
