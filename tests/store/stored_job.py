"""One process of tests/samplers/test_stored.py: make stored samples of a small network, say the world size
and what was made.
"""

import sys
from functools import partial
from pathlib import Path

import torch

import scorefield as sf
from scorefield.generation.sample_blocks import sample_blocks
from scorefield.generation.sampling import Sampling
from scorefield.runtime.distributed import join_processes
from scorefield.store.block_store import StoredSamples

N = 200


def model():
    """A conditional U-Net that runs in bf16, where sums depend on the batch."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        spec = sf.DataSpec((1, 8, 8), classes=tuple("abc"), bins=17)
        net = sf.nets.UNet(1, channels=32, channel_mult=(1,), blocks=1, attention=(), num_classes=3)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
    made = sf.Denoiser(net, sf.process.from_betas(sf.process.cosine_betas(50)), "v", data=spec).eval()
    made.autocast_dtype = torch.bfloat16
    return made


def store(folder, made, seed=3):
    grid = sf.grids.uniform(made.process, 3)
    what = Sampling(made, sf.samplers.Ancestral(), grid, labels=[0, 1, 2]).identity(seed)
    return StoredSamples.within(folder, what, made.data, 32)


def samples(made, n, seed, numbers):
    grid, options = sf.grids.uniform(made.process, 3), {"labels": [0, 1, 2], "size": 32, "blocks": numbers}
    wrap = lambda bare, labels: sf.guidance.ClipX0(bare.given(labels))  # noqa: E731
    return sample_blocks(made, sf.samplers.Ancestral(), grid, n, seed, wrap=wrap, **options)


def main(folder):
    made, processes = model(), join_processes("cpu")
    stored = store(Path(folder), made)
    count = stored.make(N, partial(samples, made, stored.rounded(N), 3), processes)
    processes.leave()
    print(f"rank {processes.rank} of {processes.world} made {count}, missing {stored.missing(N)}")


if __name__ == "__main__":
    main(sys.argv[1])
