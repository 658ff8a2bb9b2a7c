"""One process of tests/training/test_processes.py: the same trainings whatever the number of processes; as a
script, write what came of them.
"""

import os
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import save_file

import scorefield as sf
from scorefield.objectives.base import Loss, Objective
from scorefield.objectives.times import ImportanceTimes
from scorefield.runs.build import build_model, build_objective, open_data, read_recipe, with_overrides
from scorefield.runtime.distributed import Processes
from scorefield.training.sharding import full_tensors

BATCH, T = 16, 5
STEPS = 8  # of the losses and weights that are compared
OPTIONS: dict[str, Any] = {
    "batch_size": BATCH,
    "lr": 1e-3,
    "precision": "fp32",
    "device": "cpu",
    "ema": 0.9,
    "flip": True,
}
OPTIONS |= {"checkpoint_every": 100, "log_every": 1}


class Watched(sf.objectives.Simple):
    """L_simple in float32 or float64 that keeps the examples it was given, and can spoil one of a batch."""

    def __init__(self, model, dtype, spoiled=()):
        super().__init__(model, weighting="v", times={"kind": "importance", "history": 2})
        self.dtype, self.spoiled, self.rate, self.seen = dtype, spoiled, lambda: 0.0, []

    @property  # type: ignore[misc]
    def config(self):
        return {"kind": "custom"}

    def forward(self, x0, y, noise):  # type: ignore[override]
        self.seen.append(x0)
        loss = super().forward(x0.to(self.dtype), y, noise)
        last = torch.from_numpy(noise.samples == BATCH - 1)
        bad = noise.step in self.spoiled and self.rate() == OPTIONS["lr"]
        return loss._replace(per_example=torch.where(last & bad, torch.nan, loss.per_example))


class Custom(torch.nn.Linear):
    config = {"kind": "custom"}


class Costs(Objective):
    """Losses that every batch size computes alike, bit for bit: a function of t and of one number of the
    example, without sums.
    """

    model: sf.Denoiser
    times: ImportanceTimes

    def __init__(self, T=6):
        super().__init__()
        process = sf.process.from_betas(sf.process.cosine_betas(T))
        self.model = sf.Denoiser(Custom(1, 1), process, data=sf.DataSpec((1,)))
        self.times, self.seen = ImportanceTimes(T, history=3), []

    @property  # type: ignore[misc]
    def config(self):
        return {"kind": "custom"}

    def forward(self, x0, y, noise):  # type: ignore[override]
        self.seen.append(x0)
        t, importance = self.times.draw(self.model.process, len(x0), noise)
        costs = (x0[:, 0].abs() + 0.1) * t**2
        used = sum(parameter.sum() for parameter in self.model.parameters())
        return Loss(importance * costs + 0 * used, t, {}, costs.detach())


def make(dtype=torch.float32, spoiled=(), seed=0):
    torch.manual_seed(seed)
    data = sf.data.digits().split(0.2, 0)[0]
    net = sf.nets.UNet(1, channels=32, channel_mult=(1,), blocks=1, attention=())
    process = sf.process.from_betas(sf.process.cosine_betas(T))
    return Watched(sf.Denoiser(net, process, "v", data=data.spec).to(dtype), dtype, spoiled), data


def sgd(parameters, lr, **_):
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9)


def trained(trainer):
    """What came of it, by name: losses, weights, averages, the importance of times, and the examples shown to
    this process.
    """
    trainer.objective.rate = lambda: trainer._optimizer.param_groups[0]["lr"]
    losses = torch.tensor([step.loss for step in trainer], dtype=torch.float64)
    here = sum(local(parameter).numel() for parameter in trainer.objective.parameters())
    weights = {
        f"weights.{name}": tensor for name, tensor in full_tensors(trainer.objective.state_dict()).items()
    }
    averages = {f"ema.{name}": tensor for name, tensor in full_tensors(trainer.ema.shadow).items()}
    model = trainer.ema_model()  # None where weights lie in pieces and this is not the first process
    sampled = {
        f"sampled.{name}": tensor
        for name, tensor in (model.state_dict() if model is not None else {}).items()
    }
    times = {f"times.{name}": tensor for name, tensor in trainer.objective.times.state_dict().items()}
    found = {"losses": losses, "seen": torch.stack(trainer.objective.seen), "here": torch.tensor(here)}
    return {**found, **weights, **averages, **sampled, **times}


