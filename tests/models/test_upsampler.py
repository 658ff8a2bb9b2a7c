"""Models that enlarge images: what training shows them, what sampling binds, and that neither mixes up the
images.
"""

import json

import pytest
import torch
from support import GOLDEN
from torch import nn

import scorefield as sf
from scorefield.data import reduced
from scorefield.generation.sample_blocks import sample_blocks
from scorefield.interop.cards import card
from scorefield.interop.guided_diffusion import describe
from scorefield.runs.build import (
    build_model,
    build_net,
    build_objective,
    build_process,
    expected_data,
    read_recipe,
    with_overrides,
)

PROCESS = sf.process.from_betas(sf.process.cosine_betas(200))
SPEC = sf.DataSpec((1, 4, 4), range=(-4.0, 4.0), classes=tuple("abc"))


def box_means(x):
    """(B, C, 2a, 2b) -> (B, C, a, b), by summing the four pixels of each box."""
    return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4


def by_pixels(x):
    """Each pixel of a small image as a box of four."""
    return x.repeat_interleave(2, -1).repeat_interleave(2, -2)


class Exact(nn.Module):
    """E[x_0 | x_t, low_res] of white noise x_0 ~ N(0, I) whose box means are low_res, on a VP process, c =
    ln(σ/α)/4.

    Outside the box means x_0 and x_t are independent pixel by pixel, and E[x_0 | x_t] = α x_t.
    """

    config = {"num_classes": 3}

    def forward(self, x, c, y=None, low_res=None):
        guess = torch.rsqrt(1 + torch.exp(8 * c)).reshape(-1, 1, 1, 1) * x
        return guess - by_pixels(box_means(guess)) + by_pixels(low_res)


@pytest.fixture
def exact():
    return sf.Denoiser(Exact(), PROCESS, "x0", noise_input="log_sigma", data=SPEC, low_res=2)


def unet(**options):
    torch.manual_seed(0)
    net = sf.nets.UNet(1, channels=32, channel_mult=(1,), blocks=1, attention=(), low_res=True, **options)
    with torch.no_grad():
        for (
            parameter
        ) in net.parameters():  # the zero-initialised layers too, so that the network does something
            parameter.add_(0.05 * torch.randn_like(parameter))
    return net.eval()


