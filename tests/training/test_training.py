"""Training: it learns, it resumes bit for bit, it says what went wrong and loses nothing."""

import json
import os
import tomllib
from typing import Any

import pytest
import torch
from accelerate import DistributedType

import scorefield as sf
from scorefield.training import RunFolder
from scorefield.training.sharding import shard_objective


def digits_objective(seed=0, dropout=0.1, **changes):
    torch.manual_seed(seed)
    data, _ = sf.data.digits().split(0.2, 0)
    net = sf.nets.UNet(
        1, channels=32, channel_mult=(1, 1), blocks=1, attention=(2,), num_classes=10, dropout=dropout
    )
    process = sf.process.from_betas(sf.process.cosine_betas(100))
    return sf.objectives.Simple(sf.Denoiser(net, process, "v", data=data.spec), weighting="v"), data


def weights(trainer):
    return {**trainer.objective.state_dict(), **{f"ema.{k}": v for k, v in trainer.ema.shadow.items()}}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


OPTIONS: dict[str, Any] = {
    "batch_size": 16,
    "lr": 1e-3,
    "warmup": 3,
    "ema": 0.9,
    "flip": True,
    "checkpoint_every": 100,
    "device": "cpu",
}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_resumed_equals_uninterrupted_bit_for_bit(tmp_path, precision):
    """3 steps, save, load into new objects, 3 more = 6 steps: weights, averages and losses, with dropout and
    flips.
    """
    options: dict[str, Any] = {**OPTIONS, "precision": precision}
    whole = sf.train(*digits_objective(), steps=6, run=tmp_path / "whole", **options)
    losses = [step.loss for step in whole]
    first = sf.train(*digits_objective(), steps=3, run=tmp_path / "parts", **options)
    parts = [step.loss for step in first]
    torch.randn(7)  # the user's own draws change nothing
    second = sf.train(*digits_objective(seed=99), steps=6, run=tmp_path / "parts", resume=True, **options)
    assert second.step == 3
    assert not second.warnings
    parts += [step.loss for step in second]
    assert parts == losses
    assert same(weights(second), weights(whole))
    assert (tmp_path / "parts" / "model.safetensors").read_bytes() == (
        tmp_path / "whole" / "model.safetensors"
    ).read_bytes()


def test_training_leaves_the_users_random_state_alone():
    torch.manual_seed(5)
    expected = torch.randn(3)
    objective, data = digits_objective()
    torch.manual_seed(5)
    list(sf.train(objective, data, steps=2, **OPTIONS))
    assert torch.equal(torch.randn(3), expected)


def test_accumulated_parts_are_the_same_batch():
    """The gradients themselves, of which AdamW would hide the scale."""
    losses, norms = [], []
    for accumulation in (1, 4):
        trainer = sf.train(
            *digits_objective(dropout=0.0), steps=3, accumulation=accumulation, precision="fp32", **OPTIONS
        )
        steps = list(trainer)
        losses.append([step.loss for step in steps])
        norms.append([step.grad_norm for step in steps])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


class Line(torch.nn.Module):
    """A network of a few numbers, whose dropout masks and gradients are kept."""

    def __init__(self):
        super().__init__()
        self.weight, self.drop = torch.nn.Parameter(torch.tensor([0.3, -0.5])), torch.nn.Dropout(0.5)
        self.masks: list[torch.Tensor] = []

    def forward(self, x, c, y=None):
        self.masks.append(self.drop(torch.ones_like(x)))
        return self.weight * x


