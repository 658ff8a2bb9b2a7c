"""Score-matching losses against exact expectations (Gauss-Hermite quadrature, float64), Monte Carlo, and each
other.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from scorefield.objectives import score_matching as sm
from scorefield.runtime.errors import InputError

KINDS: tuple[sm.ProjectionKind, ...] = ("rademacher", "gaussian", "sphere")


class Noise:
    """A seeded source of normal numbers, float32 as the library's."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=self.generator)


@dataclass
class Mixture:
    """A Gaussian mixture in float64 with its exact score, and nodes and weights that integrate against its
    density.
    """

    means: Tensor
    covariances: Tensor
    weights: Tensor

    @property
    def dimensions(self) -> int:
        return self.means.shape[1]

    def log_prob(self, x: Tensor) -> Tensor:
        parts = [
            torch.distributions.MultivariateNormal(m, c).log_prob(x) + w.log()
            for m, c, w in zip(self.means, self.covariances, self.weights, strict=True)
        ]
        return torch.stack(parts).logsumexp(dim=0)

    def score(self, x: Tensor) -> Tensor:
        """Responsibilities times the Gaussian scores: no autograd."""
        difference = x[:, None] - self.means
        precisions = torch.linalg.inv(self.covariances)
        scores = -torch.einsum("kij,bkj->bki", precisions, difference)
        logits = 0.5 * (difference * scores).sum(dim=2) + 0.5 * torch.logdet(precisions) + self.weights.log()
        return (logits.softmax(dim=1)[:, :, None] * scores).sum(dim=1)

    def blurred(self, sigma: float) -> "Mixture":
        eye = torch.eye(self.dimensions, dtype=torch.float64)
        return Mixture(self.means, self.covariances + sigma**2 * eye, self.weights)

    def quadrature(self, n: int) -> tuple[Tensor, Tensor]:
        """x (N, D) and w (N,) with sum w f(x) = E f, Gauss-Hermite on each component."""
        z, w = normal_nodes(n, self.dimensions)
        factors = torch.linalg.cholesky(self.covariances)
        x = torch.cat([m + z @ factor.T for m, factor in zip(self.means, factors, strict=True)])
        return x, torch.cat([w * weight for weight in self.weights])


def normal_nodes(n: int, dimensions: int) -> tuple[Tensor, Tensor]:
    """Nodes (n^D, D) and weights for the standard normal."""
    nodes, weights = np.polynomial.hermite.hermgauss(n)
    axis, w = torch.from_numpy(nodes * math.sqrt(2.0)), torch.from_numpy(weights / math.sqrt(math.pi))
    grid = torch.stack(torch.meshgrid([axis] * dimensions, indexing="ij"), dim=-1).reshape(-1, dimensions)
    product = (
        torch.stack(torch.meshgrid([w] * dimensions, indexing="ij"), dim=-1)
        .reshape(-1, dimensions)
        .prod(dim=1)
    )
    return grid, product


