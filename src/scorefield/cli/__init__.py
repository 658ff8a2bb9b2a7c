"""The command: parse, build, call. What it calls lives in the library; heavy imports wait until a command
needs them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import typer

from scorefield.cli import (
    encode,
    evaluate,
    export,
    import_,
    info,
    interpolate,
    plan,
    plot,
    recipes,
    sample,
    train,
)
from scorefield.cli.console import complain
from scorefield.cli.malloc import keep_memory

__all__ = ["app", "main"]

_INTERRUPTED = 130
_NO_MEMORY = ("out of memory", "can't allocate memory")  # as torch says it

# typer brings its own copy of click since 0.20, so the base of all usage errors is found through a public
# name.
_UsageError: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")

app = typer.Typer(
    name="scorefield",
    help="Score-based generative models: train, sample and judge them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _interruptible(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with a word on Ctrl-C, which typer turns into an exit status without one."""

    @wraps(command)
    def run(*arguments: Any, **options: Any) -> Any:
        try:
            return command(*arguments, **options)
        except KeyboardInterrupt:
            complain("interrupted")
            raise typer.Exit(_INTERRUPTED) from None

    return run


_COMMANDS: dict[str, Callable[..., Any]] = {
    "recipes": recipes.recipes,
    "info": info.info,
    "train": train.train,
    "sample": sample.sample,
    "encode": encode.encode,
    "decode": encode.decode,
    "interpolate": interpolate.interpolate,
    "evaluate": evaluate.evaluate,
    "plot": plot.plot,
    "plan": plan.plan,
    "import": import_.import_,
    "export": export.export,
}
for _name, _command in _COMMANDS.items():
    app.command(_name)(_interruptible(_command))


@app.callback(invoke_without_command=True)
def _version(version: bool = typer.Option(False, "--version", help="Print the version and stop.")) -> None:
    if version:
        from scorefield import __version__

        print(__version__)
        raise typer.Exit


def main(arguments: list[str] | None = None) -> None:
    """Run the command; mistakes of the user become one line on stderr and an exit status other than 0."""
    from scorefield.runtime.errors import ScorefieldError

    keep_memory()
    try:
        status = app(arguments, standalone_mode=False)
    except typer.Exit as stop:
        status = stop.exit_code
    except _UsageError as error:
        complain(error.format_message())
        status = error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        complain("interrupted")
        status = _INTERRUPTED
    except ScorefieldError as error:
        complain(str(error))
        status = 1
    except OSError as error:
        complain(f"{error.filename or 'a file'}: {error.strerror or error}")
        status = 1
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(text in str(error) for text in _NO_MEMORY):
            raise
        complain(
            "there is not enough memory for this: take a smaller network or smaller images; training also fits with a smaller "
            "training.batch_size, or cut into training.accumulation parts (`scorefield plan RECIPE` says what it needs)"
        )
        status = 1
    sys.exit(status or 0)
