"""Golden A, B01 and G00: schedules, respacings, forward process, posterior and conversions of the original
code.
"""

import pytest
import torch
from support import GOLDEN, Golden, assert_close, schedule

import scorefield as sf
from scorefield.core.prediction import Prediction
from scorefield.models.parametrization import coefficients
from scorefield.process import transitions

CASES = sorted(path.stem for path in GOLDEN.glob("A_schedule*"))
RESPACINGS = sorted(path.stem for path in GOLDEN.glob("A_respacing*"))
TOLERANCE = (
    1e-9  # both sides are float64; ᾱ by a product of 4,000 factors and by a sum of logarithms differ at 1e-12
)


@pytest.mark.parametrize("case", CASES)
def test_schedule_tables(case):
    # [DDPM §4; Improved DDPM Eq. 17]
    golden = Golden(case)
    process = schedule(golden.config)
    t = torch.arange(1, process.T + 1)
    hi, lo = process.level(t), process.level(t - 1)
    _, var_ts = transitions.transition(hi, lo)
    c_0, c_t = transitions.posterior_coefficients(hi, lo)
    assert_close(hi.alpha**2, golden["out.alphas_cumprod"], TOLERANCE, "ᾱ")
    assert_close(lo.alpha**2, golden["out.alphas_cumprod_prev"], TOLERANCE, "ᾱ before")
    assert_close(var_ts, golden["out.betas"], TOLERANCE, "β")
    assert_close(hi.sigma, golden["out.sqrt_one_minus_alphas_cumprod"], TOLERANCE, "σ")
    assert_close(1 / hi.alpha, golden["out.sqrt_recip_alphas_cumprod"], TOLERANCE, "1/α")
    assert_close(hi.sigma / hi.alpha, golden["out.sqrt_recipm1_alphas_cumprod"], TOLERANCE, "σ/α")
    assert_close(transitions.lower_var(hi, lo), golden["out.posterior_variance"], TOLERANCE, "β̃")
    assert_close(c_0, golden["out.posterior_mean_coef1"], TOLERANCE, "c_0")
    assert_close(c_t, golden["out.posterior_mean_coef2"], TOLERANCE, "c_t")


@pytest.mark.parametrize("case", CASES)
def test_floored_log_variance(case):
    golden = Golden(case)
    process = schedule(golden.config)
    x = torch.zeros(1, 1, dtype=torch.float64)
    for t in (1, 2, process.T):
        above = process.level(t + 1) if t < process.T else None
        pred = Prediction(x, process.level(t), x, x)
        var = transitions.reverse(pred, process.level(t), process.level(t - 1), "lower", above).var
        expected = golden["out.posterior_log_variance_clipped"][t - 1]
        assert var.log().item() == pytest.approx(expected.item(), rel=TOLERANCE)


@pytest.mark.parametrize("case", RESPACINGS)
def test_respacings(case):
    golden = Golden(case)
    process = schedule({**golden.config, "kind": golden.config["schedule"]})
    for name, spec in golden.config["specs"].items():
        if spec.startswith("ddim"):
            grid = sf.grids.leading(process, int(spec[4:]))
        else:
            grid = sf.grids.sections(process, [int(count) for count in spec.split(",")])
        kept = grid.flip(0)[1:] - 1
        assert torch.equal(kept, golden[f"out.{name}.timesteps"]), spec
        hi, lo = process.level(grid[:-1].flip(0)), process.level(grid[1:].flip(0))
        _, var_ts = transitions.transition(hi, lo)
        c_0, c_t = transitions.posterior_coefficients(hi, lo)
        assert_close(var_ts, golden[f"out.{name}.betas"], TOLERANCE, f"{spec} β")
        assert_close(
            transitions.lower_var(hi, lo), golden[f"out.{name}.posterior_variance"], TOLERANCE, f"{spec} β̃"
        )
        assert_close(c_0, golden[f"out.{name}.posterior_mean_coef1"], TOLERANCE, f"{spec} c_0")
        assert_close(c_t, golden[f"out.{name}.posterior_mean_coef2"], TOLERANCE, f"{spec} c_t")


def test_forward_process_and_conversions():
    # [DDPM Eq. 4, 6–7]
    golden = Golden("B01_forward_process")
    process = schedule(golden.config["schedule"])
    t = golden["in.t"] + 1
    x0, eps, x_t = (golden[f"in.{name}"].double() for name in ("x_start", "noise", "x_t"))
    hi, lo = process.level(t), process.level(t - 1)
    assert_close(process.sample(x0, t, eps), golden["out64.q_sample"], TOLERANCE)
    posterior = transitions.posterior(x_t, x0, hi, lo)
    assert_close(posterior.mean, golden["out64.q_posterior.mean"], TOLERANCE)
    assert_close(posterior.var.expand_as(x0), golden["out64.q_posterior.variance"], TOLERANCE)

    def x0_from(name, output):
        c = coefficients(name, process, t)
        return c.skip.reshape(-1, 1, 1, 1) * x_t + c.out.reshape(-1, 1, 1, 1) * output

    assert_close(x0_from("eps", eps), golden["out64.xstart_from_eps"], TOLERANCE)
    assert_close(x0_from("mean", golden["in.x_prev"].double()), golden["out64.xstart_from_xprev"], TOLERANCE)
    assert_close(Prediction(x_t, hi, x0, x0).eps, golden["out64.eps_from_xstart"], TOLERANCE)


def test_linear_betas_of_ddim_code():
    golden = Golden("G00_beta_schedules")
    assert_close(sf.process.linear_betas(1000), golden["out.linear"], 1e-12)
