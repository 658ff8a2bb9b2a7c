"""Sampling: conditions are cycled over the samples and decide what is stored."""

from dataclasses import replace

import torch

import scorefield as sf
from scorefield.generation.sampling import Condition, build_sampling
from scorefield.generation.sampling_options import SamplingOptions

SPEC = sf.DataSpec((1, 2, 2))


class Shifted(torch.nn.Module):
    """ε̂ = x − shift, whatever the level: the sample depends on the shift alone."""

    def forward(self, x, c, *, shift):
        return x - shift


def shifted(rows):
    model = sf.Denoiser(Shifted(), sf.process.cosine(20), data=SPEC)
    options = SamplingOptions(sampler={"kind": "ddim"}, steps=3, clip=False)
    return replace(build_sampling(options, model), conditions={"shift": Condition.of("shift", rows)})


def test_conditions_are_cycled_over_the_samples():
    rows = torch.randn(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    (block,) = shifted(rows).blocks(7, seed=1)
    (each,) = shifted(rows[[0, 1, 2, 0, 1, 2, 0]]).blocks(7, seed=1)
    assert torch.equal(block.x, each.x)
    (others,) = shifted(rows.flip(0)).blocks(7, seed=1)
    assert not torch.equal(block.x[0], others.x[0])
    assert torch.equal(block.x[1], others.x[1])
    *_, last = shifted(rows).trajectory(7, seed=1)
    assert torch.equal(last.x, block.x)


def test_conditions_decide_what_is_stored():
    rows = torch.zeros(2, 1, 2, 2)
    first, second = (shifted(x).identity(seed=0) for x in (rows, rows + 1))
    assert first != second
    assert first == shifted(rows.clone()).identity(seed=0)
    assert "conditions" not in replace(shifted(rows), conditions={}).identity(seed=0)


class Dropped(Shifted):
    nulls = {"shift": 0.0}


def test_guidance_without_labels_is_towards_the_conditions():
    """ε̂ is affine in the shift, so guidance at scale 2 is the shift times 2."""
    rows = torch.randn(2, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    model = sf.Denoiser(Dropped(), sf.process.cosine(20), data=SPEC)

    def samples(guidance, rows):
        options = SamplingOptions(sampler={"kind": "ddim"}, steps=3, clip=False, guidance=guidance)
        sampling = replace(build_sampling(options, model), conditions={"shift": Condition.of("shift", rows)})
        (block,) = sampling.blocks(2, seed=0)
        return block.x

    torch.testing.assert_close(samples(2.0, rows), samples(None, 2 * rows), rtol=1e-4, atol=1e-4)


def test_samples_print_the_shape_that_they_return() -> None:
    pixels = torch.zeros(3, 1, 8, 8, dtype=torch.uint8)
    grey = sf.Samples(pixels, sf.DataSpec((1, 8, 8), classes=("a", "b"), bins=17), [1, 1, 1])
    assert repr(grey) == f"Samples(images uint8 {grey.images.shape}, 1 class)"
    assert grey.images.shape == (3, 8, 8)
    assert repr(sf.Samples(torch.zeros(3, 2), sf.DataSpec((2,)))) == "Samples(samples float32 (3, 2))"