def tensor(*values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


MIXTURES = {
    "1-D mixture": Mixture(tensor([-0.7], [0.6]), tensor([[0.8]], [[0.7]]), tensor(0.3, 0.7)),
    "2-D Gaussian": Mixture(tensor([0.4, -0.3]), tensor([[1.0, 0.4], [0.4, 0.6]]), tensor(1.0)),
    "2-D mixture": Mixture(
        tensor([-0.5, 0.2], [0.4, -0.3]),
        tensor([[0.9, 0.3], [0.3, 0.7]], [[0.8, 0.2], [0.2, 0.7]]),
        tensor(0.4, 0.6),
    ),
}
NODES = {1: 120, 2: 60}


class SmallMLP(torch.nn.Module):
    """W2 sin(W1 x + b1) + b2, an entire function, so that quadrature converges; its Jacobian is not
    symmetric.
    """

    def __init__(self, dimensions: int, width: int = 6, seed: int = 0) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> torch.nn.Parameter:
            return torch.nn.Parameter(0.4 * torch.randn(shape, generator=g, dtype=torch.float64))

        self.W1, self.b1, self.W2, self.b2 = (
            draw(width, dimensions),
            draw(width),
            draw(dimensions, width),
            draw(dimensions),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x @ self.W1.T + self.b1) @ self.W2.T + self.b2


class MixtureScore(torch.nn.Module):
    """The score of a mixture with trainable means, from its energy: contains the truth."""

    def __init__(self, mixture: Mixture, shift: float = 0.0) -> None:
        super().__init__()
        self.means = torch.nn.Parameter(mixture.means + shift)
        self.mixture = mixture

    def forward(self, x: Tensor) -> Tensor:
        model = Mixture(self.means, self.mixture.covariances, self.mixture.weights)
        return sm.score_from_energy(lambda y: -model.log_prob(y))(x)


def exact_directions(dimensions: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Finite sets of v with weights that average any quadratic in v exactly as the named distribution does."""
    signs = tensor(*itertools.product([-1.0, 1.0], repeat=dimensions))
    sets = {"rademacher": (signs, torch.full((len(signs),), 1 / len(signs), dtype=torch.float64))}
    sets["gaussian"] = normal_nodes(4, dimensions)
    if dimensions == 2:
        angles = torch.arange(7, dtype=torch.float64) * (2 * math.pi / 7) + 0.3
        circle = math.sqrt(2.0) * torch.stack([angles.cos(), angles.sin()], dim=1)
        sets["sphere"] = (circle, torch.full((7,), 1 / 7, dtype=torch.float64))
    return sets


def averaged(loss: Callable[[Tensor], Tensor], directions: tuple[Tensor, Tensor], x: Tensor) -> Tensor:
    """The expectation over v of loss(v), (B,)."""
    per_direction = [w * loss(v.expand_as(x)) for v, w in zip(*directions, strict=True)]
    return torch.stack(per_direction).sum(dim=0)


def all_losses(mixture: Mixture, score: sm.Score, x: Tensor) -> dict[str, Tensor]:
    """Every loss on clean data, per node, projections averaged exactly."""
    losses = {
        "explicit": sm.explicit_score_matching(score, x, mixture.score),
        "implicit": sm.implicit_score_matching(score, x),
    }
    for kind, directions in exact_directions(mixture.dimensions).items():
        losses[f"explicit, {kind}"] = averaged(
            lambda v: sm.explicit_sliced_score_matching(score, x, mixture.score, v), directions, x
        )
        losses[f"sliced, {kind}"] = averaged(lambda v: sm.sliced_score_matching(score, x, v), directions, x)
        losses[f"vr, {kind}"] = averaged(lambda v: sm.sliced_score_matching_vr(score, x, v), directions, x)
    return losses


def gradient(loss: Tensor, model: torch.nn.Module) -> Tensor:
    return torch.cat(
        [g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)]
    )


def fisher_information(mixture: Mixture, n: int) -> Tensor:
    x, w = mixture.quadrature(n)
    return (w * mixture.score(x).square().sum(dim=1)).sum()


@pytest.mark.parametrize("name", MIXTURES)
def test_quadrature_has_converged_and_its_score_is_right(name: str) -> None:
    mixture = MIXTURES[name]
    n = NODES[mixture.dimensions]
    _, w = mixture.quadrature(n)
    assert w.sum().item() == pytest.approx(1.0, abs=1e-12)
    assert fisher_information(mixture, n).item() == pytest.approx(
        fisher_information(mixture, n // 2).item(), abs=1e-9
    )
    near = mixture.quadrature(8)[0].requires_grad_(True)
    torch.testing.assert_close(
        mixture.score(near), torch.autograd.grad(mixture.log_prob(near).sum(), near)[0]
    )


@pytest.mark.parametrize("name", MIXTURES)
def test_losses_share_value_and_parameter_gradient(name: str) -> None:
    """All equal the explicit loss, or differ from it by -1/2 E|grad log p|^2, to 1e-8; so their gradients
    agree.
    """
    # [SM §2, Theorem 1; SSM §3]
    mixture = MIXTURES[name]
    n = NODES[mixture.dimensions]
    x, w = mixture.quadrature(n)
    constant = 0.5 * fisher_information(mixture, n)
    for model in (SmallMLP(mixture.dimensions), MixtureScore(mixture, shift=0.2)):
        expected = {key: (w * loss).sum() for key, loss in all_losses(mixture, model, x).items()}
        reference = gradient(expected["explicit"], model)
        assert reference.abs().max() > 1e-2
        for key, value in expected.items():
            offset = 0.0 if key.startswith("explicit") else -constant.item()
            assert (value - expected["explicit"]).item() == pytest.approx(offset, abs=1e-8), key
            torch.testing.assert_close(gradient(value, model), reference, rtol=0, atol=1e-8, msg=key)


@pytest.mark.parametrize("name", MIXTURES)
def test_losses_share_the_optimum(name: str) -> None:
    """At the true score all gradients vanish, explicit is 0, the others -1/2 E|grad log p|^2; nearby all are
    larger.
    """
    mixture = MIXTURES[name]
    n = NODES[mixture.dimensions]
    x, w = mixture.quadrature(n)
    constant = 0.5 * fisher_information(mixture, n).item()
    truth, off = MixtureScore(mixture), MixtureScore(mixture, shift=0.05)
    shifted = all_losses(mixture, off, x)
    for key, loss in all_losses(mixture, truth, x).items():
        value = (w * loss).sum()
        assert value.item() == pytest.approx(0.0 if key.startswith("explicit") else -constant, abs=1e-8), key
        assert gradient(value, truth).abs().max() < 1e-8, key
        assert (w * shifted[key]).sum().item() > value.item() + 1e-5, key


@pytest.mark.parametrize(("name", "n"), [("1-D mixture", 100), ("2-D Gaussian", 20), ("2-D mixture", 26)])
@pytest.mark.parametrize("sigma", [0.5, 1.0])
def test_denoising_is_explicit_matching_on_the_blurred_density(name: str, n: int, sigma: float) -> None:
    # [DSM §4; NCSN Eq. 2]
    mixture = MIXTURES[name]
    blurred = mixture.blurred(sigma)
    x, w = mixture.quadrature(n)
    eps, w_eps = normal_nodes(n, mixture.dimensions)
    model = SmallMLP(mixture.dimensions)
    pairs = sm.denoising_score_matching(model, x.repeat_interleave(len(eps), 0), eps.repeat(len(x), 1), sigma)
    denoising = (torch.outer(w, w_eps).flatten() * pairs).sum()
    y, w_y = blurred.quadrature(NODES[mixture.dimensions])
    explicit = (w_y * sm.explicit_score_matching(model, y, blurred.score(y))).sum()
    constant = 0.5 * (
        mixture.dimensions / sigma**2 - fisher_information(blurred, NODES[mixture.dimensions]).item()
    )
    assert (denoising - explicit).item() == pytest.approx(constant, abs=1e-8)
    torch.testing.assert_close(gradient(denoising, model), gradient(explicit, model), rtol=0, atol=1e-8)


def test_exact_trace_is_the_trace_of_the_jacobian() -> None:
    # [SM Theorem 1; NCSN Eq. 1]
    model = SmallMLP(5, seed=3)
    x = torch.randn(4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    jacobians = torch.func.vmap(torch.func.jacrev(model))(x)
    expected = jacobians.diagonal(dim1=1, dim2=2).sum(dim=1) + 0.5 * model(x).square().sum(dim=1)
    torch.testing.assert_close(sm.implicit_score_matching(model, x), expected, rtol=0, atol=1e-14)
    v = torch.randn(3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    products = torch.einsum("mbi,bij,mbj->mb", v, jacobians, v)
    expected = (products + 0.5 * (v * model(x)).sum(dim=2).square()).mean(dim=0)
    torch.testing.assert_close(sm.sliced_score_matching(model, x, v), expected, rtol=0, atol=1e-14)
    expected = products.mean(dim=0) + 0.5 * model(x).square().sum(dim=1)
    torch.testing.assert_close(sm.sliced_score_matching_vr(model, x, v), expected, rtol=0, atol=1e-14)


def per_projection(function: Callable[..., Tensor], model: sm.Score, x: Tensor, v: Tensor) -> Tensor:
    """The loss of each single projection at each example, (M, B): the M projections as one batch."""
    repeated = x.expand_as(v).reshape(-1, *x.shape[1:])
    with torch.no_grad():
        return function(model, repeated, v.reshape(repeated.shape)).reshape(v.shape[:2])


@pytest.mark.parametrize("kind", KINDS)
def test_sliced_converges_to_implicit_at_the_monte_carlo_rate(kind: sm.ProjectionKind) -> None:
    # [SSM §3]
    seed, count = 11, 16384
    print(f"seed {seed}, M = {count}")
    model, x = SmallMLP(8, width=16, seed=5), torch.linspace(-1.5, 1.5, 24, dtype=torch.float64).reshape(3, 8)
    v = sm.projections(kind, x, Noise(seed), count)
    with torch.no_grad():
        exact = sm.implicit_score_matching(model, x)
    for name, function in (("sliced", sm.sliced_score_matching), ("vr", sm.sliced_score_matching_vr)):
        single = per_projection(function, model, x, v)
        standard_error = single.std(dim=0) / math.sqrt(count)
        z = ((single.mean(dim=0) - exact) / standard_error).abs().max().item()
        errors = [
            (single.reshape(-1, m, 3).mean(dim=1) - exact).square().mean().sqrt().item() for m in (1, 16, 256)
        ]
        slopes = [math.log(errors[i + 1] / errors[i]) / math.log(16) for i in range(2)]
        print(f"{kind:10} {name:6} |z| {z:.2f}, error at M = 1, 16, 256: {errors}, slopes {slopes}")
        assert z < 4
        assert slopes == pytest.approx([-0.5, -0.5], abs=0.1)
        assert len(single) == count
    few = sm.sliced_score_matching(model, x, v[:5])
    torch.testing.assert_close(few, per_projection(sm.sliced_score_matching, model, x, v[:5]).mean(dim=0))


@pytest.mark.parametrize("kind", KINDS)
def test_variance_reduction_lowers_the_variance(kind: sm.ProjectionKind) -> None:
    """Near the score of N(0, I), s = -x, the plain loss adds the variance of (v.x)^2/2; only that of vJv is
    left.
    """
    # [SSM §3; NCSN Eq. 3]
    seed, count, dimensions = 5, 20000, 10
    x = Noise(seed).normal((2, dimensions)).double()
    model = SmallMLP(dimensions, seed=2)
    v = sm.projections(kind, x, Noise(seed + 1), count)

    def score(y: Tensor) -> Tensor:
        return -y + 0.1 * model(y)

    plain = per_projection(sm.sliced_score_matching, score, x, v).var(dim=0)
    reduced = per_projection(sm.sliced_score_matching_vr, score, x, v).var(dim=0)
    ratio = (reduced / plain).max().item()
    print(
        f"{kind}: variance {plain.tolist()} plain, {reduced.tolist()} reduced; largest ratio {ratio:.4f} (seed {seed})"
    )
    assert ratio < (0.5 if kind == "gaussian" else 0.05)


@pytest.mark.parametrize("shape", [(4, 6), (3, 2, 4, 5), (3, 2, 7)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_projections(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    x = torch.zeros(shape, dtype=dtype)
    dimensions = x[0].numel()
    for kind in KINDS:
        v = sm.projections(kind, x, Noise(3), 5)
        assert v.shape == (5, *shape)
        assert v.dtype == dtype
        torch.testing.assert_close(
            v[0], sm.projections(kind, x, Noise(3))
        )  # one after the other: M changes nothing
        if kind == "sphere":
            radius = v.double().flatten(2).norm(dim=2)
            tolerance = 1e-2 if dtype == torch.bfloat16 else 1e-6 if dtype == torch.float32 else 1e-12
            torch.testing.assert_close(
                radius, torch.full_like(radius, math.sqrt(dimensions)), rtol=tolerance, atol=0
            )
        if kind == "rademacher":
            assert set(v.unique().tolist()) == {-1.0, 1.0}


@pytest.mark.parametrize("kind", KINDS)
def test_projections_have_identity_second_moment(kind: sm.ProjectionKind) -> None:
    # [SSM §3]
    count = 40000
    v = sm.projections(kind, torch.zeros(1, 3, dtype=torch.float64), Noise(0), count)[:, 0]
    outer = v[:, :, None] * v[:, None, :]
    standard_error = outer.std(dim=0) / math.sqrt(count) + 1e-12
    assert (((outer.mean(dim=0) - torch.eye(3)) / standard_error).abs() < 4).all()


def test_rademacher_has_no_zero() -> None:
    class Zeros:
        def normal(self, shape: tuple[int, ...]) -> Tensor:
            return torch.zeros(shape)

    assert sm.projections("rademacher", torch.zeros(2, 3), Zeros()).abs().min() == 1


@pytest.mark.parametrize("shape", [(3, 2, 4, 3), (3, 2, 5), (3, 4)])
def test_ranks_agree_with_the_flattened_form(shape: tuple[int, ...]) -> None:
    """The sums run over every data dimension, not the last one."""
    g = torch.Generator().manual_seed(4)
    x, target, eps, v1 = torch.randn(4, *shape, dtype=torch.float64, generator=g)
    v = torch.randn(3, *shape, dtype=torch.float64, generator=g)
    weight = torch.randn(x[0].numel(), x[0].numel(), dtype=torch.float64, generator=g)
    sigma = tensor(0.5, 1.0, 2.0)

    def flat_score(y: Tensor) -> Tensor:
        return torch.tanh(y @ weight)

    def score(y: Tensor) -> Tensor:
        return flat_score(y.reshape(len(y), -1)).reshape(y.shape)

    def flat(y: Tensor) -> Tensor:
        return y.reshape(*y.shape[: y.ndim - len(shape) + 1], -1)

    pairs = [
        (
            sm.explicit_score_matching(score, x, target),
            sm.explicit_score_matching(flat_score, flat(x), flat(target)),
        ),
        (sm.implicit_score_matching(score, x), sm.implicit_score_matching(flat_score, flat(x))),
        (
            sm.denoising_score_matching(score, x, eps, sigma),
            sm.denoising_score_matching(flat_score, flat(x), flat(eps), sigma),
        ),
    ]
    for w in (v1, v):
        pairs += [
            (
                sm.explicit_sliced_score_matching(score, x, target, w),
                sm.explicit_sliced_score_matching(flat_score, flat(x), flat(target), flat(w)),
            ),
            (sm.sliced_score_matching(score, x, w), sm.sliced_score_matching(flat_score, flat(x), flat(w))),
            (
                sm.sliced_score_matching_vr(score, x, w),
                sm.sliced_score_matching_vr(flat_score, flat(x), flat(w)),
            ),
        ]
    for value, expected in pairs:
        assert value.shape == (3,)
        torch.testing.assert_close(value, expected, rtol=1e-12, atol=1e-12)


EVERY: dict[str, Callable[[sm.Score, Tensor], Tensor]] = {
    "explicit": lambda s, x: sm.explicit_score_matching(s, x, torch.zeros_like(x)),
    "explicit sliced": lambda s, x: sm.explicit_sliced_score_matching(
        s, x, torch.zeros_like(x), torch.ones_like(x)
    ),
    "implicit": sm.implicit_score_matching,
    "sliced": lambda s, x: sm.sliced_score_matching(s, x, torch.ones_like(x)),
    "vr": lambda s, x: sm.sliced_score_matching_vr(s, x, torch.ones(2, *x.shape, dtype=x.dtype)),
    "denoising": lambda s, x: sm.denoising_score_matching(s, x, torch.ones_like(x), 0.7),
}
every_loss = pytest.mark.parametrize("loss", EVERY.values(), ids=EVERY.keys())


@every_loss
def test_no_grad_and_inference_mode_give_the_same_numbers(loss: Callable[[sm.Score, Tensor], Tensor]) -> None:
    net = SmallMLP(3)
    scores: list[sm.Score] = [net, sm.score_from_energy(lambda y: net(y).square().sum(dim=1))]
    for score in scores:
        x = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)
        expected = loss(score, x)
        assert expected.requires_grad
        with torch.no_grad():
            value = loss(score, x)
        assert not value.requires_grad
        torch.testing.assert_close(value, expected.detach())
        with torch.inference_mode():
            value = loss(score, x + 0.0)
        torch.testing.assert_close(value.clone(), expected.detach())
        assert torch.is_grad_enabled()


@every_loss
def test_the_callers_tensors_stay_as_they_are(loss: Callable[[sm.Score, Tensor], Tensor]) -> None:
    net = SmallMLP(3)
    x = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)
    before = x.clone()
    loss(net, x).sum().backward()
    assert torch.equal(x, before)
    assert not x.requires_grad
    assert x.grad is None
    with torch.no_grad():
        leaf = x.clone().requires_grad_(True)
        loss(net, leaf)
        assert leaf.requires_grad
        assert leaf.grad is None


@every_loss
def test_gradients_reach_an_input_that_asks_for_them(loss: Callable[[sm.Score, Tensor], Tensor]) -> None:
    """x as a leaf and x computed from something: both get the gradient that finite differences give."""
    net = SmallMLP(3)
    scale = torch.tensor(0.8, dtype=torch.float64, requires_grad=True)
    base = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3)
    assert torch.autograd.gradcheck(lambda s: loss(net, base * s), (scale,))
    assert torch.autograd.gradcheck(lambda y: loss(net, y), (base.clone().requires_grad_(True),))


@every_loss
def test_scores_with_no_or_a_constant_jacobian(loss: Callable[[sm.Score, Tensor], Tensor]) -> None:
    x = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)
    bias = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    weight = torch.nn.Parameter(torch.eye(3, dtype=torch.float64))
    fixed: list[sm.Score] = [
        torch.zeros_like,
        lambda y: -y,
        lambda y: y,
        lambda y: y.detach(),
        lambda y: y @ weight.detach(),
    ]
    for score in fixed:
        assert loss(score, x).isfinite().all()
    (g,) = torch.autograd.grad(loss(lambda y: bias.expand_as(y), x).sum(), bias)
    assert g.isfinite().all()
    (g,) = torch.autograd.grad(loss(lambda y: y @ weight, x).sum(), weight)
    assert g.isfinite().all()


def test_constant_and_linear_scores_by_hand() -> None:
    x, v = tensor([1.0, 2.0], [0.5, -1.0]), tensor([1.0, 3.0], [2.0, 1.0])
    assert sm.implicit_score_matching(torch.ones_like, x).tolist() == [1.0, 1.0]
    assert sm.sliced_score_matching(torch.ones_like, x, v).tolist() == [8.0, 4.5]
    assert sm.implicit_score_matching(lambda y: -y, x).tolist() == [-2 + 2.5, -2 + 0.625]
    assert sm.sliced_score_matching(lambda y: -y, x, v).tolist() == [-10 + 24.5, -5 + 0.0]
    assert sm.sliced_score_matching_vr(lambda y: -y, x, v).tolist() == [-10 + 2.5, -5 + 0.625]
    assert sm.denoising_score_matching(lambda y: -y, x, v, 2.0).tolist() == [
        0.5 * (2.5**2 + 6.5**2),
        0.5 * (3.5**2 + 0.5**2),
    ]


def test_energy_gives_a_curl_free_trainable_score() -> None:
    net = SmallMLP(3)
    score = sm.score_from_energy(lambda y: net(y).square().sum(dim=1))
    x = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)
    direct = torch.func.vmap(torch.func.grad(lambda y: net(y).square().sum()))(x)
    torch.testing.assert_close(score(x), -direct)
    jacobian = torch.autograd.functional.jacobian(lambda y: score(y[None])[0], x[0])
    torch.testing.assert_close(jacobian, jacobian.T)
    sm.implicit_score_matching(score, x).mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in (net.W1, net.b1, net.W2, net.b2))
    with pytest.raises(InputError, match="one value per example"):
        sm.score_from_energy(lambda y: y)(x)


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_the_loss_has_the_dtype_of_x(loss: Callable[[sm.Score, Tensor], Tensor], dtype: torch.dtype) -> None:
    x = torch.linspace(-1, 1, 12, dtype=dtype).reshape(4, 3)
    value = loss(lambda y: torch.tanh(-y), x)
    assert value.dtype == dtype
    expected = loss(lambda y: torch.tanh(-y), x.double())
    torch.testing.assert_close(
        value.double(), expected, rtol=8 * torch.finfo(dtype).eps, atol=16 * torch.finfo(dtype).eps
    )
    mixed = loss(lambda y: torch.tanh(-y).to(torch.bfloat16), x)  # as a network under autocast answers
    assert mixed.dtype == dtype


def test_the_score_is_evaluated_once() -> None:
    calls: list[Tensor] = []

    def score(y: Tensor) -> Tensor:
        calls.append(y)
        return -y

    x = torch.zeros(2, 3)
    sm.sliced_score_matching(score, x, torch.ones(4, 2, 3))
    sm.implicit_score_matching(score, x)
    assert [tuple(y.shape) for y in calls] == [(2, 3), (2, 3)]


def test_sigma_may_be_a_number_or_one_per_example() -> None:
    x, eps = torch.randn(2, 3, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    levels = torch.tensor([0.1, 1.0, 10.0], dtype=torch.float64)
    together = sm.denoising_score_matching(lambda y: -y, x, eps, levels)
    for i, sigma in enumerate(levels.tolist()):
        for value in (sigma, torch.tensor(sigma)):
            torch.testing.assert_close(
                sm.denoising_score_matching(lambda y: -y, x, eps, value)[i], together[i]
            )
    assert together.dtype == torch.float32


@every_loss
def test_bad_inputs_are_explained(loss: Callable[[sm.Score, Tensor], Tensor]) -> None:
    x = torch.zeros(4, 3)
    with pytest.raises(InputError, match=r"a score .*\(4, 3\), got \(4, 2\)"):
        loss(lambda y: y[:, :2], x)
    with pytest.raises(InputError, match=r"a score .*got a tuple"):
        loss(lambda y: (y, y), x)  # type: ignore[arg-type, return-value]
    with pytest.raises(InputError, match=r"floating-point values, got torch.int64"):
        loss(lambda y: y, torch.zeros(4, 3, dtype=torch.int64))
    for empty in (torch.zeros(4), torch.zeros(0, 3), torch.zeros(4, 0)):
        with pytest.raises(InputError, match="non-empty batch"):
            loss(lambda y: y, empty)


@pytest.mark.parametrize("shape", [(3,), (4, 2), (3, 4), (2, 4, 2), (0, 4, 3), (1, 1, 4, 3)])
def test_bad_projections_are_explained(shape: tuple[int, ...]) -> None:
    x, v = torch.zeros(4, 3), torch.zeros(shape)
    for call in (
        lambda: sm.sliced_score_matching(lambda y: y, x, v),
        lambda: sm.sliced_score_matching_vr(lambda y: y, x, v),
        lambda: sm.explicit_sliced_score_matching(lambda y: y, x, x, v),
    ):
        with pytest.raises(
            InputError, match=r"projections must have the shape of x, \(4, 3\), or \(M, 4, 3\)"
        ):
            call()


@pytest.mark.parametrize("sigma", [0, 0.0, -1.0, math.nan, math.inf, torch.tensor([1.0, 1.0, 0.0, 1.0])])
def test_bad_sigma_is_explained(sigma: float | Tensor) -> None:
    with pytest.raises(InputError, match=r"sigma must be (positive and finite|a finite number above 0)"):
        sm.denoising_score_matching(lambda y: y, torch.zeros(4, 3), torch.zeros(4, 3), sigma)


def test_an_exact_trace_in_too_many_dimensions_is_refused() -> None:
    with pytest.raises(InputError, match=r"12,289 dimensions .*at most 12,288 .*sliced_score_matching_vr"):
        sm.implicit_score_matching(lambda x: -x, torch.zeros(1, 3 * 64 * 64 + 1))


def test_other_bad_arguments_are_explained() -> None:
    x = torch.zeros(4, 3)
    with pytest.raises(InputError, match="one value per example"):
        sm.denoising_score_matching(lambda y: y, x, x, torch.ones(3))
    with pytest.raises(InputError, match="eps must have shape"):
        sm.denoising_score_matching(lambda y: y, x, torch.zeros(3), 1.0)
    for target in (torch.zeros(3), lambda y: y[:, :1]):
        with pytest.raises(InputError, match="the target score"):
            sm.explicit_score_matching(lambda y: y, x, target)
    with pytest.raises(InputError, match="projection must be one of rademacher, gaussian, sphere"):
        sm.projections("uniform", x, Noise(0))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="count, the number of projections, must be a positive integer"):
        sm.projections("sphere", x, Noise(0), 0)
