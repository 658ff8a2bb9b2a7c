"""Sample i of a seed is the same image at any count, in any order of blocks."""

import pytest
import torch

import scorefield as sf
from scorefield.generation.sample_blocks import sample_blocks


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    spec = sf.DataSpec((1, 8, 8), classes=tuple("abc"), bins=17)
    net = sf.nets.UNet(1, channels=32, channel_mult=(1, 1), blocks=1, attention=(2,), num_classes=3)
    with torch.no_grad():
        for (
            parameter
        ) in net.parameters():  # the zero-initialised layers too, so that the network does something
            parameter.add_(0.05 * torch.randn_like(parameter))
    return sf.Denoiser(net, sf.process.from_betas(sf.process.cosine_betas(50)), "v", data=spec).eval()


def clipped(model, labels):
    return sf.guidance.ClipX0(model.given(labels))


def images(model, n, wrap=clipped, **options):
    grid = sf.grids.uniform(model.process, 4)
    blocks = list(
        sample_blocks(model, sf.samplers.Ancestral(), grid, n, seed=3, labels=[0, 1, 2], wrap=wrap, **options)
    )
    return torch.cat([block.x for block in blocks]), [label for block in blocks for label in block.labels]


def test_count_does_not_matter_in_fp32(model):
    many, labels = images(model, 70)
    assert labels[:4] == [0, 1, 2, 0]
    for n in (1, 3, 7, 64):
        few, _ = images(model, n)
        assert few.shape == (n, 1, 8, 8)
        assert (few - many[:n]).abs().max() < 1e-4
        grey = model.data.to_uint8(few).int() - model.data.to_uint8(many[:n]).int()
        assert grey.abs().max() <= 1


def test_count_and_order_do_not_matter_at_all_in_bf16_blocks(model):
    model.autocast_dtype = torch.bfloat16
    try:
        many, _ = images(model, 70, size=32)
        few, _ = images(model, 3, size=32)
        backwards, _ = images(model, 70, size=32, blocks=[2, 0, 1])
    finally:
        model.autocast_dtype = None
    assert torch.equal(few, many[:3])
    assert torch.equal(backwards, torch.cat([many[64:], many[:64]]))


def test_guided_by_the_labels_of_each_block(model):
    """A classifier of the brightest third, whose labels are those of the samples whatever block they are in."""

    def classifier(x, t):
        return x.flatten(1)[:, :63].unflatten(1, (3, 21)).mean(dim=2)

    def wrap(model, labels):
        return sf.guidance.ClassifierGuidance(clipped(model, labels), classifier, labels, 30.0)

    many, labels = images(model, 70, wrap)
    assert labels == [i % 3 for i in range(70)]
    for n in (5, 64):
        few, _ = images(model, n, wrap)
        assert (few - many[:n]).abs().max() < 1e-4
    plain, _ = images(model, 70)
    thirds = (many - plain).flatten(1)[:, :63].unflatten(1, (3, 21)).mean(dim=2)
    assert torch.equal(thirds.argmax(dim=1), torch.tensor(labels))


def test_blocks_hold_samples(model):
    with pytest.raises(sf.InputError, match="blocks of 0"):
        next(sample_blocks(model, sf.samplers.DDIM(), [50, 0], 3, 0, size=0))
    with pytest.raises(sf.InputError, match="n = 0"):
        next(sample_blocks(model, sf.samplers.DDIM(), [50, 0], 0, 0))


def test_every_block_has_noise_of_its_own(model):
    """Block 1 alone, and together with block 0, are what `sf.sample` makes with the noise of these samples."""
    grid, labels = sf.grids.uniform(model.process, 4), [0, 1, 2]
    (alone,) = sample_blocks(
        model, sf.samplers.Ancestral(), grid, 70, seed=3, labels=labels, wrap=clipped, size=32, blocks=[1]
    )
    assert list(alone.indices) == list(range(32, 64))
    assert alone.labels == [labels[i % 3] for i in range(32, 64)]
    bound = clipped(model, alone.labels)
    noise = sf.noise.NoiseSource(3, range(32, 64))
    expected = sf.sample(bound, sf.samplers.Ancestral(), grid, n=32, noise=noise)
    assert torch.equal(alone.x, expected)
    together, _ = images(model, 70, size=32)
    assert torch.equal(together[32:64], alone.x)
