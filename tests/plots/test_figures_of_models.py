"""The figures of sf.plots: what they draw, by the numbers in their curves, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.quiver import Quiver

import scorefield as sf

P = sf.process.linear(50, 0.002, 0.3)
COSINE = sf.process.cosine(50)
MIXTURE = sf.oracle.GaussianMixture([[-2.0, -1.0], [1.5, 1.5]], 0.4 * torch.eye(2).expand(2, 2, 2))
POINTS = MIXTURE.sample(200, sf.NoiseSource(0))
IMAGES = sf.data.digits().batch(torch.arange(4))[0]


def denoiser(**options: Any) -> sf.Denoiser:
    torch.manual_seed(0)
    net = sf.nets.UNet(
        1, out_channels=2 if options else 1, channels=32, channel_mult=(1,), blocks=1, attention=()
    )
    return sf.Denoiser(net, P, data=sf.data.digits().spec, **options).eval()


def curves(figure: Figure, panel: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The curves of a panel by their labels, as x and y."""
    lines = figure.axes[panel].lines
    return {
        str(line.get_label()): (np.asarray(line.get_xdata()), np.asarray(line.get_ydata())) for line in lines
    }


def test_weights_are_those_of_the_paper():
    """β_t²/(2 Σ α_t (1 − ᾱ_t)) in DDPM's symbols, where its α_t is 1 − β_t."""
    betas = sf.process.linear_betas(50, 0.002, 0.3)
    bars = (1 - betas).cumprod(0)
    for variance, sigma2 in (("upper", betas[1:]), ("lower", betas[1:] * (1 - bars[:-1]) / (1 - bars[1:]))):
        expected = betas[1:] ** 2 / (2 * sigma2 * (1 - betas[1:]) * (1 - bars[1:]))
        x, y = curves(sf.plots.draw_loss_weights({"linear": P}, variance), 0)["linear"]
        assert x[0] == 2 / 50
        torch.testing.assert_close(torch.from_numpy(y), expected, rtol=1e-9, atol=0)


def test_the_bound_weighs_small_t_most_on_vp_schedules_and_every_level_alike_on_geometric_ones():
    """So L_simple, w = 1, weighs small t down on the first, and on NCSN's levels it is the bound.  [DDPM Eq. 12, 14]"""
    processes = {"linear": sf.process.linear(1000), "cosine": sf.process.cosine(1000)}
    geometric = sf.process.geometric(50.0, 0.01, 100)
    drawn = curves(sf.plots.draw_loss_weights({**processes, "geometric": geometric}), 0)
    for name in processes:
        y = drawn[name][1]
        assert (np.diff(y[:250]) < 0).all()  # t = 2 … 251
        assert y[0] > 20 * y[250]
    ratio = (50.0 / 0.01) ** (1 / 99)
    np.testing.assert_allclose(drawn["geometric"][1], (1 - ratio**-2) / 2, rtol=1e-9)


def test_noising_shows_the_share_of_the_signal_and_the_image_itself():
    figure = sf.plots.draw_noising(IMAGES[3], {"linear": P, "cosine": COSINE}, columns=5)
    _, y = curves(figure, len(figure.axes) - 1)["linear"]
    assert y[0] == 1
    bars = (1 - sf.process.linear_betas(50, 0.002, 0.3)).cumprod(0)
    assert y[-1] == pytest.approx(float(bars[-1]))
    shown = figure.axes[0].images[0].get_array()
    assert shown is not None
    np.testing.assert_allclose(np.asarray(shown)[..., 0], (IMAGES[3, 0] + 1) / 2, atol=1e-6)


def test_learned_variances_lie_between_the_bounds():
    figure = sf.plots.draw_variances(denoiser(variance="range"), IMAGES)
    left = curves(figure, 0)
    lower, learned = left["lower: β̃"][1], left["learned"][1]
    assert (lower <= learned + 1e-12).all()
    assert (learned <= 1).all()


