"""How every figure of the project looks, and how it is written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from scorefield.runtime.atomic import atomic_write, drop_abandoned
from scorefield.runtime.checks import unwritable
from scorefield.runtime.printable import printable
from scorefield.store.outputs import MARK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from scorefield.plots.notebook_figure import NotebookFigure

__all__ = ["ACCENT", "DARK", "SERIES", "drawable", "new_figure", "plot_style", "save_figure"]

DARK, ACCENT = "#1b2a41", "#d1495b"

# Colour and line of each curve of a panel, told apart by lightness and dashes as well as by hue.
SERIES = ((DARK, "-"), (ACCENT, "--"), ("#e09f3e", "-."), ("#5fa8d3", ":"))


@contextmanager
def plot_style() -> Iterator[None]:
    """The settings of every figure of this project, for as long as the block runs."""
    import matplotlib

    settings: Any = {
        "font.size": 10,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": "0.5",
        "xtick.color": "0.35",
        "ytick.color": "0.35",
        "legend.frameon": False,
    }
    with matplotlib.rc_context(settings):
        yield


def new_figure(
    width: float,
    height: float,
    layout: Literal["compressed", "constrained"] | None = "compressed",
    dpi: float | None = None,
) -> NotebookFigure:
    """An empty figure, inches wide and high, that a notebook shows.

    Args:
        width: In inches.
        height: In inches.
        layout: matplotlib's layout engine; "compressed" for panels of a fixed aspect, None for none.
        dpi: Pixels per inch of `savefig`. Default: matplotlib's.
    """
    from scorefield.plots.notebook_figure import NotebookFigure

    return NotebookFigure(figsize=(width, height), layout=layout, dpi=dpi)


def drawable(text: str) -> str:
    """A line that may hold foreign text, such as a run's name: controls are escaped, and no dollar begins a
    formula.
    """
    return printable(text).replace("$", r"\$")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG. InputError where the file cannot be written."""
    drop_abandoned(path)
    try:
        with atomic_write(path) as partial:
            figure.savefig(partial, format="png", dpi=110, metadata={"Software": None, "Comment": MARK})
    except OSError as error:
        raise unwritable(path, error) from None
