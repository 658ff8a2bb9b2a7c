"""Classify: cross-entropy at random noise levels against quadrature on a mixture, and training that resumes
exactly.
"""

import json
import math
from typing import Any

import pytest
import torch

import scorefield as sf
from scorefield.runs.build import read_run

MEANS, VARIANCES, WEIGHTS = (-1.0, 0.4, 1.1), (0.04, 0.02, 0.09), (0.5, 0.3, 0.2)
PROCESS = sf.process.from_betas(sf.process.cosine_betas(20))


def mixture():
    return sf.oracle.GaussianMixture([[m] for m in MEANS], [[[v]] for v in VARIANCES], WEIGHTS)


def posteriors_by_quadrature(t, points=20_001):
    """(dx, joint density (X, K)) of x_t and the class on a fine lattice, written out from the normal density."""
    level = PROCESS.level(t)
    alpha, sigma = float(level.alpha), float(level.sigma)
    x = torch.linspace(-8, 8, points, dtype=torch.float64)
    columns = []
    for m, v, w in zip(MEANS, VARIANCES, WEIGHTS, strict=True):
        var = alpha**2 * v + sigma**2
        columns.append(w * torch.exp(-((x - alpha * m) ** 2) / (2 * var)) / math.sqrt(2 * math.pi * var))
    return float(x[1] - x[0]), torch.stack(columns, dim=1)


class Exact(torch.nn.Module):
    """The exact posterior's logits, times an inverse temperature."""

    def __init__(self, inverse_temperature=1.0):
        super().__init__()
        self.posterior = mixture().classifier(PROCESS)
        self.inverse_temperature = inverse_temperature

    def forward(self, x, c):
        return self.inverse_temperature * self.posterior(x, c.long() + 1)


def loss_of(inverse_temperature, n=60_000):
    x0, y = mixture().sample_labelled(n, sf.noise.NoiseSource(0))
    objective = sf.objectives.Classify(sf.NoisyClassifier(Exact(inverse_temperature), PROCESS))
    return objective(x0, y, sf.noise.NoiseSource(1)), n


@pytest.mark.parametrize("inverse_temperature", [1.0, 0.5])
def test_expected_loss_and_accuracy_by_quadrature(inverse_temperature):
    """E −ln softmax(τ ln p)_y and the Bayes accuracy, both integrated over x_t and averaged over every t."""
    # [ADM Sec. 4.3]
    expected, accuracy = [], []
    for t in range(1, PROCESS.T + 1):
        dx, joint = posteriors_by_quadrature(t)
        log_q = (inverse_temperature * joint.clamp_min(1e-300).log()).log_softmax(dim=1)
        expected.append(float(-(joint * log_q).sum() * dx))
        accuracy.append(float(joint.max(dim=1).values.sum() * dx))
    loss, n = loss_of(inverse_temperature)
    for values, mean in ((loss.per_example, expected), (loss.parts["accuracy"], accuracy)):
        assert abs(float(values.mean()) - sum(mean) / PROCESS.T) < 4 * float(values.std()) / math.sqrt(n)


def test_the_exact_posterior_has_the_least_loss():
    least, _ = loss_of(1.0)
    for inverse_temperature in (0.7, 1.4):
        excess = loss_of(inverse_temperature)[0].per_example - least.per_example
        assert float(excess.mean()) > 4 * float(excess.std()) / math.sqrt(len(excess))


def test_one_batch_by_hand():
    """t from one uniform draw, then ε; −ln softmax at x_t = α_t x_0 + σ_t ε in float64."""
    torch.manual_seed(0)
    net = sf.nets.MLP(2, hidden=16, layers=1, out_dim=3).double()
    model = sf.NoisyClassifier(net, PROCESS)
    x0, y = torch.randn(3, 2, dtype=torch.float64), torch.tensor([2, 0, 1])
    u, eps = torch.tensor([[0.0], [0.5], [0.9999999]]), torch.randn(3, 2, dtype=torch.float64)
    loss = sf.objectives.Classify(model)(x0, y, sf.noise.Recorded([u, eps]))
    assert loss.t.tolist() == [1, 11, 20]
    for k in range(3):
        level = PROCESS.level(int(loss.t[k]))
        x_t = level.alpha * x0[k : k + 1] + level.sigma * eps[k : k + 1]
        p = net(x_t, torch.tensor([loss.t[k] - 1.0], dtype=torch.float64)).detach().softmax(dim=1)[0]
        assert math.isclose(float(loss.per_example[k].detach()), -math.log(float(p[y[k]])), rel_tol=1e-12)
        assert float(loss.parts["accuracy"][k]) == float(p.argmax() == y[k])
    loss.per_example.mean().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_refusals():
    model = sf.NoisyClassifier(sf.nets.MLP(2, out_dim=3), PROCESS)
    with pytest.raises(sf.InputError, match="trained on labels"):
        sf.objectives.Classify(model)(torch.zeros(4, 2), None, sf.noise.NoiseSource(0))
    with pytest.raises(sf.IncompatibleModel, match="trains a NoisyClassifier"):
        sf.objectives.Classify(sf.Denoiser(sf.nets.MLP(2), PROCESS))  # type: ignore[arg-type]


