"""The command: parse, call, say. A command's module is imported only when that command runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from scorefield import __version__
from scorefield.cli.console import complain, print_line, speaking
from scorefield.cli.malloc import keep_memory
from scorefield.runtime.errors import ScorefieldError
from scorefield.runtime.free_memory import is_out_of_memory
from scorefield.runtime.reading import as_path

__all__ = ["COMMANDS", "app", "main"]

_INTERRUPTED = 130

# typer brings its own copy of click since 0.20, so the base of all usage errors is found through a public
# name.
_UsageError: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")

# Name: (module:function, what `scorefield --help` says of it, at most 45 characters).
COMMANDS = {
    "recipes": ("recipes:recipes", "List the recipes, or print one"),
    "options": ("options:options", "What --set and recipes accept"),
    "info": ("info:info", "Model size, FLOPs and noise levels"),
    "train": ("train:train", "Train a model: make a run, or resume one"),
    "sample": ("sample:sample", "Generate samples from a run"),
    "encode": ("encode:encode", "Encode images as DDIM latents"),
    "decode": ("encode:decode", "Decode latents to images"),
    "interpolate": ("interpolate:interpolate", "Interpolate between two images"),
    "evaluate": ("evaluate:evaluate", "Compute metrics of a run"),
    "plot": ("plot:plot", "Plot data, samples and training of a run"),
    "studio": ("studio:studio", "Serve a page: sample, train, compare"),
    "plan": ("plan:plan", "Estimate memory and time of training"),
    "import": ("import_:import_", "Convert a published checkpoint to a run"),
    "ema": ("average:ema", "Average weights over another length"),
    "export": ("export:export", "Convert a run for other software"),
}


def _at_home(value: Any) -> Any:
    """A path, or several, with ~ as the home folder, which a shell leaves in --out=~/samples and in quotes."""
    if isinstance(value, Path):
        return as_path(value, "a file")
    return type(value)(map(_at_home, value)) if isinstance(value, list | tuple) else value


def _interruptible(command: Callable[..., Any]) -> Callable[..., Any]:
    """The command with paths as `_at_home` gives them, and a word on Ctrl-C, which typer turns into an exit status
    without one.
    """

    @wraps(command)
    def run(*arguments: Any, **options: Any) -> Any:
        try:
            return command(*arguments, **{name: _at_home(value) for name, value in options.items()})
        except KeyboardInterrupt:
            complain("interrupted")
            raise typer.Exit(_INTERRUPTED) from None

    return run


class _LazyGroup(TyperGroup):
    """The commands by their names; the module of one is imported when it is to run."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, _, rest = super().resolve_command(ctx, args)
        return name, _command(str(name)), rest


def _command(name: str) -> Any:
    module, _, function = COMMANDS[name][0].partition(":")
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command(name)(_interruptible(getattr(import_module(f"scorefield.cli.{module}"), function)))
    return typer.main.get_command(single)


app = typer.Typer(
    name="scorefield",
    cls=_LazyGroup,
    help="Score-based generative models: train, sample and evaluate them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _not_imported() -> None:
    """Stands for a command in the list of commands."""


for _name, (_, _summary) in COMMANDS.items():
    app.command(_name, short_help=_summary)(_not_imported)


@app.callback(invoke_without_command=True)
def _version(version: bool = typer.Option(False, "--version", help="Print the version and exit.")) -> None:
    if version:
        print_line(__version__)
        raise typer.Exit


def main(arguments: list[str] | None = None) -> None:
    """Run the command; mistakes of the user become one line on stderr and an exit status other than 0."""
    keep_memory()
    with speaking():
        sys.exit(_status(arguments))


def _status(arguments: list[str] | None) -> int:
    try:
        return app(arguments, standalone_mode=False) or 0
    except typer.Exit as stop:
        return stop.exit_code
    except _UsageError as error:
        complain(error.format_message())
        return int(error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        complain("interrupted")
        return _INTERRUPTED
    except ScorefieldError as error:
        complain(f"{error} ({error.command})" if error.command else str(error))
    except OSError as error:
        complain(f"{error.filename or 'a file'}: {error.strerror or error}")
    except (MemoryError, RuntimeError) as error:
        complain(_explained(error))
    return 1


def _explained(error: MemoryError | RuntimeError) -> str:
    """A sentence on an error of the machine; any other is raised again."""
    if is_out_of_memory(error):
        return (
            "not enough memory: use a smaller network or smaller images; for training, a smaller "
            "training.batch_size or a larger training.accumulation also helps (`scorefield plan RECIPE` "
            "estimates the memory)"
        )
    from scorefield.runtime.distributed import lost_process  # which loads torch

    if lost := lost_process(
        error, "restart all processes with the same command; add --resume to continue training"
    ):
        return str(lost)
    raise error
