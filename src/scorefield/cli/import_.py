"""scorefield import"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scorefield.cli.console import print_json, say
from scorefield.cli.parameters import Json, ends_on_sigterm
from scorefield.interop.flags import parse_flags
from scorefield.interop.importing import import_run


def import_(
    origin: Annotated[
        str,
        typer.Argument(
            metavar="ORIGIN", help="guided-diffusion, improved-diffusion, ddpm, ncsn or diffusers."
        ),
    ],
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A checkpoint: .pt, .pth, .ckpt, .bin or .safetensors; for diffusers, its folder.",
        ),
    ],
    run: Annotated[Path, typer.Option(help="Output run folder.")],
    card: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Take the flags of this published checkpoint (its file name)."),
    ] = None,
    flags: Annotated[
        list[str] | None,
        typer.Option(
            metavar='"A=B …"',
            help='The original scripts\' flags, also as they take them: "--image_size 64 …". With --card, in place of its own.',
        ),
    ] = None,
    classifier: Annotated[
        bool, typer.Option("--classifier", help="The file is a classifier (guided-diffusion).")
    ] = False,
    as_json: Json = False,
) -> None:
    """Convert a published checkpoint to a run. Files that would run code when loaded are refused."""
    with ends_on_sigterm():
        imported = import_run(
            origin, file, run, card=card, flags=parse_flags(flags or []), classifier=classifier
        )
    for note in imported.notes:
        say(f"note: {note}")
    parameters = sum(p.numel() for p in imported.model.parameters())
    say(f"wrote {run}: {parameters:,} parameters of {imported.source}")
    if as_json:
        print_json(
            {"run": str(run), "name": imported.name, "parameters": parameters, "notes": list(imported.notes)}
        )
