"""Conditioning beyond labels: a network's further arrays, from the data in training and bound in sampling."""

import pytest
import torch
from torch import nn

import scorefield as sf
from scorefield.generation.sample_blocks import sample_blocks
from scorefield.models.network import describe_network

PROCESS = sf.process.cosine(50)
SPEC = sf.DataSpec((2,))


class Shifted(nn.Module):
    """F = ε̂ of data that are N(m, I) for an array m of each example: exact, ε̂ = σ(x_t − α m)."""

    nulls = {"mean": 0.0}

    def __init__(self, process=PROCESS):
        super().__init__()
        self.process, self.seen = process, []
        self.gain = nn.Parameter(torch.ones(()))

    def forward(self, x, c, y=None, *, mean, scale=None):
        self.seen.append((y, mean, scale))
        alpha, sigma = (part.to(x)[:, None] for part in self.process.level((c + 1).cpu()))
        return self.gain * sigma * (x - alpha * mean)


def normal(n):
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(0))


def model(net=None):
    return sf.Denoiser(net or Shifted(), PROCESS, data=SPEC)


def test_a_network_says_what_it_takes():
    facts = describe_network(Shifted())
    assert (facts.arrays, facts.required, facts.takes_any) == ({"mean", "scale"}, {"mean"}, False)
    assert describe_network(lambda x, c, y=None, **arrays: x).takes_any
    assert describe_network(sf.nets.MLP(2)).arrays == frozenset()
    small = {"channels": 32, "channel_mult": (1,), "blocks": 1, "attention": ()}
    assert describe_network(sf.nets.UNet(1, **small)).arrays == frozenset()  # type: ignore[arg-type]
    facts = describe_network(sf.nets.UNet(1, low_res=True, **small))  # type: ignore[arg-type]
    assert (facts.arrays, facts.required) == ({"low_res"}, {"low_res"})
    assert describe_network(torch.sin).takes_any

    class Wrong(nn.Module):
        nulls = {"mask": 0.0}

        def forward(self, x, c):
            return x

    with pytest.raises(sf.IncompatibleModel, match="takes no array of that name"):
        describe_network(Wrong())


def test_bound_arrays_reach_the_network_row_by_row():
    x, mean = normal(3), torch.tensor([[3.0, 0], [0, 3], [-3, 0]])
    net = Shifted()
    bound = model(net).given(mean=mean)
    bound(x, 10)
    assert torch.equal(net.seen[-1][1], mean)
    grid = sf.grids.full(PROCESS)
    noise = sf.noise.NoiseSource(0, range(3))
    samples = sf.sample(bound, sf.samplers.DDIM(), grid, x_T=x, noise=noise)
    # The flow of N(m, I) on a variance-preserving process: x_T = x_0 − m + α_T m, nearly.
    torch.testing.assert_close(samples, x + mean, rtol=0, atol=0.1)
    shared = model().given(mean=torch.tensor([[3.0, 0]]))
    torch.testing.assert_close(
        sf.sample(shared, sf.samplers.DDIM(), grid, x_T=x), x + torch.tensor([3.0, 0]), rtol=0, atol=0.1
    )
    assert "mean=(1, 2)" in repr(shared)


def test_arrays_are_bound_one_after_another():
    first = model().given(scale=torch.ones(1, 1))
    assert (first.missing, first.arrays) == ({"mean"}, {"mean"})
    both = first.given(mean=torch.zeros(1, 2))
    assert (both.missing, both.arrays) == (frozenset(), frozenset())
    clipped = sf.guidance.ClipX0(model()).given(mean=torch.zeros(1, 2))
    assert isinstance(clipped, sf.guidance.ClipX0)
    assert clipped.missing == frozenset()


def test_integers_stay_integers():
    class Tokens(nn.Module):
        def forward(self, x, c, y=None, tokens=None):
            self.seen = tokens
            return x

    net = Tokens()
    sf.Denoiser(net, PROCESS).given(tokens=torch.tensor([[5, 7]]))(torch.zeros(2, 2, dtype=torch.float64), 3)
    assert net.seen.tolist() == [[5, 7], [5, 7]]


