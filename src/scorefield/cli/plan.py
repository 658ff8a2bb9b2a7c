"""scorefield plan"""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from scorefield.cli.console import print_json, print_table
from scorefield.cli.parameters import Json
from scorefield.planning import make_plan


def plan(
    what: Annotated[
        str, typer.Argument(metavar="RECIPE|RUN", help="A recipe's name or .toml file, or a run's folder.")
    ],
    devices: Annotated[int, typer.Option(min=1, help="How many devices share a batch.")] = 1,
    memory: Annotated[float | None, typer.Option(metavar="GiB", help="Memory of one device.")] = None,
    batch: Annotated[
        int | None,
        typer.Option(min=1, help="Examples a step, over all devices; the recipe's own if not given."),
    ] = None,
    flops: Annotated[
        float | None,
        typer.Option(
            metavar="F", help="FLOP/s that one device sustains; measured here by a few steps if not given."
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="cpu or cuda; cuda for several devices, otherwise the one found here.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Memory, FLOPs and time of training, before they are spent."""
    found = make_plan(what, devices, memory, batch, flops, device)
    if as_json:
        print_json(dataclasses.asdict(found))
    else:
        print_table(("", found.name), found.rows())