def test_reduced_is_the_mean_of_each_area():
    x = torch.randn(3, 2, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(reduced(x, 6), box_means(x))
    torch.testing.assert_close(reduced(x, 3), box_means(box_means(x)))
    torch.testing.assert_close(reduced(x, 1), x.mean((2, 3), keepdim=True))
    five = torch.stack([x[..., 12 * i // 5 : -(-12 * (i + 1) // 5)].mean(-1) for i in range(5)], -1)
    torch.testing.assert_close(reduced(x, 5)[:, :, 0], five[:, :, :3].mean(2))
    for wrong, message in ((0, "side must be a positive integer"), (13, "1 … min")):
        with pytest.raises(sf.InputError, match=message):
            reduced(x, wrong)


OBJECTIVES = [
    ("simple", {}, 1),
    ("simple", {"weighting": "v"}, 1),
    ("hybrid", {}, 2),
    ("vlb", {"times": "importance"}, 2),
    ("vlb", {"variance": "upper"}, 1),
    ("ncsn", {}, 1),
    ("ncsn", {"method": "sliced"}, 1),
]


@pytest.mark.parametrize(("kind", "options", "heads"), OBJECTIVES)
def test_every_objective_shows_the_reduced_data(kind, options, heads):
    """Loss and gradients are those of an ordinary model whose network was given the box means by hand."""
    # [ADM Sec. 5]
    x0 = sf.DataSpec((1, 4, 4), bins=17).from_bins(
        torch.randint(0, 17, (6, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    )
    y = torch.arange(6) % 3
    net = unet(num_classes=3, out_channels=heads)
    small = box_means(x0)

    class ByHand(nn.Module):
        config = {"num_classes": 3}

        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x, c, y=None):
            return self.net(x, c, y, low_res=small)

    def loss(net, **more):
        spec = sf.DataSpec((1, 4, 4), classes=tuple("abc"), bins=17)
        model = sf.Denoiser(net, PROCESS, "eps", variance="range" if heads == 2 else None, data=spec, **more)
        recipe = with_overrides(read_recipe("digits"), []).model_copy(
            update={"objective": {"kind": kind, **options}}
        )
        arrays = model.conditioning(x0, {})
        result = build_objective(recipe, model)(x0, y, sf.noise.NoiseSource(1, range(6)), **arrays)
        gradients = torch.autograd.grad(
            result.per_example.sum(), [p for p in net.parameters() if p.requires_grad]
        )
        return result, gradients

    (shown, gradients), (by_hand, expected) = loss(net, low_res=2), loss(ByHand())
    torch.testing.assert_close(shown.per_example, by_hand.per_example, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=1e-5)
    small = small.flip(0)
    assert (loss(ByHand())[0].per_example - shown.per_example).abs().max() > 1e-4


SAMPLERS = [sf.samplers.Ancestral("lower"), sf.samplers.DDIM(0.0), sf.samplers.Euler(), sf.samplers.Heun()]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda sampler: type(sampler).__name__)
def test_every_sampler_enlarges_each_image_into_its_own_sample(exact, sampler):
    small = torch.randn(5, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    blocks = list(
        sample_blocks(exact, sampler, sf.grids.uniform(PROCESS, 10), 70, 0, conditions={"low_res": small})
    )
    x = torch.cat([block.x for block in blocks])
    assert len(blocks) == 2
    torch.testing.assert_close(box_means(x), small[torch.arange(70) % 5], rtol=0, atol=2e-5)


def test_what_the_small_images_leave_open_is_sampled(exact):
    """x_0 less its box means is N(0, I − 11ᵀ/4) in each box: variance 3/4, correlation −1/3 between its
    pixels.
    """
    small = torch.tensor([[[[2.0, -1.0], [0.0, 3.0]]]])
    (block,) = sample_blocks(
        exact, sf.samplers.Heun(), sf.grids.full(PROCESS), 640, 0, conditions={"low_res": small}, size=640
    )
    rest = (block.x - by_pixels(small)).unfold(2, 2, 2).unfold(3, 2, 2).reshape(-1, 4).double()
    n = len(rest)
    expected = torch.eye(4, dtype=torch.float64) - 0.25
    assert (rest.T @ rest / n - expected).abs().max() < 4 * 0.75 * (2 / n) ** 0.5


def test_count_order_and_padding_of_blocks_do_not_matter():
    net = unet(num_classes=3, null_label=True)
    model = sf.Denoiser(net, PROCESS, "v", data=SPEC, low_res=2)
    small = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))

    def wrap(model, labels):
        return sf.guidance.ClassifierFree(model, labels, 2.0)

    def images(n, **options):
        given = {"conditions": {"low_res": small}, "labels": [0, 1], "wrap": wrap, "size": 32, **options}
        blocks = list(sample_blocks(model, sf.samplers.DDIM(), sf.grids.uniform(PROCESS, 2), n, 3, **given))
        return torch.cat([block.x for block in blocks])

    many = images(40)
    assert (images(3) - many[:3]).abs().max() < 1e-4
    assert (images(40, conditions={"low_res": small.flip(-1)}) - many).abs().amax((1, 2, 3)).min() > 1e-3
    model.autocast_dtype = torch.bfloat16
    many = images(40)
    assert torch.equal(images(3), many[:3])
    assert torch.equal(images(40, blocks=[1, 0]), torch.cat([many[32:], many[:32]]))


def test_both_branches_of_guidance_see_the_small_image():
    """ε̂_u + s(ε̂_c − ε̂_u), from the network called by hand."""
    net = unet(num_classes=3, null_label=True)
    model = sf.Denoiser(net, PROCESS, "eps", data=SPEC, low_res=2)
    generator = torch.Generator().manual_seed(0)
    x, small = (torch.randn(2, 1, side, side, generator=generator) for side in (4, 2))
    y, c = torch.tensor([2, 0]), torch.full((2,), 49.0)
    with torch.no_grad():
        conditional, free = net(x, c, y, low_res=small), net(x, c, torch.tensor([3, 3]), low_res=small)
        guided = sf.guidance.ClassifierFree(model.given(low_res=small), y, 3.0)(x, 50)
    torch.testing.assert_close(guided.guided(50).eps, free + 3 * (conditional - free), rtol=1e-4, atol=1e-5)


def test_a_classifier_guides_an_upsampler(exact):
    """A gradient inside the boxes leaves their means: the shift goes where the classifier points and the
    images stay bound.
    """
    small = torch.randn(2, 1, 2, 2, generator=torch.Generator().manual_seed(0))

    def classifier(x, t):  # each class likes one corner of the first box
        return 3 * torch.stack([x[:, 0, 0, 0], x[:, 0, 0, 1], x[:, 0, 1, 0]], dim=1)

    def wrap(model, labels):
        return sf.guidance.ClassifierGuidance(model.given(labels), classifier, labels, 4.0)

    def sampled(wrap):
        grid = sf.grids.uniform(PROCESS, 20)
        options = {"labels": [0, 1, 2], "conditions": {"low_res": small}, "wrap": wrap}
        (block,) = sample_blocks(exact, sf.samplers.Ancestral("lower"), grid, 60, 0, **options)
        return block.x

    x, plain = sampled(wrap), sampled(None)
    moved = torch.stack([(x - plain)[:, 0, 0, 0], (x - plain)[:, 0, 0, 1], (x - plain)[:, 0, 1, 0]], dim=1)
    assert torch.equal(moved.argmax(1), torch.arange(60) % 3)
    torch.testing.assert_close(box_means(x), small[torch.arange(60) % 2], rtol=0, atol=2e-5)


def test_a_run_says_what_it_enlarges(tmp_path):
    net = sf.nets.UNet(1, channels=32, channel_mult=(1,), blocks=1, attention=(), low_res=True)
    model = sf.Denoiser(net, PROCESS, "v", low_res=2)
    x = torch.rand(8, 1, 4, 4, generator=torch.Generator().manual_seed(0)) - 0.5
    list(
        sf.train(
            sf.objectives.Simple(model),
            x,
            steps=2,
            batch_size=4,
            run=tmp_path / "run",
            device="cpu",
            precision="fp32",
        )
    )
    loaded = sf.load(tmp_path / "run")
    assert (loaded.low_res, loaded.config["low_res"]) == (2, 2)
    small = torch.zeros(3, 1, 2, 2)
    assert loaded.given(low_res=small)(torch.zeros(3, 1, 4, 4), 10).x0.shape == (3, 1, 4, 4)


def test_other_models_do_not_mention_it():
    assert "low_res" not in sf.Denoiser(sf.nets.MLP(2), PROCESS).config


@pytest.mark.parametrize(
    ("name", "origin", "side"),
    [
        ("imagenet64-256-upsampler", "64_256_upsampler", 64),
        ("imagenet128-512-upsampler", "128_512_upsampler", 128),
    ],
)
def test_the_recipes_are_the_published_networks(name, origin, side):
    recipe = read_recipe(name)
    spec, process = expected_data(recipe), build_process(recipe)
    with torch.device("meta"):
        net = build_net(recipe, spec, process)
    model = build_model(recipe, spec, net)
    published = describe(card("guided-diffusion", origin).flags, {}).model
    assert model.low_res == published.low_res == side
    shapes, expected = (
        {k: tuple(v.shape) for k, v in m.net.state_dict().items()}  # type: ignore[attr-defined]
        for m in (model, published)  # type: ignore[attr-defined]
    )
    assert shapes == expected
    listed = json.loads((GOLDEN / "checkpoints.json").read_text())["checkpoints"]
    assert (
        sum(p.numel() for p in model.parameters()) == listed[f"guided-diffusion: {origin}.pt"]["parameters"]
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["model.low_res=8"], "square and larger"),
        (["net.low_res=false"], "not a super-resolution network"),
        (["net={kind='refinenet'}", "model.conditional=false"], "not a super-resolution network"),
        (["net.low_res=true", "model={parametrization='v'}"], "model.low_res=64"),
        (["objective={kind='score-matching'}", "model={low_res=4}"], "levels of Gaussian noise"),
    ],
)
def test_recipes_that_do_not_fit_are_refused(settings, message):
    recipe = with_overrides(read_recipe("digits-upsampler"), settings)
    with pytest.raises(sf.InputError, match=message):
        build_model(recipe, expected_data(recipe))


def test_images_that_do_not_fit_are_refused(exact):
    plain = sf.Denoiser(
        sf.nets.UNet(1, channels=32, channel_mult=(1,), blocks=1, attention=()), PROCESS, "x0", data=SPEC
    )
    small = torch.zeros(2, 1, 2, 2)
    with pytest.raises(sf.InputError, match="2×2 pixels"):
        exact.given(low_res=torch.zeros(2, 1, 4, 4))
    with pytest.raises(sf.InputError, match="give these as low_res"):
        next(sample_blocks(exact, sf.samplers.DDIM(), [50, 0], 2, 0))
    with pytest.raises(sf.InputError, match="remove low_res"):
        next(sample_blocks(plain, sf.samplers.DDIM(), [50, 0], 2, 0, conditions={"low_res": small}))
    for wrong, message in ((small[0], r"\(B, C, h, w\)"), (small[:0], "one row per example")):
        with pytest.raises(sf.InputError, match=message):
            exact.given(low_res=wrong)
    bound = sf.Denoiser(unet(), PROCESS, data=SPEC, low_res=2).given(low_res=small)
    with pytest.raises(sf.InputError, match=r"got shape \(2, 1, 2, 2\)"):
        bound(torch.zeros(3, 1, 4, 4), 10)
    for wrong in (0, 4, True, 2.0):  # type: ignore[assignment]
        with pytest.raises(sf.InputError, match="low_res"):
            sf.Denoiser(Exact(), PROCESS, "x0", data=SPEC, low_res=wrong)  # type: ignore[arg-type]