def test_what_does_not_fit_is_refused_before_sampling():
    grid, x = [50, 0], torch.zeros(2, 2)
    with pytest.raises(sf.InputError, match=r"needs the array 'mean'.*model.given\(mean=...\)"):
        sf.sample(model(), sf.samplers.DDIM(), grid, x_T=x)
    with pytest.raises(sf.InputError, match=r"takes no array 'maen'.*did you mean 'mean'"):
        model().given(maen=x)
    with pytest.raises(sf.InputError, match=r"takes no array 'mask'.*takes none.*remove mask"):
        sf.Denoiser(sf.nets.MLP(2), PROCESS).given(mask=x)
    with pytest.raises(sf.InputError, match=r"3 rows of mean are bound.*2 examples"):
        model().given(mean=torch.zeros(3, 2))(x, 3)
    with pytest.raises(sf.InputError, match="needs the array 'mean'"):
        next(sample_blocks(model(), sf.samplers.DDIM(), grid, 2, 0))
    bound = sf.Denoiser(sf.nets.MLP(2, num_classes=3), PROCESS, data=SPEC).given(1)
    with pytest.raises(sf.InputError, match="labels are already bound"):
        bound.given(2)


def test_conditions_are_cycled_over_blocks():
    mean = torch.tensor([[4.0, 0], [0, 4], [-4, 0]])
    options = {"conditions": {"mean": mean}, "size": 32}
    grid = sf.grids.full(PROCESS)
    many = torch.cat(
        [block.x for block in sample_blocks(model(), sf.samplers.DDIM(), grid, 70, 0, **options)]  # type: ignore[arg-type]
    )
    plain = torch.cat(
        [
            block.x
            for block in sample_blocks(
                model(), sf.samplers.DDIM(), grid, 70, 0, conditions={"mean": 0 * mean}
            )
        ]
    )
    torch.testing.assert_close(many - plain, mean[torch.arange(70) % 3], rtol=0, atol=0.1)
    (few,) = sample_blocks(model(), sf.samplers.DDIM(), grid, 5, 0, **options)  # type: ignore[arg-type]
    torch.testing.assert_close(few.x, many[:5])


def test_guidance_doubles_each_array_and_drops_those_with_a_null():
    """ε̂ = ε̂(null) + s(ε̂(m) − ε̂(null)), from the network called by hand; `scale` has no null and stays."""
    net = Shifted()
    x, mean, scale = normal(2), torch.tensor([[2.0, 1], [0, 1]]), torch.tensor([[1.0], [2.0]])
    bound = model(net).given(mean=mean, scale=scale)
    guided = sf.guidance.ClassifierFree(bound, None, 3.0)
    with torch.no_grad():
        got = guided(x, 20).eps
        y, seen, kept = net.seen[-1]
        free, conditional = (net(x, torch.full((2,), 19.0), mean=m) for m in (0 * mean, mean))
    assert y is None
    assert torch.equal(seen, torch.cat([0 * mean, mean]))
    assert torch.equal(kept, torch.cat([scale, scale]))
    torch.testing.assert_close(got, free + 3 * (conditional - free), rtol=1e-4, atol=1e-5)
    clipped = sf.guidance.ClassifierFree(sf.guidance.ClipX0(bound, -50, 50), None, 3.0)
    torch.testing.assert_close(clipped(x, 20).eps.detach(), got, rtol=1e-4, atol=1e-5)
    with pytest.raises(sf.IncompatibleModel, match="label_dropout"):
        sf.guidance.ClassifierFree(model(), None, 3.0)


