"""Golden B02, B06–B10 and G01–G03: predictions, variances, ancestral and DDIM steps and loops of the original
code, in float64.
"""

import itertools

import pytest
import torch
from support import MEANS, VARIANCES, Golden, assert_close, schedule

import scorefield as sf
from scorefield.objectives.denoising import weighted_error
from scorefield.process.transitions import reverse

TOLERANCE = 1e-9


def model_of(golden, mean, variance, clip, group=None):
    head, choice = VARIANCES[variance]
    group = group or ("learned" if head else "fixed")
    process = schedule(golden.config["schedule"])
    model = sf.Denoiser(golden.stub(group), process, MEANS[mean], variance=head)
    return (sf.guidance.ClipX0(model, -1, 1) if clip else model), choice


@pytest.mark.parametrize("mean", MEANS)
@pytest.mark.parametrize("variance", VARIANCES)
@pytest.mark.parametrize("clip", ["clip", "noclip"])
def test_mean_and_variance(mean, variance, clip):
    # [DDPM §3.2, Eq. 7; Improved DDPM Eq. 15]
    golden = Golden("B02_p_mean_variance")
    model, choice = model_of(golden, mean, variance, clip == "clip")
    process = model.process
    for b, t in enumerate((golden["in.t"] + 1).tolist()):
        x_t = golden["in.x_t"][b : b + 1].double()
        pred = model(x_t, t)
        above = process.level(t + 1) if t < process.T else None
        p = reverse(pred, process.level(t), process.level(t - 1), choice, above)
        expected = {
            k: golden[f"out64.{mean}.{variance}.{clip}.{k}"][b : b + 1]
            for k in ("mean", "log_variance", "pred_xstart")
        }
        assert_close(pred.x0, expected["pred_xstart"], TOLERANCE, "x̂0")
        assert_close(p.var.log().expand_as(x_t), expected["log_variance"], TOLERANCE, "ln Σ")
        if (
            mean != "PREVIOUS_X" or clip == "noclip"
        ):  # clipped, the original still returns the raw mean (golden item 10)
            assert_close(p.mean, expected["mean"], 1e-8 if mean == "PREVIOUS_X" else TOLERANCE, "mean")


def one_step(golden, model, sampler, b, t, noise):
    x_t, z = golden["in.x_t"][b : b + 1].double(), noise[b : b + 1].double()
    (step,) = sf.trajectory(model, sampler, [t, t - 1], x_t, sf.noise.Recorded([z]))
    return step


def test_ancestral_step():
    # [DDPM Algorithm 2]
    golden = Golden("B06_p_sample")
    for mean, variance, clip in golden.config["combinations"]:
        if mean == "PREVIOUS_X" and clip == "clip":
            continue  # the original returns the raw mean there (golden item 10)
        model, choice = model_of(golden, mean, variance, clip == "clip")
        for b, t in enumerate((golden["in.t"] + 1).tolist()):
            step = one_step(golden, model, sf.samplers.Ancestral(choice), b, t, golden["in.noise"])
            name = f"out64.{mean}.{variance}.{clip}"
            assert_close(step.x, golden[f"{name}.sample"][b : b + 1], TOLERANCE, name)
            assert_close(step.x0, golden[f"{name}.pred_xstart"][b : b + 1], TOLERANCE, name)


@pytest.mark.parametrize("case", ["B07_p_sample_loop_0", "B07_p_sample_loop_1"])
def test_ancestral_loop(case):
    golden = Golden(case)
    model, choice = model_of(
        golden, golden.config["mean_type"], golden.config["var_type"], golden.config["clip_denoised"], "model"
    )
    respacing = golden.config["respacing"]
    grid = sf.grids.linspace(model.process, int(respacing)) if respacing else sf.grids.full(model.process)
    assert grid[:-1].tolist() == [t + 1 for t in reversed(golden.config["kept_timesteps"])]
    x_T, *draws = golden["in.noise"].double()
    steps = list(
        sf.trajectory(model, sf.samplers.Ancestral(choice), grid, x_T, sf.noise.Recorded(draws[:-1]))
    )
    assert_close(torch.stack([step.x for step in steps]), golden["out64.sample"], TOLERANCE)
    assert_close(torch.stack([step.x0 for step in steps]), golden["out64.pred_xstart"], TOLERANCE)


def test_ddim_step():
    # [DDIM Eq. 12, 16]
    golden = Golden("B08_ddim_sample")
    for (mean, variance, clip), eta in itertools.product(
        golden.config["combinations"], golden.config["etas"]
    ):
        model, _ = model_of(golden, mean, variance, clip == "clip")
        for b, t in enumerate((golden["in.t"] + 1).tolist()):
            step = one_step(golden, model, sf.samplers.DDIM(eta), b, t, golden["in.noise"])
            name = f"out64.{mean}.{variance}.{clip}.eta{eta}"
            # "mean" divides by c_0, which is 3e-3 at t = 1,000: seven digits of float64 remain.
            tolerance = 1e-8 if mean == "PREVIOUS_X" else TOLERANCE
            assert_close(step.x, golden[f"{name}.sample"][b : b + 1], tolerance, name)
            assert_close(step.x0, golden[f"{name}.pred_xstart"][b : b + 1], tolerance, name)


