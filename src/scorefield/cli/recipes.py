"""scorefield recipes"""

from __future__ import annotations

from typing import Annotated

import typer

from scorefield.cli.console import print_json, print_table, print_text
from scorefield.cli.parameters import Json
from scorefield.planning.facts import recipe_facts
from scorefield.runs.recipe import read_recipe, recipe_text


def recipes(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Print this recipe as TOML.")] = None,
    as_json: Json = False,
) -> None:
    """List the recipes: paper, data shape, parameters; or print the TOML of one.

    To change a recipe, edit a copy: scorefield recipes digits > mine.toml; scorefield train mine.toml
    """
    if name is not None:
        if as_json:
            print_json(read_recipe(name).model_dump(exclude_none=True))
        else:
            print_text(recipe_text(name))
        return
    facts = recipe_facts()
    if as_json:
        print_json({"recipes": facts})
        return
    rows = [
        (f["name"], f["title"], "×".join(map(str, f["shape"])), f"{f['parameters']:,}", f["paper"])
        for f in facts
    ]
    print_table(("recipe", "what", "data", "parameters", "paper"), rows)
