"""A run records which further arrays it was trained with, and resumes with the same ones only."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import scorefield as sf

X = torch.randn(16, 2, generator=torch.Generator().manual_seed(0))
MEAN, OTHER = X + 1, torch.arange(16)


class Shifted(nn.Module):
    """A network that is conditioned on an array."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: Tensor, c: Tensor, y: Tensor | None = None, *, mean: Tensor) -> Tensor:
        return self.layer(torch.cat([x, mean], dim=1))


def train(
    net: nn.Module, data: sf.Dataset, steps: int, run: Path | None = None, resume: bool = False
) -> dict[str, Tensor]:
    torch.manual_seed(0)
    model = sf.Denoiser(net, sf.process.from_betas(sf.process.cosine_betas(100)))
    options = {"batch_size": 4, "checkpoint_every": 3}
    trainer = sf.train(
        sf.objectives.Simple(model),
        data,
        steps=steps,
        run=run,
        resume=resume,
        device="cpu",
        **options,  # type: ignore[arg-type]
    )
    list(trainer)
    return dict(model.state_dict())


def shifted() -> Shifted:
    torch.manual_seed(1)
    return Shifted()


def trained_on(run: Path) -> dict[str, object]:
    return tomllib.loads((run / "config.toml").read_text())["trained_on"]


def test_the_arrays_of_a_run_are_recorded_and_must_be_the_same_to_resume(tmp_path: Path) -> None:
    run, data = tmp_path / "run", sf.data.tensor(X, mean=MEAN, other=OTHER)
    expected = train(shifted(), data, 6)
    train(shifted(), data, 3, run)
    assert trained_on(run)["arrays"] == ["mean"]
    assert trained_on(run)["fingerprint"] == data.fingerprint(["mean"])
    with pytest.raises(sf.InputError, match="trained on other data"):
        train(shifted(), sf.data.tensor(X, mean=MEAN + 1, other=OTHER), 6, run, resume=True)
    resumed = train(shifted(), sf.data.tensor(X, mean=MEAN, other=OTHER + 1), 6, run, resume=True)
    assert all(torch.equal(resumed[name], value) for name, value in expected.items())


def test_a_run_without_arrays_names_none_and_resumes_beside_new_ones(tmp_path: Path) -> None:
    run, data = tmp_path / "run", sf.data.tensor(X)
    train(sf.nets.MLP(2, hidden=8), data, 3, run)
    assert "arrays" not in trained_on(run)
    assert trained_on(run)["fingerprint"] == data.fingerprint()
    train(sf.nets.MLP(2, hidden=8), sf.data.tensor(X, mean=MEAN), 4, run, resume=True)
