"""scorefield plan"""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from scorefield.cli.console import print_json, print_table
from scorefield.cli.parameters import Allow, Json
from scorefield.planning import make_plan


def plan(
    what: Annotated[
        str, typer.Argument(metavar="RECIPE|RUN", help="A recipe's name or .toml file, or a run's folder.")
    ],
    devices: Annotated[int, typer.Option(min=1, help="Number of devices that share a batch.")] = 1,
    memory: Annotated[float | None, typer.Option(metavar="GiB", help="Memory of one device.")] = None,
    batch: Annotated[
        int | None,
        typer.Option(min=1, help="Examples per step, over all devices. Default: the recipe's."),
    ] = None,
    flops: Annotated[
        float | None,
        typer.Option(
            metavar="F",
            help="Sustained FLOP/s of one device. Default: measured on this machine with a few steps.",
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="cpu or cuda. Default: cuda for several devices, otherwise the device of this machine."
        ),
    ] = None,
    allow: Allow = None,
    as_json: Json = False,
) -> None:
    """Estimate the memory, FLOPs and time of training without training."""
    found = make_plan(what, devices, memory, batch, flops, device, allow or ())
    if as_json:
        print_json(dataclasses.asdict(found))
    else:
        print_table(("", found.name), found.rows())
