"""Sets of a model's samples: each of a seed of its own, and a stamp that says how they came about."""

from dataclasses import replace

import pytest
import torch

import scorefield as sf
from scorefield.evaluation.generated import SampledSets
from scorefield.generation.sampling import Sampling, build_sampling
from scorefield.generation.sampling_options import SamplingOptions
from scorefield.runtime.distributed import Processes
from scorefield.runtime.progress import SILENT


@pytest.fixture(scope="module")
def sampling() -> Sampling:
    torch.manual_seed(0)
    spec = sf.DataSpec((1, 2, 2), classes=("a", "b", "c"), bins=17)

    def net(x: torch.Tensor, c: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
        return (3 * x + y.reshape(-1, 1, 1, 1)).sin()

    model = sf.Denoiser(net, sf.process.cosine(20), "x0", data=spec)
    options = SamplingOptions(sampler={"kind": "heun"}, steps=4, clip=True)
    return replace(build_sampling(options, model), labels=[0, 2, 1], weights="w")


def test_every_set_is_of_the_next_seed(sampling, tmp_path):
    sets = SampledSets(sampling, tmp_path, count=40, sets=3, seed=5)
    sets.make(Processes(), SILENT)
    made = []
    for k in range(3):
        x, y = (torch.cat(part) for part in zip(*sets.images(k), strict=True))
        expected = torch.cat([block.x for block in sampling.blocks(40, 5 + k)])
        spec = sampling.spec
        assert torch.equal(spec.to_bins(x[:40]), spec.to_bins(expected))
        assert y[:40].tolist() == [[0, 2, 1][i % 3] for i in range(40)]
        made.append(x)
    assert not any(torch.equal(made[i], made[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_a_stamp_says_how_samples_were_made(sampling, tmp_path):
    stamp = SampledSets(sampling, tmp_path, count=40, sets=3, seed=5).stamp
    assert (stamp["samples"], stamp["sets"], stamp["seed"], stamp["sampler"]) == (40, 3, 5, "Heun")
    assert (stamp["grid"], stamp["steps"], stamp["calls"]) == (
        "uniform",
        4,
        6,
    )  # one where σ/α > 80, and one to 0
    assert (stamp["clip"], stamp["start"], stamp["guidance"]) == (True, "prior", "none")
    assert (stamp["labels"], stamp["precision"]) == ("the held-out images' own", "fp32")
    without = SampledSets(replace(sampling, labels=None), tmp_path, count=40, sets=1, seed=5).stamp
    assert without["labels"] == "none"


def test_what_decides_samples_is_in_their_identity(sampling):
    """Stored samples of other weights, labels, seeds, grids, options or precision are others."""
    plain = sampling.identity(5)
    others = [
        sampling.identity(6),
        replace(sampling, weights="v").identity(5),
        replace(sampling, labels=[0, 1, 2]).identity(5),
        replace(sampling, labels=None).identity(5),
        replace(sampling, grid=torch.tensor([20, 14, 9, 4, 0])).identity(5),
        replace(sampling, sampler=sf.samplers.Euler()).identity(5),
        replace(sampling, options=replace_options(sampling, clip=False)).identity(5),
        replace(sampling, options=replace_options(sampling, guidance=2.0)).identity(5),
    ]
    assert sampling.identity(5) == plain
    assert all(other != plain for other in others)


def replace_options(sampling: Sampling, **changed: object) -> SamplingOptions:
    return sampling.options.model_copy(update=changed)
