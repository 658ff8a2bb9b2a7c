"""Figures of runs, of evaluations, and of the ideas of each paper. Every `draw_` function returns a matplotlib
Figure, which a notebook shows as the value of a cell; `figure.savefig(path)` writes it.
"""

from scorefield.plots.evaluation_figures import draw_accuracy, draw_bound, draw_guidance
from scorefield.plots.run_figures import plot_run

__all__ = ["draw_accuracy", "draw_bound", "draw_guidance", "plot_run"]
