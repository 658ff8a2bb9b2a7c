"""Weights, data and tables that cannot be trained on or written are refused in words, before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import scorefield as sf

PROCESS = sf.process.cosine(20)
POINTS = torch.zeros(64, 2)


def mlp() -> sf.nets.MLP:
    return sf.nets.MLP(2, hidden=8, layers=1)


class Detached(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor, c: Tensor, y: Tensor | None = None) -> Tensor:
        return (self.weight * x).detach()


def made_under_inference() -> sf.nets.MLP:
    with torch.inference_mode():
        return mlp()


@pytest.mark.parametrize(
    ("net", "said"),
    [
        (lambda: lambda x, c, y=None: x, "no parameters with a gradient"),
        (lambda: mlp().requires_grad_(False), "no parameters with a gradient"),
        (lambda: mlp().to("meta"), "meta device"),
        (made_under_inference, "inference_mode"),
        (Detached, "the loss has no gradient"),
    ],
    ids=["a function", "frozen", "meta", "inference", "detached"],
)
def test_weights_that_cannot_be_trained(tmp_path: Path, net: Callable[[], nn.Module], said: str) -> None:
    model = sf.Denoiser(net(), PROCESS)
    # A function, and a class within a test, are nothing that a run could hold.
    run = None if said == "no parameters with a gradient" else tmp_path / "run"
    with pytest.raises(sf.InputError, match=said):
        list(sf.train(sf.objectives.Simple(model), POINTS, steps=2, batch_size=8, device="cpu", run=run))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("without", [torch.no_grad, torch.inference_mode])
def test_training_without_gradients_is_refused(without: Callable[[], torch.no_grad]) -> None:
    trainer = sf.train(sf.objectives.Simple(sf.Denoiser(mlp(), PROCESS)), POINTS, steps=2, device="cpu")
    with without(), pytest.raises(sf.InputError, match="the loss has no gradient: gradients are off here"):
        next(trainer)


class Items(torch.utils.data.Dataset[Tensor]):
    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Tensor:
        return torch.full((2,), 0.5)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (torch.zeros(8, 2, device="meta"), "a dense tensor with values"),
        (torch.zeros(8, 2).to_sparse(), "a dense tensor with values"),
        (torch.zeros(1, 1).expand(10**12, 2), "needs 8,000.0 GB of memory"),
        ((POINTS, torch.zeros(64)), "labels must be integers"),
        (Items(-1), "the length of Items"),
        (Items(10**13), "a random order of 10,000,000,000,000 examples: this needs"),
        (torch.full((8, 2), torch.nan), "NaN"),
    ],
    ids=["meta", "sparse", "expanded", "labels", "negative length", "huge length", "NaN"],
)
def test_data_that_cannot_be_trained_on(data: object, said: str) -> None:
    objective = sf.objectives.Simple(sf.Denoiser(mlp(), PROCESS))
    with pytest.raises(sf.InputError, match=said):
        next(sf.train(objective, data, steps=2, batch_size=8, device="cpu"))  # type: ignore[arg-type]


def test_tables_and_folders_without_a_name(tmp_path: Path) -> None:
    objective = sf.objectives.Simple(sf.Denoiser(mlp(), PROCESS))
    with pytest.raises(sf.InputError, match="describe takes tables by name"):
        sf.train(objective, POINTS, run=tmp_path / "run", describe={3: {"x": 1}}, device="cpu")  # type: ignore[dict-item]
    with pytest.raises(sf.InputError, match="no file can have the name"):
        sf.train(objective, POINTS, run=f"{tmp_path}/a\0b", device="cpu")
    assert not list(tmp_path.iterdir())
