"""Guided samples over the density that guidance names."""

import pytest
import torch

import scorefield as sf

MIXTURE = sf.oracle.GaussianMixture([[-1.0, 0.0], [1.0, 0.0]], [[[0.5, 0.0], [0.0, 0.5]]] * 2)


def test_a_panel_a_scale_with_its_points():
    samples = {scale: torch.full((7, 2), scale) for scale in (0.0, 1.0, 4.0)}
    figure = sf.plots.draw_guided_mixture(MIXTURE, 1, samples)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["s = 0", "s = 1", "s = 4"]
    assert figure.axes[2].lines[0].get_xdata().tolist() == [4.0] * 7


def test_what_does_not_fit_is_refused():
    with pytest.raises(sf.InputError, match="y, the component"):
        sf.plots.draw_guided_mixture(MIXTURE, 2, {1.0: torch.zeros(3, 2)})
    with pytest.raises(sf.InputError, match=r"\(N, 2\), got shape"):
        sf.plots.draw_guided_mixture(MIXTURE, 1, {1.0: torch.zeros(3, 3)})
    line = sf.oracle.GaussianMixture([[0.0]], [[[1.0]]])
    with pytest.raises(sf.InputError, match="two dimensions, this one has 1"):
        sf.plots.draw_guided_mixture(line, 0, {1.0: torch.zeros(3, 1)})
