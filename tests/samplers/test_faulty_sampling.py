"""Sampling that cannot go well: what starts it is refused, and what is lost on the way is said with its step."""

import math
from typing import Any

import pytest
import torch

import scorefield as sf

PROCESS = sf.process.linear(20, 0.01, 0.6)
GRID = [20, 15, 10, 5, 0]
X = torch.linspace(-1, 1, 6).reshape(3, 2)


def denoiser(net=lambda x, c, y=None: x, **options):
    return sf.Denoiser(net, PROCESS, data=sf.DataSpec((2,)), **options)


def until(c_bad, value):
    """A network whose output is `value` where its noise input is at most c_bad."""
    return lambda x, c, y=None: torch.where(c[:, None] <= c_bad, torch.full_like(x, value), x)


@pytest.mark.parametrize("noise", [0, 7, True, torch.Generator(), "seed", sf.noise.NoiseSource, lambda *a: X])
@pytest.mark.parametrize(
    "use",
    [
        lambda noise: sf.sample(denoiser(), sf.samplers.DDIM(), GRID, 2, noise),
        lambda noise: sf.sample(denoiser(), sf.samplers.DDIM(), GRID, noise=noise, x_T=X),
        lambda noise: list(sf.trajectory(denoiser(), sf.samplers.Ancestral(), GRID, X, noise)),
        lambda noise: sf.oracle.GaussianMixture([[0.0]], [[[1.0]]]).sample(2, noise),
        lambda noise: sf.objectives.Simple(denoiser())(X, None, noise),
        lambda noise: sf.likelihood.ode_log_prob(denoiser(), X, noise=noise),
        lambda noise: (
            PROCESS.prior((2, 2), noise) if noise else sf.objectives.NCSN(denoiser())(X, None, noise)
        ),
    ],
)
def test_what_is_no_noise_is_refused(use, noise):
    with pytest.raises(sf.InputError, match=r"noise must be a noise source, such as sf\.noise\.NoiseSource"):
        use(noise)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(("c_bad", "step"), [(19, 1), (14, 2), (9, 3), (4, 4)])
@pytest.mark.parametrize(
    "sampler", [sf.samplers.DDIM(), sf.samplers.Ancestral(), sf.samplers.Euler(), sf.samplers.DPMSolver2M()]
)
def test_the_step_that_leaves_the_finite_numbers_is_said(sampler, c_bad, step, value):
    t, s = GRID[step - 1 : step + 1]
    with pytest.raises(sf.InputError, match=f"at sampling step {step} of 4, from t = {t} to {s}"):
        sf.sample(denoiser(until(c_bad, value)), sampler, GRID, noise=sf.noise.NoiseSource(0), x_T=X)


def test_every_step_before_the_last_is_yielded():
    steps = sf.trajectory(denoiser(until(9, math.nan)), sf.samplers.DDIM(), GRID, X, sf.noise.NoiseSource(0))
    assert [next(steps).s for _ in range(3)] == [15, 10, 5]
    with pytest.raises(sf.InputError, match=r"step 3 of 4"):
        next(steps)


def test_a_step_too_large_for_langevin_is_said():
    with pytest.raises(
        sf.InputError, match=r"NaN or infinite values at sampling step 2 of 3.*step is too large"
    ):
        sf.sample(
            denoiser(), sf.samplers.Langevin(1e30), [20, 15, 10, 0], noise=sf.noise.NoiseSource(0), x_T=X
        )


def test_categories_of_a_network_without_finite_logits():
    process = sf.process.uniform_categories(3, T=10)
    model = sf.CategoricalDenoiser(
        lambda x, c, y=None: torch.full_like(x, math.nan), process, data=sf.DataSpec((2,), bins=3)
    )
    with pytest.raises(sf.InputError, match=r"logits are not finite at t = 10"):
        sf.sample(model, sf.samplers.CategoricalAncestral(), [10, 5, 0], 2, sf.noise.NoiseSource(0))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_start_that_is_not_finite_is_refused(value):
    x = X.clone()
    x[1, 0] = value
    for use in (
        lambda: sf.sample(denoiser(), sf.samplers.DDIM(), GRID, x_T=x),
        lambda: sf.trajectory(denoiser(), sf.samplers.DDIM(), GRID, x),
        lambda: sf.latents.encode(denoiser(), x, GRID),
        lambda: sf.latents.decode(denoiser(), x, GRID),
    ):
        with pytest.raises(
            sf.InputError, match=r"1 of 3 examples of the x that sampling starts from hold NaN"
        ):
            use()


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (None, "returned None"),
        (X, "returned a Tensor"),
        ((X, X), "2 values"),
        ((X[:1], X, None), r"3 values \(shape \(1, 2\), shape \(3, 2\), None\)"),
        ((X.numpy(), X, None), "3 values"),
        ((X, None, None), "3 values"),
    ],
)
def test_a_step_of_ones_own_that_returns_something_else(made, said):
    class Own:
        def init(self, model, x):
            return None

        def step(self, model, x_t, t, s, state, noise):
            return made

    class Inherits(sf.Sampler[None]):
        init, step = Own.init, Own.step  # type: ignore[assignment]

    for sampler in (Own(), Inherits()):
        with pytest.raises(sf.IncompatibleModel, match=rf"must return \(x_s, x̂0, state\).*{said}"):
            sf.sample(denoiser(), sampler, GRID, x_T=X)


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
    ],
)
def test_a_model_in_any_dtype_is_sampled(dtype, expected):
    torch.manual_seed(0)
    # Of x̂0 itself, which does not multiply the rounding of the network by σ/α.
    model, reference = (
        denoiser(sf.nets.MLP(2, hidden=8, layers=1), parametrization="x0").eval() for _ in range(2)
    )
    model.to(dtype)
    reference.load_state_dict({k: v.float() for k, v in model.state_dict().items()})
    found, right = (
        sf.sample(one, sf.samplers.DDIM(), GRID, 4, sf.noise.NoiseSource(0)) for one in (model, reference)
    )
    assert found.dtype == expected
    torch.testing.assert_close(
        found.float(), right, rtol=0, atol={torch.float32: 0, torch.float64: 1e-5}.get(dtype, 0.1)
    )


def test_what_samples_under_torch_func_goes_on_sampling():
    torch.manual_seed(0)
    model = denoiser(sf.nets.MLP(2, hidden=8, layers=1)).eval()

    def walk(x):
        return sf.sample(model, sf.samplers.DDIM(), GRID, noise=sf.noise.NoiseSource(0), x_T=x)

    several = torch.stack([X, -X])
    torch.testing.assert_close(torch.func.vmap(walk)(several), torch.stack([walk(x) for x in several]))


def test_latents_of_arrays_and_integers_are_refused_in_words():
    wrong: list[tuple[Any, str]] = [
        (X.numpy(), "from_numpy"),
        (X.long(), "floating-point"),
        ([[0.0, 1.0]], "must be a tensor"),
    ]
    for x, said in wrong:
        with pytest.raises(sf.InputError, match=said):
            sf.latents.encode(denoiser(), x, GRID)