def test_ddim_reverse_step():
    golden = Golden("B08_ddim_sample")
    for mean, variance, clip in golden.config["combinations"]:
        model, _ = model_of(golden, mean, variance, clip == "clip")
        for b, t in enumerate((golden["in.t"] + 1).tolist()):
            if t == model.process.T:
                continue  # the original steps to ᾱ = 0 there, which lies beyond T
            x_t = golden["in.x_t"][b : b + 1].double()
            (step,) = sf.trajectory(model, sf.samplers.DDIM(0.0), [t, t + 1], x_t)
            name = f"out64.{mean}.{variance}.{clip}.reverse"
            assert_close(
                step.x, golden[f"{name}.sample"][b : b + 1], 1e-8 if mean == "PREVIOUS_X" else TOLERANCE, name
            )


def test_ddim_loop():
    golden = Golden("B09_ddim_sample_loop")
    model, _ = model_of(golden, "EPSILON", "FIXED_SMALL", True, "model")
    grid = sf.grids.leading(model.process, 50)
    x_T, *draws = golden["in.noise"].double()
    for eta in golden.config["etas"]:
        steps = list(sf.trajectory(model, sf.samplers.DDIM(eta), grid, x_T, sf.noise.Recorded(draws[:-1])))
        assert_close(torch.stack([step.x for step in steps]), golden[f"out64.eta{eta}.sample"], TOLERANCE)
        assert_close(
            torch.stack([step.x0 for step in steps]), golden[f"out64.eta{eta}.pred_xstart"], TOLERANCE
        )


def test_ddim_encoding_loop():
    golden = Golden("B10_ddim_reverse_loop")
    model, _ = model_of(golden, "EPSILON", "FIXED_SMALL", True, "model")
    grid = [t + 1 for t in golden.config["kept_timesteps"]]
    steps = list(sf.trajectory(model, sf.samplers.DDIM(), grid, golden["in.x_start"].double()))
    # The original's 25th step goes to ᾱ = 0, beyond T: 24 remain.
    assert_close(torch.stack([step.x for step in steps]), golden["out64.sample"][:-1], TOLERANCE)


@pytest.mark.parametrize("case", ["G01_generalized_steps_uniform", "G02_generalized_steps_quad"])
def test_ddim_authors_loop(case):
    golden = Golden(case)
    process = sf.process.from_betas(golden["in.betas"])
    model = sf.Denoiser(golden.stub(), process)
    grid = [*(t + 1 for t in reversed(golden.config["seq"])), 0]
    published = sf.grids.leading(process, 20) if "uniform" in case else sf.grids.ddim_quadratic(process, 20)
    assert published.tolist() == grid
    draws = list(golden["in.noise"].double())
    for eta in golden.config["etas"]:
        steps = list(
            sf.trajectory(
                model, sf.samplers.DDIM(eta), grid, golden["in.x"].double(), sf.noise.Recorded(draws)
            )
        )
        assert_close(torch.stack([step.x for step in steps]), golden[f"out64.eta{eta}.xs"][1:], TOLERANCE)
        assert_close(torch.stack([step.x0 for step in steps]), golden[f"out64.eta{eta}.x0_preds"], TOLERANCE)
    clipped = sf.guidance.ClipX0(model, -1, 1)
    steps = list(
        sf.trajectory(
            clipped, sf.samplers.Ancestral("upper"), grid, golden["in.x"].double(), sf.noise.Recorded(draws)
        )
    )
    assert_close(torch.stack([step.x for step in steps]), golden["out64.ddpm_noisy.xs"][1:], TOLERANCE)


def test_noise_estimation_loss():
    # [DDPM Eq. 14]
    golden = Golden("G03_noise_estimation_loss")
    process = sf.process.from_betas(sf.process.linear_betas(1000))
    x0, eps = golden["in.x0"].double(), golden["in.noise"].double()
    error = weighted_error(sf.Denoiser(golden.stub(), process), x0, None, golden["in.t"] + 1, eps)
    per_sample = error * x0[0].numel()  # the original sums over dimensions
    assert_close(per_sample, golden["out64.per_sample"], TOLERANCE)
    assert_close(per_sample.mean(), golden["out64.loss"], TOLERANCE)


@pytest.mark.parametrize("mean", MEANS)
def test_mse_losses(mean):
    golden = Golden("B03_training_losses")
    process = schedule(golden.config["schedule"])
    model = sf.Denoiser(golden.stub("fixed"), process, MEANS[mean])
    x0, eps = golden["in.x_start"].double(), golden["in.noise"].double()
    error = weighted_error(model, x0, None, golden["in.t"] + 1, eps, "network")
    assert_close(error, golden[f"out64.{mean}.FIXED_SMALL.MSE.mse"], TOLERANCE)
