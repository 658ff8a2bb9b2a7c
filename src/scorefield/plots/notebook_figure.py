"""A matplotlib Figure that a notebook shows without pyplot."""

from __future__ import annotations

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ["NotebookFigure"]

_DPI = 144


class NotebookFigure(Figure):
    """A Figure outside pyplot: nothing has to be closed, and a notebook shows it as the value of a cell."""

    def _repr_png_(self) -> bytes:
        """The picture, as notebooks ask for it."""
        picture = io.BytesIO()
        own = self.dpi
        self.set_dpi(_DPI)
        FigureCanvasAgg(self).print_png(picture)
        self.set_dpi(own)
        return picture.getvalue()