def local(tensor):
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def trainings(folder):
    """AdamW in float32 and float64, SGD, importance alone, and a run that returns from a divergence which one
    process alone meets.
    """
    yield "adam", trained(sf.train(*make(), steps=STEPS, **OPTIONS))
    yield "float64", trained(sf.train(*make(torch.float64), steps=STEPS, **OPTIONS))
    with mock.patch("torch.optim.AdamW", sgd):
        yield "sgd", trained(sf.train(*make(), steps=STEPS, **OPTIONS))
    numbers = torch.randn(40, 1, generator=torch.Generator().manual_seed(0))
    yield "costs", trained(sf.train(Costs(), numbers, steps=20, **{**OPTIONS, "flip": False}))
    options: dict[str, Any] = {
        **OPTIONS,
        "steps": 10,
        "checkpoint_every": 2,
        "bad_steps": 3,
        "on_divergence": "rollback",
    }
    yield "spoiled", trained(sf.train(*make(spoiled=(5, 6, 7)), run=folder / "spoiled", **options))
    # In pieces, where there is more than one process.
    yield "pieces64", trained(sf.train(*make(torch.float64), steps=STEPS, shard=True, **OPTIONS))
    with mock.patch("torch.optim.AdamW", sgd):
        yield "pieces_sgd", trained(sf.train(*make(), steps=STEPS, shard=True, accumulation=2, **OPTIONS))
    yield "pieces", trained(sf.train(*make(spoiled=(5, 6, 7)), run=folder / "pieces", shard=True, **options))


# Every kind of network and objective, on 8×8 pixels or in the plane; the first recomputes its activations in
# the backward pass.
SMALL = (
    "data.source=digits",
    "data.size=8",
    "data.channels=1",
    "net.channel_mult=[1,2]",
    "net.attention=[2]",
)
RECIPES: dict[str, Any] = {
    "digits": ("net.channels=32", "net.checkpoint=true"),
    "digits-iddpm": ("net.channels=32",),
    "cifar10-ncsn": ("net.filters=8", "data.source=digits", "data.size=8", "data.channels=1"),
    "digits-classifier": ("net.channels=32",),
    "digits-categorical": ("net.channels=32",),
    "digits-upsampler": ("net.channels=32",),
    "cifar10-ddpm": ("net.channels=32", *SMALL),
    "toy-moons": ("objective.kind=score-matching", "objective.method=denoising", "objective.sigma=0.1"),
}


def losses_of(name, shard):
    """Of three steps of gradient descent on a recipe."""
    recipe = with_overrides(read_recipe(name), RECIPES[name])
    data, _ = open_data(recipe.data)
    torch.manual_seed(0)
    objective = build_objective(recipe, build_model(recipe, data.spec))
    options: dict[str, Any] = {**OPTIONS, "flip": False, "lr": 0.1, "shard": shard}
    with mock.patch("torch.optim.AdamW", sgd):
        return torch.tensor(
            [step.loss for step in sf.train(objective, data, steps=3, **options)], dtype=torch.float64
        )


def go_on(run, steps, **options):
    return sf.train(*make(), run=run, resume=True, steps=steps, **OPTIONS, **options)  # type: ignore[misc]


def told(processes):
    """Whether this process hears of what went wrong in the first one, and in the last one."""

    def fail(rank):
        if processes.rank == rank:
            raise sf.InputError(f"the disk of {rank} is full")
        return "work"

    if processes.on_all(lambda: "work") != "work":
        return False
    last = processes.world - 1
    for together, rank in ((processes.on_first, 0), (processes.on_all, last)):
        try:
            together(lambda rank=rank: fail(rank))
        except sf.InputError as error:
            if str(error) != f"the disk of {rank} is full":
                return False
        else:
            return False
    return True


def main(out, run):
    results = dict(trainings(out))
    for shard in (False, True):
        results[f"recipes_{shard}"] = {name: losses_of(name, shard) for name in RECIPES}
    rank = int(os.environ.get("RANK", "0"))
    for shard in (False, True):
        objective, data = make(seed=rank)
        *_, last = sf.train(objective, data, steps=2, shard=shard, **OPTIONS)
        results[f"seeds_{shard}"] = {"loss": torch.tensor(last.loss)}
    results["pieces_resumed"] = trained(go_on(out / "run_in_pieces", 6, shard=True))
    trainer = go_on(run, 6)
    results["resumed"] = trained(trainer)
    rank, world = trainer.accelerator.process_index, trainer.accelerator.num_processes
    tensors = {
        f"{case}.{name}": tensor for case, result in results.items() for name, tensor in result.items()
    }
    tensors["first_fails.told"] = torch.tensor(told(Processes(rank, world)))
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items()},
        out / f"rank-{rank}-of-{world}.safetensors",
    )
    trainer.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