def test_importance_shares_sum_to_one():
    times = sf.objectives.ImportanceTimes(50)
    for _ in range(10):
        times.update(torch.arange(1, 51), 1 / torch.arange(1, 51))
    figure = sf.plots.draw_time_shares(times)
    ratio, total = (curves(figure, panel)["importance sampling"][1] for panel in (0, 1))
    assert ratio.mean() == pytest.approx(1)
    assert ratio[0] / ratio[9] == pytest.approx(10)
    assert total[-1] == pytest.approx(1)


def test_terms_are_means_over_the_examples():
    terms = torch.rand(3, 50, generator=torch.Generator().manual_seed(0))
    (curve, dot) = sf.plots.draw_terms({"a": terms}).axes[0].lines
    np.testing.assert_allclose(np.asarray(curve.get_ydata()), terms.mean(dim=0)[1:], rtol=1e-6)
    np.testing.assert_allclose(np.asarray(dot.get_ydata()), terms.mean(dim=0)[:1], rtol=1e-6)


def test_arrows_of_all_fields_have_one_scale():
    figure = sf.plots.draw_fields({"s": MIXTURE.score, "2s": lambda x: 2 * MIXTURE.score(x)}, POINTS)
    lengths = [np.hypot(q.U, q.V) for axes in figure.axes for q in axes.collections if isinstance(q, Quiver)]
    assert (lengths[1] >= lengths[0]).all()
    assert lengths[1].mean() > 1.02 * lengths[0].mean()


def test_a_path_starts_at_the_last_state_outside():
    inside, outside = torch.zeros(1, 2), torch.full((1, 2), 50.0)
    states = torch.stack([inside, outside, inside, inside])
    figure = sf.plots.draw_paths({"path": states}, POINTS)
    pieces = [c for c in figure.axes[0].collections if isinstance(c, LineCollection)][-1].get_segments()
    np.testing.assert_array_equal(np.asarray(pieces[0]), [[50, 50], [0, 0]])
    assert len(pieces) == 2


def test_one_start_in_several_numbers_of_steps():
    samplers = {"η = 0": sf.samplers.DDIM(), "η = 1": sf.samplers.DDIM(1)}
    figure = sf.plots.draw_step_counts(denoiser(), torch.zeros(2, 1, 8, 8), samplers, (1, 3))
    assert [axes.get_title() for axes in figure.axes] == ["1 steps", "3 steps", "", ""]
    assert [axes.get_ylabel() for axes in figure.axes] == ["η = 0", "", "η = 1", ""]
    assert all(axes.images[0].get_array().shape == (8, 17, 3) for axes in figure.axes)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: sf.plots.draw_points({}), "points must be a mapping"),
        (lambda: sf.plots.draw_points({"a": torch.zeros(3)}), "a: points of the plane"),
        (lambda: sf.plots.draw_fields({}, POINTS), "scores must be a mapping"),
        (lambda: sf.plots.draw_fields({"a": lambda x: x[:, 0]}, POINTS), "a score has the shape"),
        (lambda: sf.plots.draw_paths({"a": POINTS}, POINTS), "states \\(times, N, 2\\)"),
        (lambda: sf.plots.draw_noising(IMAGES, {"linear": P}), "one image"),
        (lambda: sf.plots.draw_noising(IMAGES[0], {}), "processes must be a mapping"),
        (lambda: sf.plots.draw_loss_weights({"a": P}, "learned"), "one of upper, lower"),
        (lambda: sf.plots.draw_loss_weights({"a": sf.process.vp()}), "discrete-time"),
        (lambda: sf.plots.draw_terms({"a": torch.zeros(3)}), "terms of a bound"),
        (lambda: sf.plots.draw_variances(denoiser(), IMAGES), 'variance="range"'),
        (lambda: sf.plots.draw_time_shares(0.5), "ImportanceTimes"),  # type: ignore[arg-type]
        (
            lambda: sf.plots.draw_step_counts(denoiser(), POINTS, {"a": sf.samplers.DDIM()}),
            "\\(N, C, H, W\\)",
        ),
        (lambda: sf.plots.draw_step_counts(denoiser(), IMAGES, {}), "samplers must be a mapping"),
    ],
)
def test_mistakes(draw, message):
    with pytest.raises(sf.ScorefieldError, match=message):
        draw()
