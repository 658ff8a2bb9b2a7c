"""scorefield export"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scorefield.cli.console import print_json, say
from scorefield.cli.parameters import Allow, Json, RunFolder, ends_on_sigterm
from scorefield.interop import diffusers
from scorefield.models.denoiser import Denoiser
from scorefield.runs.build import load, read_run
from scorefield.runtime.errors import InputError

TARGETS = ("diffusers",)


def export(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="diffusers.")],
    run: RunFolder,
    directory: Annotated[
        Path, typer.Argument(metavar="DIR", help="Output folder, which diffusers can load.")
    ],
    allow: Allow = None,
    as_json: Json = False,
) -> None:
    """Convert a run for other software. A model that the target cannot express exactly is refused, with the
    reason.
    """
    if target not in TARGETS:
        raise InputError(f"unknown target {target!r}: use {', '.join(TARGETS)}")
    model = load(run, kind=Denoiser, allow=allow or ())
    with ends_on_sigterm():
        notes = diffusers.export(model, directory, read_run(run)[0].sampling)
    for note in notes:
        say(f"note: {note}")
    say(f"wrote {directory}: {sum(p.numel() for p in model.parameters()):,} parameters of {run}")
    if as_json:
        print_json({"directory": str(directory), "notes": notes})
