"""scorefield recipes"""

from __future__ import annotations

from typing import Annotated

import typer

from scorefield.cli.console import print_json, print_table
from scorefield.planning.facts import recipe_facts


def recipes(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List the recipes: paper, data shape, parameters."""
    facts = recipe_facts()
    if as_json:
        print_json({"recipes": facts})
        return
    rows = [
        (f["name"], f["title"], "×".join(map(str, f["shape"])), f"{f['parameters']:,}", f["paper"])
        for f in facts
    ]
    print_table(("recipe", "what", "data", "parameters", "paper"), rows)
