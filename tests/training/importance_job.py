"""One process of tests/training/test_importance.py: train with importance-sampled times, write their state, say the world size."""

import os
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

import scorefield as sf
from scorefield.objectives.base import Loss, Objective
from scorefield.objectives.times import ImportanceTimes

T = 6


class Costs(Objective):
    """Losses that every batch size computes alike: a function of t and of one number of the example, without sums."""

    def __init__(self):
        super().__init__()
        process = sf.process.from_betas(sf.process.cosine_betas(T))
        self.model = sf.Denoiser(torch.nn.Linear(1, 1), process, data=sf.DataSpec((1,)))
        self.times = ImportanceTimes(T, history=3)

    @property
    def spec(self):
        return {"kind": "costs"}

    def forward(self, x0, y, noise):
        t, importance = self.times.draw(self.model.process, len(x0), noise)
        costs = (x0[:, 0].abs() + 0.1) * t**2
        used = sum(parameter.sum() for parameter in self.model.parameters())
        return Loss(importance * costs + 0 * used, t, {}, costs.detach())


def main(out):
    data = torch.randn(40, 1, generator=torch.Generator().manual_seed(0))
    objective = Costs()
    trainer = sf.train(objective, data, steps=20, batch_size=8, device="cpu", precision="fp32")
    drawn = [step.loss for step in trainer]
    rank, world = trainer.accelerator.process_index, trainer.accelerator.num_processes
    state = {**objective.times.state_dict(), "drawn": torch.tensor(drawn, dtype=torch.float64), "world": torch.tensor(world)}
    partial = Path(out) / f"rank-{rank}.partial"
    save_file(state, partial)
    partial.rename(Path(out) / f"rank-{rank}-of-{world}.safetensors")
    # Leave without tearing down: gloo aborts now and then when its processes end at different moments.
    wanted = [Path(out) / f"rank-{other}-of-{world}.safetensors" for other in range(world)]
    while not all(path.exists() for path in wanted):
        time.sleep(0.05)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1])