def line_steps(count, **options):
    """The weights of `Line` before and after each of some steps, its gradients, and its dropout masks."""
    net = Line()
    model = sf.Denoiser(net, sf.process.cosine(20), "v")
    plain: dict[str, Any] = {"batch_size": 8, "lr": 0.1, "ema": 0.9, "precision": "fp32", "device": "cpu"}
    trainer = sf.train(sf.objectives.Simple(model), DATA, steps=count, **{**plain, **options})
    gradients: list[torch.Tensor] = []
    step = trainer._optimizer.step
    trainer._optimizer.step = lambda: (gradients.append(net.weight.grad.clone()), step())
    weights, norms, averages = [net.weight.detach().clone()], [], []
    for done in trainer:
        weights.append(net.weight.detach().clone())
        norms.append(done.grad_norm)
        averages.append(trainer.ema.shadow["net.weight"].clone())
    return weights, gradients, norms, averages, net.masks


DATA = torch.randn(64, 2, generator=torch.Generator().manual_seed(0))


def test_adamw_is_the_published_one_with_the_options_given():
    """Three steps by hand: θ ← θ − lr·λθ − lr·m̂/(√v̂ + ε), β1 = 0.9.  [Loshchilov & Hutter 2019, Algorithm 2]"""
    lr, beta2, decay = 0.1, 0.9, 0.3
    weights, gradients, *_ = line_steps(3, beta2=beta2, weight_decay=decay, lr=lr)
    m, v, theta = torch.zeros(2), torch.zeros(2), weights[0]
    for n, g in enumerate(gradients, start=1):
        m, v = 0.9 * m + 0.1 * g, beta2 * v + (1 - beta2) * g**2
        step = (m / (1 - 0.9**n)) / ((v / (1 - beta2**n)).sqrt() + 1e-8)
        theta = theta - lr * decay * theta - lr * step
        assert torch.allclose(weights[n], theta, rtol=1e-5)


def test_a_gradient_is_clipped_to_its_norm_and_by_0_not_at_all():
    for clip in (0.0, 1e-3, 1e9):
        _, gradients, norms, *_ = line_steps(3, clip=clip)
        for gradient, norm in zip(gradients, norms, strict=True):
            expected = min(norm, clip) if clip else norm
            assert gradient.norm().item() == pytest.approx(expected, rel=1e-3)
            assert norm > 0.01


def test_every_step_has_dropout_masks_of_its_own():
    *_, masks = line_steps(4)
    assert len({tuple(mask.flatten().tolist()) for mask in masks}) == 4


def test_learns_a_gaussian_score():
    """The trained ε of one-dimensional Gaussian data approaches the exact one."""
    torch.manual_seed(0)
    data = sf.oracle.GaussianMixture([[0.3]], [[[0.04]]])
    process = sf.process.from_betas(sf.process.cosine_betas(50))
    model = sf.Denoiser(sf.nets.MLP(1, hidden=64, layers=3), process, "v")
    trainer = sf.train(
        sf.objectives.Simple(model),
        data.sample(4096, sf.noise.NoiseSource(0)).float(),
        steps=600,
        batch_size=256,
        lr=3e-3,
        ema=0.99,
    )
    list(trainer)
    exact, learned = data.denoiser(process), trainer.ema_model()
    for t in (5, 20, 40):
        x = data.at(process.level(t)).sample(500, sf.noise.NoiseSource(t)).float()
        with torch.no_grad():
            error = ((learned(x, t).eps - exact(x, t).eps) ** 2).mean()
        assert error < 0.02, (t, error)


