"""Golden B11: the original code's guided ancestral and DDIM steps and loops, in float64."""

from dataclasses import replace

import pytest
import torch
from support import MEANS, VARIANCES, Golden, assert_close, schedule

import scorefield as sf
from scorefield.core.noise import Recorded
from scorefield.models.wrappers import Wrapper
from scorefield.process.transitions import posterior

TOLERANCE = 1e-9


class Given(Wrapper):
    """A model with any gradient beside it, as the protocol allows: golden's "quadA" is not that of a
    classifier.
    """

    guided, grad_at = True, "x_t"

    def __init__(self, model, gradient):
        super().__init__(model)
        self.gradient = gradient

    def __call__(self, x_t, t):
        return replace(self.model(x_t, t), log_p_grad=self.gradient)


def guided(golden, cond, model, rows=slice(None)):
    """The model guided by one of the case's gradients, with the labels of these rows; times are published as
    t − 1.
    """
    y = golden["in.y"][rows]
    if cond == "quadA":
        M = golden["param.quadA.M"].double()
        return Given(model, lambda x, t: 0.8 * (1 + (t - 1) / 1000) * (M[y] - x))
    A, c, d = (golden[f"param.logitA.{name}"].double() for name in "Acd")
    return sf.guidance.ClassifierGuidance(
        model, lambda x, t: x.flatten(1) @ A.mT + c + d * (t - 1) / 1000, y, 2.5
    )


def model_of(golden, mean, variance, clip):
    head, choice = VARIANCES[variance]
    model = sf.Denoiser(
        golden.stub("learned" if head else "fixed"), schedule(golden.config["schedule"]), MEANS[mean], head
    )
    return (sf.guidance.ClipX0(model, -1, 1) if clip == "clip" else model), choice


@pytest.fixture(scope="module")
def golden():
    return Golden("B11_classifier_guidance")


@pytest.mark.parametrize("cond", ["quadA", "logitA"])
@pytest.mark.parametrize("b", range(4))
def test_steps(golden, cond, b):
    # [ADM Algorithms 1 and 2]
    times = [0, *(t + 1 for t in golden.config["kept_timesteps"]), None]
    k, row = int(golden["in.t_index"][b]), slice(b, b + 1)
    s, t, above = times[k : k + 3]
    x_t, z = golden["in.x_t"][row].double(), golden["in.noise"][row].double()
    for mean, variance, clip in golden.config["combinations"]:
        model, choice = model_of(golden, mean, variance, clip)
        model, name = guided(golden, cond, model, row), f"out64.{cond}.{mean}.{variance}.{clip}"
        pred = model(x_t, t)
        assert_close(pred.log_p_grad(x_t, t), golden[f"out64.{cond}.gradient"][row], TOLERANCE)
        assert_close(pred.guided(t).x0, golden[f"{name}.condition_score.pred_xstart"][row], TOLERANCE, name)
        mean = posterior(x_t, pred.guided(t).x0, *map(model.process.level, (t, s))).mean
        assert_close(mean, golden[f"{name}.condition_score.mean"][row], TOLERANCE, name)
        ancestral = sf.samplers.Ancestral(choice)
        x, x0, _ = ancestral.step(model, x_t, t, s, above, Recorded([torch.zeros_like(z)]))
        assert_close(x, golden[f"{name}.condition_mean"][row], TOLERANCE, name)
        x, x0, _ = ancestral.step(model, x_t, t, s, above, Recorded([z]))
        assert_close(x, golden[f"{name}.p_sample.sample"][row], TOLERANCE, name)
        assert_close(x0, golden[f"{name}.p_sample.pred_xstart"][row], TOLERANCE, name)
        for eta in golden.config["etas"]:
            x, x0, _ = sf.samplers.DDIM(eta).step(model, x_t, t, s, None, Recorded([z]))
            assert_close(
                x, golden[f"{name}.ddim_sample.eta{eta}.sample"][row], TOLERANCE, f"{name} η = {eta}"
            )
            assert_close(x0, golden[f"{name}.condition_score.pred_xstart"][row], TOLERANCE, name)


def test_loops(golden):
    times = [*(t + 1 for t in reversed(golden.config["kept_timesteps"])), 0]
    x_T, *draws = golden["in.loop_noise"].double()
    for cond, mean, variance, clip in golden.config["loops"]:
        model, choice = model_of(golden, mean, variance, clip)
        samplers = {
            "p_sample": sf.samplers.Ancestral(choice),
            "ddim_sample": sf.samplers.DDIM(golden.config["loop_eta"]),
        }
        for published, sampler in samplers.items():
            steps = sf.trajectory(guided(golden, cond, model), sampler, times, x_T, Recorded(draws[:-1]))  # type: ignore[arg-type]
            expected = golden[f"out64.loop.{cond}.{mean}.{variance}.{clip}.{published}"]
            assert_close(torch.stack([step.x for step in steps]), expected, TOLERANCE, f"{cond} {published}")