def test_data_without_labels_is_refused_before_a_run_is_made(tmp_path):
    objective = sf.objectives.Classify(sf.NoisyClassifier(sf.nets.MLP(2, out_dim=3), PROCESS))
    with pytest.raises(sf.InputError, match="no labels"):
        sf.train(objective, torch.randn(64, 2), steps=2, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def images_objective(seed=0):
    torch.manual_seed(seed)
    data, _ = sf.data.digits().split(0.2, 0)
    options: dict[str, Any] = {
        "channels": 32,
        "channel_mult": (1, 1),
        "blocks": 1,
        "attention": (2,),
        "dropout": 0.1,
    }
    net = sf.nets.Classifier(1, 10, image_size=8, **options)
    return sf.objectives.Classify(sf.NoisyClassifier(net, PROCESS, data=data.spec)), data


OPTIONS: dict[str, Any] = {
    "batch_size": 16,
    "lr": 1e-3,
    "weight_decay": 0.05,
    "anneal": True,
    "shift": 1,
    "device": "cpu",
}


def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path):
    """With dropout, shifts and an annealed rate: stop after 3 of 6 steps, go on with new objects, same losses
    and weights.
    """
    whole = sf.train(*images_objective(), steps=6, run=tmp_path / "whole", **OPTIONS)
    losses = [step.loss for step in whole]
    first = sf.train(*images_objective(), steps=6, run=tmp_path / "parts", **OPTIONS)
    parts = [next(first).loss for _ in range(3)]
    first.save()
    second = sf.train(*images_objective(seed=9), steps=6, run=tmp_path / "parts", resume=True, **OPTIONS)
    assert second.step == 3
    assert parts + [step.loss for step in second] == losses
    assert (tmp_path / "parts" / "model.safetensors").read_bytes() == (
        tmp_path / "whole" / "model.safetensors"
    ).read_bytes()


def test_a_run_describes_itself(tmp_path):
    trainer = sf.train(*images_objective(), steps=2, run=tmp_path / "run", **OPTIONS)
    list(trainer)
    model = sf.load(tmp_path / "run")
    assert isinstance(model, sf.NoisyClassifier)
    assert not model.training
    assert (model.num_classes, model.data.classes) == (10, tuple("0123456789"))
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    model.autocast_dtype = trainer.ema_model().autocast_dtype
    assert torch.equal(model(x, 7), trainer.ema_model()(x, 7))
    assert read_run(tmp_path / "run")[0].trained_on.classes == tuple("0123456789")
    (line,) = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert 0 <= json.loads(line)["accuracy"] <= 1


def test_a_network_of_the_users_own_learns_and_is_loaded(tmp_path):
    """A two-layer net on a mixture: its loss falls towards the exact posterior's."""

    def net():
        return sf.nets.MLP(1, hidden=32, layers=2, out_dim=3)

    torch.manual_seed(0)
    x0, y = mixture().sample_labelled(4096, sf.noise.NoiseSource(2))
    objective = sf.objectives.Classify(sf.NoisyClassifier(net(), PROCESS))
    steps = list(
        sf.train(
            objective, (x0.float(), y), steps=300, batch_size=256, lr=3e-3, ema=0.9, run=tmp_path / "run"
        )
    )
    exact = float(loss_of(1.0)[0].per_example.mean())
    assert sum(step.loss for step in steps[-50:]) / 50 == pytest.approx(exact, abs=0.03)
    model = sf.load(tmp_path / "run")
    assert model(torch.zeros(2, 1), 3).shape == (2, 3)
    assert model.num_classes == 3
