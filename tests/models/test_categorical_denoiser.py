"""The model of categories: what the network is given, what its output means, how data become categories, and
its refusals.
"""

import numpy as np
import pytest
import torch
from categories import KINDS, between, probabilities, step_matrices

import scorefield as sf
from scorefield.core.distributions import Categorical

F64 = torch.float64
KAPPAS = [0.8, 0.3, 0.0]
K = 3


def random_net(seed=0, K=K, labels=False):
    """Logits that depend on all of x, c and y, and remember what they were given."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(200, 200, dtype=F64, generator=generator)

    def net(x, c, y=None):
        net.seen = (x, c, y)  # type: ignore[attr-defined]
        B, D = x.shape[0], x[0].numel()
        out = x.double().reshape(B, D) @ mix[:D, : K * D // net.states] + 0.1 * c.double()[:, None]  # type: ignore[attr-defined]
        out = out if y is None else out + y.double()[:, None] * mix[0, : out.shape[1]]
        return out.reshape(B, K * x.shape[1] // net.states, *x.shape[2:])  # type: ignore[attr-defined]

    net.states = K  # type: ignore[attr-defined]
    return net


def model_of(kind, parametrization="x0", shape=(2, 4), **options):
    process, net = KINDS[kind](KAPPAS, K), random_net()
    net.states = process.states
    return sf.CategoricalDenoiser(
        net, process, parametrization, data=sf.DataSpec(shape, bins=K), **options
    ), net


@pytest.mark.parametrize("kind", KINDS)
def test_the_network_sees_one_hot_states_category_by_category(kind):
    model, net = model_of(kind, noise_input="scaled")
    S = model.process.states
    x_t = torch.randint(0, K, (5, 2, 4), generator=torch.Generator().manual_seed(1))
    p0 = model(x_t, torch.tensor([1, 1, 2, 2, 1]))
    x, c, _ = net.seen
    assert x.shape == (5, S * 2, 4)
    for k in range(S):
        for channel in range(2):
            assert torch.equal(x[:, k * 2 + channel], (x_t[:, channel] == k).float())
    assert torch.allclose(c, torch.tensor([0.0, 0.0, 1000 / 3, 1000 / 3, 0.0]))
    assert p0.log_p.shape == (5, K, 2, 4)
    assert p0.log_p.dtype == F64  # the network's


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("parametrization", ["x0", "bayes"])
def test_what_the_logits_mean(kind, parametrization):
    """ "x0": softmax over what can have led to x_t; "bayes": times the explicit q(x_t | x_0).  [D3PM §3.3]"""
    model, net = model_of(kind, parametrization)
    matrices = step_matrices(kind, K, KAPPAS)
    x_t = torch.randint(0, model.process.states, (6, 2, 4), generator=torch.Generator().manual_seed(2))
    for t in (1, 2):
        actual = probabilities(model(x_t, t))
        logits = net(*net.seen).reshape(6, K, 2, 4).numpy()
        likelihood = between(matrices, t, 0)[:K][:, x_t.numpy()].swapaxes(0, 1)  # (B, K, C, W)
        expected = np.exp(logits) * (likelihood if parametrization == "bayes" else likelihood > 0)
        assert np.abs(actual - expected / expected.sum(1, keepdims=True)).max() < 1e-13


def test_bayes_is_the_papers_formula():
    """p(x_s | x_t) ∝ Σ_i q(x_s, x_t | x_0 = i) p̃(i).  [D3PM Eq. 4]"""
    model, net = model_of("uniform", "bayes", shape=(1,))
    matrices = step_matrices("uniform", K, KAPPAS)
    x_t = torch.arange(K)[:, None]
    for t, s in ((1, 0), (2, 1), (3, 1), (3, 2)):
        actual = probabilities(model.process.reverse(x_t, model(x_t, t), t, s))[:, :, 0]
        weights = net(*net.seen).softmax(dim=1).numpy()
        joint = np.einsum("bi,is,sb->bs", weights, between(matrices, s, 0), between(matrices, t, s))
        assert np.abs(actual - joint / joint.sum(1, keepdims=True)).max() < 1e-13


def test_data_become_categories():
    model, _ = model_of("uniform")
    levels = torch.randint(0, K, (3, 2, 4), generator=torch.Generator().manual_seed(0))
    for x in (
        model.data.from_bins(levels),
        model.data.from_bins(levels).double(),
        levels,
        levels.to(torch.uint8),
    ):
        categories = model.categories(x)
        assert torch.equal(categories, levels)
        assert categories.dtype == torch.int64
    for x, message in (
        (model.data.from_bins(levels) + 0.01, "grid of 3 bins"),
        (levels + 1, "categories 0 … 2"),
        (levels > 0, "integers"),
    ):
        with pytest.raises(sf.InputError, match=message):
            model.categories(x)
    unknown = sf.CategoricalDenoiser(model.net, model.process)
    assert torch.equal(unknown.categories(levels), levels)
    with pytest.raises(sf.InputError, match="bins=K"):
        unknown.categories(levels.float())


def test_labels_are_bound_before_sampling():
    model, net = model_of("uniform")
    x_t = torch.zeros(3, 2, 4, dtype=torch.int64)
    given = model.given([2, 0, 1])(x_t, 1)
    assert net.seen[2].tolist() == [2, 0, 1]
    assert torch.equal(given.log_p, model(x_t, 1, torch.tensor([2, 0, 1])).log_p)
    with pytest.raises(sf.InputError, match="3 labels"):
        model.given([2, 0, 1])(x_t[:2], 1)


def test_parameters_decide_the_dtype():
    process = sf.process.uniform_categorical(KAPPAS, K)
    net = sf.nets.MLP(K * 2)
    model = sf.CategoricalDenoiser(net, process)
    x_t = torch.tensor([[0, 1], [2, 2]])
    assert model(x_t, 1).log_p.dtype == torch.float32
    model.double()
    assert model(x_t, 1).log_p.dtype == F64
    model.float().autocast_dtype = torch.bfloat16
    assert model(x_t, 1).log_p.dtype == torch.float32


def test_refusals():
    model, _ = model_of("uniform")
    gaussian = sf.process.from_betas(sf.process.cosine_betas(10))
    wrong = lambda x, c, y=None: x[:, :1]  # noqa: E731
    x_t = torch.zeros(2, 2, 4, dtype=torch.int64)
    for act, message in (
        (lambda: sf.CategoricalDenoiser(model.net, gaussian), "sf.Denoiser"),  # type: ignore[arg-type]
        (lambda: sf.Denoiser(model.net, model.process), "must be a Gaussian process"),
        (lambda: sf.CategoricalDenoiser(model.net, model.process, "eps"), "one of x0, bayes"),
        (
            lambda: sf.CategoricalDenoiser(model.net, model.process, noise_input="log_sigma"),
            "one of index, scaled, rank",
        ),
        (
            lambda: sf.CategoricalDenoiser(model.net, model.process, data=sf.DataSpec((2,), bins=17)),
            "17 levels",
        ),
        (lambda: sf.CategoricalDenoiser(model.net, model.process, data=sf.DataSpec((2,))), "no levels"),
        (lambda: sf.CategoricalDenoiser(wrong, model.process)(x_t, 1), r"needs \(2, 6, 4\)"),
        (lambda: model(x_t, 0), "t must be > 0"),
        (lambda: model_of("absorbing")[0](x_t, 3), "erased every value"),
    ):
        with pytest.raises(sf.InputError, match=message):
            act()


def test_wrappers_of_gaussian_models_refuse_it():
    model, _ = model_of("uniform")
    for wrap in (sf.guidance.ClipX0, lambda m: sf.guidance.ClassifierGuidance(m, lambda x, t: x, 0, 1.0)):
        with pytest.raises(sf.IncompatibleModel, match="CategoricalDenoiser"):
            wrap(model)


def test_an_untrained_model_says_nothing_of_what_it_sees():
    """The U-Net starts at logits 0: with "bayes" that is the exact posterior of evenly distributed values."""
    process = sf.process.uniform_categorical(sf.process.cosine_kappas(10), 4)
    net = sf.nets.UNet(4, channels=32, channel_mult=(1,), blocks=1, attention=())
    model = sf.CategoricalDenoiser(net, process, "bayes")
    x_t = torch.randint(0, 4, (2, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        p0 = model(x_t, 4)
    kappa = process.level(4).item()
    same = p0.log_p.exp().gather(1, x_t.unsqueeze(1))
    assert torch.allclose(same, torch.full_like(same, kappa + (1 - kappa) / 4))
    assert isinstance(p0, Categorical)
