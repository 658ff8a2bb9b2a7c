"""scorefield info"""

from __future__ import annotations

from typing import Annotated

import typer

from scorefield.cli.console import print_json, print_table
from scorefield.cli.parameters import Allow, Json
from scorefield.planning.facts import info_facts, info_rows


def info(
    what: Annotated[
        str, typer.Argument(metavar="RECIPE|RUN", help="A recipe's name or .toml file, or a run's folder.")
    ],
    allow: Allow = None,
    as_json: Json = False,
) -> None:
    """Parameters, FLOPs, noise levels, and the training data of a run. No weights are allocated."""
    facts = info_facts(what, allow or ())
    if as_json:
        print_json(facts)
    else:
        print_table(("", facts["name"]), info_rows(facts))
