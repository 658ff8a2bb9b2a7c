"""scorefield encode and scorefield decode"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scorefield.cli import console
from scorefield.cli.console import print_json, say
from scorefield.cli.parameters import Allow, Device, Grid, Json, RunFolder, Steps
from scorefield.generation.ddim_latents import AT_ONCE
from scorefield.runs.run import Run
from scorefield.store.file_store import check_new_folder
from scorefield.store.latent_file import check_latents_target
from scorefield.store.outputs import is_folder_name
from scorefield.store.writers import check_target

__all__ = ["decode", "encode"]


def encode(
    run: RunFolder,
    images: Annotated[
        Path,
        typer.Argument(
            metavar="IMAGES",
            help="An .npz with `images`, an image file or a folder of images; larger images are resized and cropped as in "
            "training.",
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE.npz",
            help="Output file: the latents, and the grid and labels needed to decode them.",
        ),
    ],
    label: Annotated[
        list[str] | None,
        typer.Option(
            help="Class by number or name; repeat the option or separate by commas. Cycled over the images. Default: "
            "the images' own labels."
        ),
    ] = None,
    steps: Steps = None,
    grid: Grid = None,
    device: Device = None,
    allow: Allow = None,
    as_json: Json = False,
) -> None:
    """Encode images as latents x_T by DDIM with η = 0 from data to noise; the run decodes them to these images.

    More --steps give a smaller reconstruction error. x̂0 is not clipped, there is no guidance, and the
    network runs in fp32.

    From Python: sf.Run(RUN).encode(images)
    """
    check_latents_target(out)
    found = Run(run, allow or ()).encode(
        images,
        label,
        steps=steps,
        grid=grid,
        check=AT_ONCE,
        device=device,
        progress=console,
    )
    found.save(out)
    n = len(found.latents)
    which = "" if n <= AT_ONCE else f" of the first {AT_ONCE}"
    error = found.reconstruction_mse
    say(
        f"wrote {out}: {n} latents; reconstruction error{which} {error:.1e} (mean squared error per pixel in "
        "[0, 1])"
    )
    if as_json:
        facts = {"out": str(out), "n": n, "steps": found.steps, "labels": found.labels, "weights": "ema"}
        print_json({**facts, "reconstruction_mse": error, "reconstructed": min(n, AT_ONCE)})


def decode(
    run: RunFolder,
    file: Annotated[
        Path, typer.Argument(metavar="FILE.npz", help="Latents that `scorefield encode` made with this run.")
    ],
    out: Annotated[
        Path,
        typer.Option(help="FILE.png (a grid), FILE.npz (arrays) or a new or empty folder (one PNG each)."),
    ],
    device: Device = None,
    allow: Allow = None,
    as_json: Json = False,
) -> None:
    """Decode latents to images, with the grid and the labels that they were encoded with.

    From Python: sf.Run(RUN).decode(latents)
    """
    check_target(out)
    if is_folder_name(out):
        check_new_folder(out)
    source = Run(run, allow or ())
    latents = source.latents(file)
    images = source.decode(latents, device=device, progress=console)
    images.save(out)
    say(f"wrote {out}: {len(images)} images from {file}, {latents.steps} steps")
    if as_json:
        facts = {"out": str(out), "n": len(images), "steps": latents.steps, "labels": latents.labels}
        print_json({**facts, "weights": "ema"})
