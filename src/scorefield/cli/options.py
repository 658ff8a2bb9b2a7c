"""scorefield options"""

from __future__ import annotations

from typing import Annotated

import typer

from scorefield.cli.console import print_json, print_line, print_table
from scorefield.cli.parameters import Json
from scorefield.runs.settings import sections, settings_of


def options(
    section: Annotated[
        str | None,
        typer.Argument(
            metavar="SECTION", help="training, net.unet, process.cosine, …. Default: list the sections."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the settings of recipes and --set: name, type, default and description.

    A section with several kinds, such as net, lists these; `scorefield options net.unet` lists the settings
    of one.
    """
    if section is None:
        known = sections()
        if as_json:
            print_json({"sections": known})
        else:
            print_table(("section", "what"), known.items())
        return
    found = settings_of(section)
    if as_json:
        print_json({"section": section, "options": [setting._asdict() for setting in found]})
    elif not found:
        print_line(f"{section} has no options")
    else:
        print_table(("name", "type", "default", "what"), found)
