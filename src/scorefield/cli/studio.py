"""scorefield studio"""

from __future__ import annotations

import webbrowser
from importlib.util import find_spec
from typing import Annotated

import typer

from scorefield.cli.console import print_line, say
from scorefield.cli.parameters import ends_on_sigterm
from scorefield.data.sources.opener import ACCEPTED
from scorefield.runtime.errors import InputError

_NEEDED = ("starlette", "uvicorn")


def studio(
    runs: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN|FOLDER", help="Runs, or folders of runs. Default: runs."),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1. Default: a free one.")] = 0,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Refuse everything that starts, stops or writes.")
    ] = False,
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open a browser.")] = False,
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SRC",
            help=f"Data that the page may train on, beside the embedded data: {ACCEPTED}. Repeat the option for several.",
        ),
    ] = None,
) -> None:
    """Serve a page on this machine: sample, watch and start trainings, compare runs.

    It answers on 127.0.0.1 only, to who has the address that it prints. To use it from another machine, forward the
    port: ssh -L 8000:127.0.0.1:8000 HOST, then scorefield studio --no-open --port 8000 on HOST, and open the printed
    address. Ctrl-C ends it.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise InputError(
            f"the page needs {' and '.join(missing)}: install them with pip install 'scorefield[studio]'"
        )
    from scorefield.studio import serve  # which loads what was looked for

    def started(address: str) -> None:
        print_line(address)
        say("Ctrl-C ends it")
        if not no_open:
            webbrowser.open(address)

    with ends_on_sigterm():
        serve(runs or (), port, data or (), read_only, started)