def test_run_describes_itself(tmp_path):
    trainer = sf.train(*digits_objective(), steps=2, run=tmp_path / "r", **OPTIONS)
    list(trainer)
    model = sf.load(tmp_path / "r")
    assert not model.training
    assert same(dict(model.state_dict()), trainer.ema.shadow)
    assert model.data.classes == tuple("0123456789")
    assert model.data.bins == 17
    x = torch.zeros(2, 1, 8, 8)
    for each in (model, averaged := trainer.ema_model()):
        each.autocast_dtype = None
    assert torch.equal(model.given([1, 2])(x, 7).x0, averaged.given([1, 2])(x, 7).x0)
    config = tomllib.loads((tmp_path / "r" / "config.toml").read_text())
    assert config["trained_on"]["examples"] == 1437
    (line,) = (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["step"] == 2


def test_a_network_of_the_users_own(tmp_path):
    class Net(torch.nn.Module):
        config = {"kind": "custom"}

        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(3, 2)

        def forward(self, x, c, y=None):
            return self.layer(torch.cat([x, c[:, None] / 50], dim=1))

    process = sf.process.from_betas(sf.process.cosine_betas(50))
    list(
        sf.train(
            sf.objectives.Simple(sf.Denoiser(Net(), process)),
            torch.randn(64, 2),
            steps=2,
            batch_size=8,
            run=tmp_path / "r",
        )
    )
    with pytest.raises(sf.InputError, match=r"sf.load\(run, net=yours\)"):
        sf.load(tmp_path / "r")
    assert sf.load(tmp_path / "r", net=Net())(torch.zeros(1, 2), 3).x0.shape == (1, 2)


def test_divergence_stops_with_the_last_good_checkpoint_named(tmp_path):
    objective, data = digits_objective()
    trainer = sf.train(
        objective, data, steps=9, run=tmp_path / "r", **{**OPTIONS, "checkpoint_every": 2, "bad_steps": 1}
    )
    next(trainer), next(trainer), next(trainer)
    with torch.no_grad():
        next(objective.parameters()).fill_(float("nan"))
    with pytest.raises(
        sf.ScorefieldError, match=r"step 4: the loss is nan; the last good checkpoint is .*step-00000002"
    ):
        next(trainer)
    assert sf.load(tmp_path / "r")


def test_resume_passes_over_a_damaged_checkpoint(tmp_path):
    options: dict[str, Any] = {**OPTIONS, "checkpoint_every": 2, "keep": 3}
    list(sf.train(*digits_objective(), steps=6, run=tmp_path / "r", **options))
    newest = tmp_path / "r" / "checkpoints" / "step-00000006" / "weights.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    trainer = sf.train(*digits_objective(), steps=6, run=tmp_path / "r", resume=True, **options)
    assert trainer.step == 4
    assert "step-00000006" in trainer.warnings[0]
    list(trainer)
    whole = sf.train(*digits_objective(), steps=6, run=tmp_path / "w", **options)
    list(whole)
    assert same(weights(trainer), weights(whole))
    steps = [json.loads(line)["step"] for line in (tmp_path / "r" / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))


def test_ema_is_warmed_up():
    """After each of the first steps, where the warm-up counts, and far beyond it; buffers are copied."""
    model = torch.nn.Linear(1, 1, bias=False)
    model.register_buffer("seen", torch.zeros(()))
    ema = sf.training.ema.EMA(model, 0.9)
    expected = model.weight.item()
    for step in range(1, 200):
        with torch.no_grad():
            model.weight.fill_(float(step))
            model.seen.fill_(float(step))
        ema.update(step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
        assert ema.shadow["weight"].item() == pytest.approx(expected, rel=1e-5)
        assert ema.shadow["seen"].item() == step
    assert (1 + 80) / (10 + 80) == 0.9  # from here on it is the decay itself


def test_training_averages_from_its_first_step():
    """θ̄ after n steps is that of d_n = min(decay, (1 + n)/(10 + n)), n = 1, 2, …"""
    weights, _, _, averages, _ = line_steps(4)
    expected = weights[0]
    for n, average in enumerate(averages, start=1):
        decay = min(0.9, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * weights[n]
        assert torch.allclose(average, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps"),
        ({"lr": -1.0}, "lr"),
        ({"stepz": 3}, "did you mean 'steps'"),
        ({"batch_size": 10, "accumulation": 3}, "multiple of 3"),
        ({"device": "tpu"}, "cpu, cuda, mps"),
        ({"trackers": ["tensorboard"]}, "give run="),
    ],
)
def test_bad_options(options, message):
    objective, data = digits_objective()
    with pytest.raises(sf.InputError, match=message):
        sf.train(objective, data, **options)


def test_weights_in_pieces_of_others_are_refused(monkeypatch):
    """FSDP by Accelerate's configuration: a checkpoint would hold a piece."""
    monkeypatch.setattr("accelerate.Accelerator.distributed_type", DistributedType.FSDP)
    with pytest.raises(sf.InputError, match=r"cannot save.*training.shard"):
        sf.train(*digits_objective(), steps=1, **OPTIONS)


@pytest.mark.parametrize("option", ["shard", "compile"])
@pytest.mark.parametrize("method", ["sliced-vr", "implicit"])
def test_derivatives_of_weights_in_pieces_or_of_compiled_code_are_refused(option, method):
    model = sf.ScoreModel(sf.nets.MLP(2, noise_levels=False), data=sf.DataSpec((2,)))
    with pytest.raises(sf.InputError, match=f"cannot be trained with {option}: remove it"):
        sf.train(
            sf.objectives.ScoreMatching(model, method),
            torch.randn(8, 2),
            steps=1,
            device="cpu",
            shard=option == "shard",
            compile=option == "compile",
        )


def test_a_weight_without_dimensions_cannot_be_cut():
    objective, _ = digits_objective()
    objective.model.net.scale = torch.nn.Parameter(torch.tensor(1.0))
    with pytest.raises(
        sf.InputError, match=r"model.net.scale is a parameter without dimensions.*remove shard"
    ):
        shard_objective(objective, 1, torch.device("cpu"))


def test_bad_pieces(tmp_path):
    objective, data = digits_objective()
    with pytest.raises(sf.InputError, match="data must be a source"):
        sf.train(objective, [1, 2, 3])  # type: ignore[arg-type]
    with pytest.raises(sf.InputError, match="shape"):
        sf.train(objective, torch.randn(4, 3, 8, 8).clamp(-1, 1))
    with pytest.raises(sf.InputError, match=r"does not say what black and white are.*range="):
        sf.train(objective, torch.rand(4, 1, 8, 8))
    with pytest.raises(
        sf.InputError, match=r"values \(-1.0, 1.0\).*are \(0.0, 1.0\): build it with data=data.spec"
    ):
        sf.train(objective, sf.data.tensor(torch.rand(4, 1, 8, 8), range=(0, 1)))
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "precious.txt").write_text("mine")
    with pytest.raises(sf.InputError, match="not an empty folder"):
        sf.train(objective, data, run=tmp_path / "r")
    assert (tmp_path / "r" / "precious.txt").read_text() == "mine"
    with pytest.raises(sf.InputError, match="not a run"):
        sf.train(objective, data, run=tmp_path / "none", resume=True)
    list(sf.train(objective, data, steps=1, run=tmp_path / "one", **OPTIONS))
    with pytest.raises(sf.InputError, match="already holds a run"):
        sf.train(objective, data, run=tmp_path / "one")
    with pytest.raises(sf.InputError, match="seed 0"):
        sf.train(objective, data, run=tmp_path / "one", resume=True, seed=4)
    assert RunFolder(tmp_path / "one").read_config()["training"]["steps"] == 1


def test_the_rate_is_annealed_to_zero():
    """Warm-up times 1 − k/steps at step k = 0, 1, …, the published code's rule; constant without `anneal`."""
    rates = [step.lr for step in sf.train(*digits_objective(), steps=8, anneal=True, **OPTIONS)]
    assert rates == pytest.approx([1e-3 * min(1, (k + 1) / 3) * (1 - k / 8) for k in range(8)])
    assert [step.lr for step in sf.train(*digits_objective(), steps=5, **OPTIONS)][2:] == [1e-3] * 3


class Keep(torch.nn.Module):
    """A network that keeps what it was shown."""

    def __init__(self):
        super().__init__()
        self.weight, self.seen = torch.nn.Parameter(torch.zeros(())), []

    def forward(self, x, c, y=None):
        self.seen.append(x.detach())
        return self.weight * x


def shown(batch, **options):
    """What a network is shown in two steps: noise-free examples, nearly, since the first level of this
    process is clean.
    """
    model = sf.Denoiser(Keep(), sf.process.from_sigmas([1e-6]), data=sf.data.digits().spec)
    options |= {"steps": 2, "batch_size": batch, "precision": "fp32", "device": "cpu"}
    list(sf.train(sf.objectives.Simple(model), sf.data.digits(), **options))
    return torch.stack(model.net.seen)  # type: ignore[attr-defined]


@pytest.mark.parametrize("flip", [False, True])
def test_shifted_examples_are_moved_copies_each_way_equally_often(flip):
    """Every example shown is the one shown without `shift`, flipped by the same coin, and moved by −1, 0 or 1
    pixels each way.
    """
    plain, moved = (shown(900, flip=flip, shift=far).flatten(0, 1) for far in (0, 1))
    ways = [(down, across) for down in (-1, 0, 1) for across in (-1, 0, 1)]
    copies = torch.stack([sf.data.shift(plain, torch.tensor([way] * len(plain))) for way in ways])
    matches = ((copies - moved).abs() < 1e-3).flatten(2).all(dim=2)
    assert matches.any(dim=0).all()
    counts = matches.double().sum(dim=1)
    # 200 of 1,800 are expected each way, with a standard deviation of 13.3; a few look the same moved in two
    # ways.
    alike = float(counts.sum()) - len(plain)
    assert (counts > 200 - 4 * 13.3).all()
    assert (counts < 200 + 4 * 13.3 + alike).all()
    assert alike < 50


def test_half_of_the_examples_are_flipped():
    plain, flipped = (shown(900, flip=flip).flatten(0, 1) for flip in (False, True))
    same = (plain - flipped).abs().flatten(1).amax(dim=1) < 1e-3
    mirrored = (plain.flip(3) - flipped).abs().flatten(1).amax(dim=1) < 1e-3
    assert (same | mirrored).all()
    # 900 of 1,800 are expected, with a standard deviation of 21; a few are their own mirror image.
    assert abs(int(same.sum()) - 900) < 4 * 21 + int((same & mirrored).sum())


def test_what_lies_in_a_run_beside_its_own_files_does_not_disturb_it(tmp_path):
    run = tmp_path / "r"
    list(sf.train(*digits_objective(), steps=3, run=run, log_every=1, **OPTIONS))
    (run / "checkpoints" / "step-00000003" / "._ema.safetensors").write_bytes(b"hello")
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b"\xff\xfe\x00 cut off by a power failure")
    trainer = sf.train(*digits_objective(), steps=4, run=run, log_every=1, resume=True, **OPTIONS)
    assert trainer.step == 3
    list(trainer)
    assert [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()] == [
        1,
        2,
        3,
        4,
    ]
    with pytest.raises(sf.InputError, match=r"has done 4 steps, and steps = 2 is the total"):
        sf.train(*digits_objective(), steps=2, run=run, resume=True, **OPTIONS)
    assert RunFolder(run).read_config()["training"]["steps"] == 4


def test_others_may_read_a_run(tmp_path):
    mask = os.umask(0o022)
    try:
        list(sf.train(*digits_objective(), steps=1, run=tmp_path / "r", **OPTIONS))
    finally:
        os.umask(mask)
    files = [path for path in (tmp_path / "r").rglob("*") if path.is_file() and path.name != ".lock"]
    assert {path.name: oct(path.stat().st_mode & 0o777) for path in files} == {
        path.name: "0o644" for path in files
    }


def test_a_tracker_that_is_not_installed(tmp_path):
    with pytest.raises(sf.InputError, match=r"the tracker (dvclive|comet_ml|aim) is not installed"):
        sf.train(
            *digits_objective(),
            steps=1,
            run=tmp_path / "r",
            trackers=["aim", "dvclive", "comet_ml"],
            **OPTIONS,
        )
