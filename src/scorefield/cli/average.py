"""scorefield ema"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scorefield.cli.console import print_json, say
from scorefield.cli.parameters import Json, RunFolder, ends_on_sigterm
from scorefield.runs.averaging import average_run
from scorefield.runs.opened import OpenedRun


def ema(
    run: RunFolder,
    length: Annotated[
        float,
        typer.Option(
            metavar="L",
            help="Relative width σ_rel of the average, from 0.001 to 0.2886.",
        ),
    ],
    new: Annotated[Path, typer.Option("--run", metavar="NEW", help="Output run folder.")],
    step: Annotated[
        int | None,
        typer.Option(min=1, help="Step of the average. Default: the last step of which averages are stored."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a run whose weights are a power-function average of another length.

    RUN was trained with --set training.ema_profiles=[0.05,0.1], which stores averages every training.ema_every steps.
    The new average is the least-squares combination of them. A stored length at a stored step gives the stored average
    itself.

    From Python: sf.Run(RUN).average(0.1, "NEW")
    """
    with ends_on_sigterm():
        done = average_run(OpenedRun(run), length, new, step)
    say(
        f"wrote {done.run}: average of length {done.length:g} at step {done.step:,}, from {done.stored} stored averages; "
        f"its profile differs by {done.error:.2%}"
    )
    if as_json:
        print_json(
            {
                "run": str(done.run),
                "length": done.length,
                "step": done.step,
                "stored": done.stored,
                "error": done.error,
            }
        )
