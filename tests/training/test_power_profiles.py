"""Power-function averages: their profiles against quadrature, what training stores of them, and averages of another length
made afterwards against direct averaging.
"""

from typing import Any

import numpy as np
import pytest
import torch
from support import call

import scorefield as sf
from scorefield.objectives.denoising import LogLoss
from scorefield.store.run_folder import RunFolder
from scorefield.training.ema import PowerEMA
from scorefield.training.power_profiles import (
    LONGEST,
    Profile,
    combination,
    exponent,
    inner_products,
    length,
)

OPTIONS: dict[str, Any] = {
    "batch_size": 32,
    "lr": 3e-3,
    "checkpoint_every": 50,
    "device": "cpu",
    "precision": "fp32",
}
STORED: dict[str, Any] = {**OPTIONS, "ema_profiles": [0.05, 0.1], "ema_every": 4}


def objective(seed=0, **options):
    torch.manual_seed(seed)
    data = sf.data.toy("moons", 500)
    net = sf.nets.MLP(2, hidden=16, layers=2)
    return sf.objectives.Simple(
        sf.Denoiser(net, sf.process.cosine(100), "v", data=data.spec), **options
    ), data


def density(profile, at):
    """The profile by its definition, at the middles of small intervals."""
    gamma = exponent(profile.length)
    return np.where(at <= profile.step, (gamma + 1) * at**gamma / profile.step ** (gamma + 1), 0)


@pytest.mark.parametrize("sigma", [0.001, 0.03, 0.1, 0.25, LONGEST])
def test_the_length_is_the_relative_width(sigma):
    # [Karras et al. 2024a Sec. 3.1]
    assert length(exponent(sigma)) == pytest.approx(sigma, rel=1e-6)
    at = (np.arange(400_000) + 0.5) / 400_000
    p = density(Profile(1, sigma), at)
    mean = (p * at).mean()
    assert p.mean() == pytest.approx(1, rel=1e-4)
    assert ((p * (at - mean) ** 2).mean()) ** 0.5 == pytest.approx(sigma, rel=1e-3)


def test_inner_products_against_quadrature():
    # [Karras et al. 2024a Sec. 3.2]
    profiles = [Profile(100, 0.05), Profile(100, 0.2), Profile(60, 0.1), Profile(250, LONGEST)]
    at = (np.arange(1_000_000) + 0.5) * 250 / 1_000_000
    found = inner_products(profiles, profiles)
    for i, a in enumerate(profiles):
        for k, b in enumerate(profiles):
            expected = (density(a, at) * density(b, at)).mean() * 250
            assert found[i, k] == pytest.approx(expected, rel=1e-4), (a, b)


def test_a_stored_profile_is_itself_and_others_are_least_squares():
    stored = [Profile(n, sigma) for n in (20, 40, 60) for sigma in (0.05, 0.1)]
    assert combination(stored, Profile(60, 0.1)).tolist() == [0, 0, 0, 0, 0, 1]
    wanted = Profile(60, 0.15)
    x = combination(stored, wanted)
    at = (np.arange(200_000) + 0.5) * 60 / 200_000
    basis = np.stack([density(profile, at) for profile in stored], axis=1)
    expected = np.linalg.lstsq(basis, density(wanted, at), rcond=None)[0]
    assert np.abs(x - expected).max() < 1e-4


