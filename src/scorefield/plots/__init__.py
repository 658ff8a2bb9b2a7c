"""Figures of runs, of evaluations, and of the ideas of each paper. Every `draw_` function returns a matplotlib
Figure, which a notebook shows as the value of a cell; `figure.savefig(path)` writes it.
"""

from scorefield.plots.evaluation_figures import draw_accuracy, draw_bound, draw_guidance
from scorefield.plots.guided_mixture import draw_guided_mixture
from scorefield.plots.image_figures import draw_step_counts
from scorefield.plots.image_sheets import draw_guidance_scales, draw_images, draw_walks
from scorefield.plots.network_figures import draw_network_costs
from scorefield.plots.plane_figures import draw_fields, draw_paths, draw_points
from scorefield.plots.process_figures import (
    draw_loss_weights,
    draw_noising,
    draw_terms,
    draw_time_shares,
    draw_variances,
)
from scorefield.plots.run_figures import plot_run

__all__ = [
    "draw_accuracy",
    "draw_bound",
    "draw_fields",
    "draw_guidance",
    "draw_guidance_scales",
    "draw_guided_mixture",
    "draw_images",
    "draw_loss_weights",
    "draw_network_costs",
    "draw_noising",
    "draw_paths",
    "draw_points",
    "draw_step_counts",
    "draw_terms",
    "draw_time_shares",
    "draw_variances",
    "draw_walks",
    "plot_run",
]
