"""scorefield plot"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from scorefield.cli.console import print_json, say
from scorefield.cli.parameters import Json, RunFolder


def plot(
    run: RunFolder,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Where to; into the run's figures/ if not given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw a run. Points of the plane: data, samples, score field and paths. Other data: the curve of
    training.
    """
    from scorefield.plots.run_figures import plot_run

    say(f"drawing {run}")
    target = plot_run(run, out)
    if as_json:
        print_json({"figure": str(target)})
    else:
        print(target)