def test_the_average_weighs_every_step_by_its_part_of_the_profile():
    """After n steps, step i has the weight (i^(γ+1) − (i − 1)^(γ+1))/n^(γ+1)."""
    model = torch.nn.Linear(1, 1, bias=False).double()
    average, gamma = PowerEMA(model, 0.1), exponent(0.1)
    values = np.random.default_rng(0).normal(size=30)
    for i, value in enumerate(values, start=1):
        model.weight.data.fill_(value)
        average.update(i)
    ends = (np.arange(31) / 30) ** (gamma + 1)
    assert float(average.shadow["weight"]) == pytest.approx((np.diff(ends) * values).sum(), rel=1e-12)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of 120 steps that stores averages, and its weights after every step."""
    run, weights = tmp_path_factory.mktemp("ema") / "run", []
    trainer = sf.train(*objective(), run=run, steps=120, **STORED)
    for _ in trainer:
        weights.append({k: v.clone() for k, v in trainer.objective.model.state_dict().items()})
    return sf.Run(run), weights


def flat(tensors):
    return torch.cat([tensors[name].double().flatten() for name in sorted(tensors)])


@pytest.mark.parametrize(("sigma", "step"), [(0.03, 120), (0.07, 120), (0.15, 120), (0.08, 88)])
def test_post_hoc_equals_direct_averaging(trained, tmp_path, sigma, step):
    run, weights = trained
    made = run.average(sigma, tmp_path / "new", step)
    ends = torch.arange(step + 1, dtype=torch.float64).div(step) ** (exponent(sigma) + 1)
    parts = torch.stack([flat(one) for one in weights[:step]])
    direct = (ends.diff()[:, None] * parts).sum(0)
    found = flat(made.model("cpu").state_dict())
    assert float((found - direct).norm() / direct.norm()) < 1e-3
    assert (
        float((found - flat(weights[step - 1])).norm() / direct.norm()) > 1e-2
    )  # not merely the last weights


def test_a_stored_average_is_exact_and_says_what_it_is(trained, tmp_path, capsys):
    run, _ = trained
    status, out, err = call(
        capsys, "ema", run.path, "--length", 0.1, "--run", tmp_path / "new", "--step", 52, "--json"
    )
    assert status == 0, err
    assert '"stored": 1' in out
    stored = RunFolder(run.path).profile(52, "profile-0.1").read_bytes()
    assert (tmp_path / "new" / "model.safetensors").read_bytes() == stored
    new = sf.Run(tmp_path / "new")
    assert new.recipe.trained_on.average == "EMA of length 0.1 at step 52, from 1 stored averages"
    assert new.sample(n=3, steps=2, device="cpu").samples.shape == (3, 2)


def test_resumed_training_stores_the_same_bytes(tmp_path):
    options = {**STORED, "ema_every": 1, "lr_reference": 3}
    list(sf.train(*objective(uncertainty=True), run=tmp_path / "whole", steps=8, **options))
    list(sf.train(*objective(uncertainty=True), run=tmp_path / "parts", steps=4, **options))
    list(sf.train(*objective(5, uncertainty=True), run=tmp_path / "parts", steps=8, resume=True, **options))
    whole, parts = (
        {path.name: path.read_bytes() for path in (tmp_path / name / "profiles").iterdir()}
        for name in ("whole", "parts")
    )
    assert len(whole) == 16
    assert whole == parts
    for file in ("weights", "ema", "profile-0.05", "profile-0.1"):
        last = f"checkpoints/step-00000008/{file}.safetensors"
        assert (tmp_path / "whole" / last).read_bytes() == (tmp_path / "parts" / last).read_bytes()


def test_refusals(trained, tmp_path):
    run, _ = trained
    plain = tmp_path / "plain"
    list(sf.train(*objective(), run=plain, steps=2, **OPTIONS))
    with pytest.raises(sf.InputError, match="no stored averages"):
        sf.Run(plain).average(0.1, tmp_path / "new")
    with pytest.raises(sf.InputError, match="chosen when a run starts"):
        sf.train(*objective(), run=plain, steps=3, resume=True, **STORED)
    with pytest.raises(sf.InputError, match="length"):
        run.average(0.3, tmp_path / "new")
    with pytest.raises(sf.InputError, match="stored of the steps 4, 8"):
        run.average(0.1, tmp_path / "new", 3)
    with pytest.raises(sf.InputError, match="already holds a run"):
        run.average(0.1, plain)
    with pytest.raises(sf.InputError, match="ema_profiles"):
        sf.train(*objective(), steps=2, **{**STORED, "ema_profiles": [0.5]})
    assert not (tmp_path / "new").exists()


def test_the_learning_rate_falls_as_one_over_the_root():
    # [Karras et al. 2024a]
    steps = list(sf.train(*objective(), steps=12, lr_reference=3, warmup=2, **OPTIONS))
    expected = [3e-3 * min(1, (n + 1) / 2) / max(n / 3, 1) ** 0.5 for n in range(12)]
    assert [step.lr for step in steps] == pytest.approx(expected)


def test_learned_uncertainty():
    """The loss is e^{−u} L + u: u = 0 changes nothing, the gradient of u is 1 − e^{−u} L, and its minimum ln L."""
    # [Karras et al. 2024a Sec. 2.2]
    learned, data = objective(uncertainty=True)
    plain, _ = objective()
    x0 = data.batch(torch.arange(64))[0]
    a, b = (one(x0, None, sf.NoiseSource(0, range(64))).per_example for one in (learned, plain))
    assert torch.equal(a, b)
    (grad,) = torch.autograd.grad(a.sum(), learned.log_loss.weight)
    t = plain(x0, None, sf.NoiseSource(0, range(64))).t
    ratio = plain.model.process.level(t).ratio.float()
    probe = LogLoss()
    rows = [torch.autograd.grad(u, probe.weight, retain_graph=True)[0] for u in probe(ratio)]
    by_hand = sum((1 - loss) * row for loss, row in zip(b.detach(), rows, strict=True))
    assert torch.allclose(grad, by_hand, rtol=1e-4, atol=1e-5)
    levels, losses = torch.tensor([0.05, 0.5, 5.0]), torch.tensor([4.0, 1.0, 0.01])
    optimizer = torch.optim.Adam(probe.parameters(), lr=0.1)
    for _ in range(400):
        u = probe(levels)
        optimizer.zero_grad()
        (losses * torch.exp(-u) + u).sum().backward()
        optimizer.step()
    assert torch.allclose(probe(levels).exp(), losses, rtol=0.02)