def test_guidance_with_labels_and_an_array():
    class Both(nn.Module):
        config = {"num_classes": 3, "null_label": True}
        nulls = {"mean": torch.tensor([7.0, 8.0])}

        def forward(self, x, c, y=None, mean=None):
            self.seen = (y, mean)
            return x

    net = Both()
    data = sf.DataSpec((2,), classes=("a", "b", "c"))
    bound = sf.Denoiser(net, PROCESS, data=data).given(mean=torch.ones(1, 2))
    sf.guidance.ClassifierFree(bound, [0, 2], 2.0)(torch.zeros(2, 2), 5)
    assert net.seen[0].tolist() == [3, 3, 0, 2]
    assert net.seen[1].tolist() == [[7, 8], [7, 8], [1, 1], [1, 1]]
    with pytest.raises(sf.IncompatibleModel, match="binds the labels itself"):
        sf.guidance.ClassifierFree(bound.given(1), 2, 2.0)
    sf.guidance.ClassifierFree(bound.given(1), None, 2.0)(torch.zeros(2, 2), 5)
    assert net.seen[0].tolist() == [3, 3, 1, 1]


DATA = {
    "x": torch.randn(40, 2, generator=torch.Generator().manual_seed(0)),
    "mean": torch.arange(80.0).reshape(40, 2),
    "unused": torch.arange(40),
}


def train(net, data, objective=sf.objectives.Simple, **options):
    trainer = sf.train(
        objective(model(net)), data, steps=2, batch_size=8, device="cpu", precision="fp32", **options
    )
    losses = [step.loss for step in trainer]
    return trainer, losses


def test_training_takes_the_arrays_that_the_network_names():
    net = Shifted()
    data = sf.data.tensor(DATA["x"], mean=DATA["mean"], unused=DATA["unused"])
    train(net, data)
    seen = torch.cat([mean for _, mean, _ in net.seen])
    assert seen.shape == (16, 2)
    assert torch.equal(seen[:, 1] - seen[:, 0], torch.ones(16))  # rows of the array, one per example
    assert len(seen.unique(dim=0)) == 16
    assert all(scale is None for _, _, scale in net.seen)


def test_the_unconditional_branch_is_guidance_at_scale_0():
    net = sf.nets.MLP(2, hidden=8, layers=1, num_classes=3, null_label=True)
    torch.nn.init.normal_(net.label_emb.weight)
    made = sf.Denoiser(net, PROCESS, data=sf.DataSpec((2,), classes=("a", "b", "c")))
    x = normal(4)
    with torch.no_grad():
        expected = sf.guidance.ClassifierFree(made, [0, 1, 2, 0], 0.0)(x, 20).x0
        assert not torch.allclose(made.given([0, 1, 2, 0])(x, 20).x0, expected)
        for model in (made, made.given(2), sf.guidance.ClipX0(made, -50, 50)):
            torch.testing.assert_close(model.unconditional()(x, 20).x0, expected)
    sample = sf.sample(made.unconditional(), sf.samplers.DDIM(), [50, 20, 0], n=3, noise=sf.NoiseSource(0))
    assert sample.shape == (3, 2)


def test_the_unconditional_branch_drops_arrays_with_a_null():
    net = Shifted()
    bound = model(net).given(mean=torch.ones(1, 2), scale=torch.full((1, 2), 5.0))
    bound.unconditional()(normal(2), 20)
    _, mean, scale = net.seen[-1]
    assert mean.abs().max() == 0
    assert scale.unique().tolist() == [5]
    assert bound.bound["mean"].unique().tolist() == [1]


def test_models_without_an_unconditional_branch_say_so():
    plain = sf.Denoiser(sf.nets.MLP(2, hidden=8, num_classes=3), PROCESS, data=SPEC)
    dropped = sf.Denoiser(sf.nets.MLP(2, hidden=8, num_classes=3, null_label=True), PROCESS, data=SPEC)
    for lacking in (model(), plain, plain.given(1)):
        with pytest.raises(sf.IncompatibleModel, match="train a conditional model with label_dropout"):
            lacking.unconditional()
    with pytest.raises(sf.IncompatibleModel, match="inside the guidance"):
        sf.guidance.ClassifierFree(dropped, 1, 2.0).unconditional()


