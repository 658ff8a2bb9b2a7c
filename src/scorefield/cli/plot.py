"""scorefield plot"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scorefield.cli.console import print_json, print_line, say
from scorefield.cli.parameters import Allow, Json, RunFolder
from scorefield.plots.run_figures import plot_run
from scorefield.runs.run import Run


def plot(
    run: RunFolder,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE.png", help="Output file. Default: a file in the run's figures/ folder."),
    ] = None,
    figure: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="plane, training, noising, steps or variances. Default: plane or training."
        ),
    ] = None,
    allow: Allow = None,
    as_json: Json = False,
) -> None:
    """Plot a run: for two-dimensional points the data, samples, score field and sampling paths, for other
    data the training curve.
    """
    say(f"drawing {run}")
    target = plot_run(Run(run, allow or ()), out, figure)
    if as_json:
        print_json({"figure": str(target)})
    else:
        print_line(str(target))