def test_dropout_drops_arrays_with_a_null():
    net = Shifted()
    data = sf.data.tensor(DATA["x"], mean=DATA["mean"] + 1)
    train(net, data, label_dropout=0.5)
    seen = torch.cat([mean for _, mean, _ in net.seen])
    dropped = (seen == 0).all(dim=1)
    assert 2 <= int(dropped.sum()) <= 14
    assert bool((seen[~dropped] > 0).all())
    with pytest.raises(sf.InputError, match="label_dropout"):
        train(sf.nets.MLP(2), data, label_dropout=0.5)


def test_one_coin_per_example_drops_label_and_array_together():
    class Both(nn.Module):
        config = {"kind": "custom", "num_classes": 2, "null_label": True}
        nulls = {"mean": -1.0}

        def __init__(self):
            super().__init__()
            self.gain, self.seen = nn.Parameter(torch.ones(())), []

        def forward(self, x, c, y=None, mean=None):
            self.seen.append((y, mean))
            return self.gain * x

    net = Both()
    data = sf.data.tensor(DATA["x"], torch.arange(40) % 2, mean=DATA["mean"])
    list(
        sf.train(
            sf.objectives.Simple(sf.Denoiser(net, PROCESS)),
            data,
            steps=3,
            batch_size=8,
            label_dropout=0.4,
            device="cpu",
        )
    )
    y, mean = (torch.cat(parts) for parts in zip(*net.seen, strict=True))
    assert torch.equal(y == 2, (mean == -1).all(dim=1))
    assert 0 < int((y == 2).sum()) < 24


def test_images_among_the_arrays_move_with_the_image():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.gain, self.seen = nn.Parameter(torch.ones(())), []

        def forward(self, x, c, y=None, mask=None):
            self.seen.append((x, mask))
            return self.gain * x

    net = Masked()
    x = torch.rand(16, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    process = sf.process.geometric(1e-3, 1e-4, 10)  # nearly no noise
    data = sf.data.tensor(x, range=(0, 1), mask=x)
    list(
        sf.train(
            sf.objectives.Simple(sf.Denoiser(net, process, "x0")),
            data,
            steps=2,
            batch_size=8,
            flip=True,
            shift=1,
            device="cpu",
            precision="fp32",
        )
    )
    for shown, mask in net.seen:
        torch.testing.assert_close(shown, mask, rtol=0, atol=0.01)


def test_data_without_a_required_array_are_refused():
    with pytest.raises(
        sf.InputError, match=r"needs the array 'mean'.*no further arrays.*sf.data.tensor\(x, mean=...\)"
    ):
        train(Shifted(), DATA["x"])
    with pytest.raises(sf.InputError, match="its further arrays are unused"):
        train(Shifted(), sf.data.tensor(DATA["x"], unused=DATA["unused"]))


def test_an_objective_of_ones_own_that_passes_no_arrays_is_refused():
    class Own(sf.objectives.Simple):
        def forward(self, x0, y, noise):  # type: ignore[override]
            return super().forward(x0, y, noise)

    data = sf.data.tensor(DATA["x"], mean=DATA["mean"])
    with pytest.raises(sf.InputError, match=r"Own.forward passes no arrays on"):
        train(Shifted(), data, Own)
    train(sf.nets.MLP(2, hidden=16), data, Own)  # a network that takes none


def test_likelihoods_condition_on_the_arrays_of_the_data():
    """The exact model of N(m, I) given m: the bound differs from ½ log 2πe + ½|x − m|² by its steps only."""
    mean = DATA["mean"][:6] / 80
    x0 = DATA["x"][:6] + mean
    bits = sf.likelihood.bits_per_dim(
        model().given(mean=mean), x0, sf.noise.NoiseSource(0), decoder="density"
    )
    other = sf.likelihood.bits_per_dim(
        model().given(mean=mean + 5), x0, sf.noise.NoiseSource(0), decoder="density"
    )
    assert bits.total.mean() < other.total.mean()
    with pytest.raises(sf.InputError, match="needs the array 'mean'"):
        sf.likelihood.bits_per_dim(model(), x0, sf.noise.NoiseSource(0), decoder="density")
    with pytest.raises(sf.InputError, match="needs the array 'mean'"):
        sf.likelihood.ode_log_prob(model(), x0)
