"""Labels dropped in training: which, how many, the same however the batch is cut, and what the run says of
it.
"""

from typing import Any

import pytest
import torch

import scorefield as sf
from scorefield.runs.build import build_model, read_recipe, with_overrides
from scorefield.training import RunFolder

BATCH, CLASSES = 64, 3
PROCESS = sf.process.from_betas(sf.process.cosine_betas(100))
OPTIONS: dict[str, Any] = {"batch_size": BATCH, "lr": 1e-3, "device": "cpu", "precision": "fp32"}


def examples(n=512):
    """Points whose first value tells their label."""
    labels = torch.arange(n) % CLASSES
    x = torch.randn(n, 2, generator=torch.Generator().manual_seed(0))
    return torch.stack([labels.float(), x[:, 1]], dim=1), labels


class Watched(sf.objectives.Simple):
    """L_simple that keeps what it was given and the times that it drew."""

    def forward(self, x0, y, noise):  # type: ignore[override]
        loss = super().forward(x0, y, noise)
        self.seen.append((x0, y, loss.t))
        return loss


def objective(null_label=True, num_classes=CLASSES):
    torch.manual_seed(0)
    net = sf.nets.MLP(2, hidden=16, layers=1, num_classes=num_classes, null_label=null_label)
    watched = Watched(sf.Denoiser(net, PROCESS, "v"))
    watched.seen = []  # type: ignore[assignment]
    return watched


def seen(trainer):
    """(x_0, labels, times) of all steps, (steps, batch, *) each."""
    list(trainer)
    return [torch.cat(part).unflatten(0, (-1, BATCH)) for part in zip(*trainer.objective.seen, strict=True)]


def test_the_share_that_is_dropped():
    trainer = sf.train(objective(), examples(), steps=40, label_dropout=0.2, **OPTIONS)
    x0, y, _ = (part.flatten(0, 1) for part in seen(trainer))
    dropped = y == CLASSES
    n, p = len(y), 0.2
    assert abs(dropped.float().mean() - p) < 4 * (p * (1 - p) / n) ** 0.5
    assert torch.equal(y[~dropped].float(), x0[~dropped, 0])  # the others kept their own
    for label in range(CLASSES):  # whatever the label
        assert abs(dropped[x0[:, 0] == label].float().mean() - p) < 4 * (p * (1 - p) / (n / CLASSES)) ** 0.5


def test_the_same_labels_are_dropped_however_the_batch_is_cut():
    whole = seen(sf.train(objective(), examples(), steps=4, label_dropout=0.5, **OPTIONS))
    parts = seen(sf.train(objective(), examples(), steps=4, label_dropout=0.5, accumulation=4, **OPTIONS))
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))
    assert not torch.equal(whole[1][0] == CLASSES, whole[1][1] == CLASSES)


def test_without_dropping_no_draw_is_made_for_it():
    """The times are the first draw of a step, ⌊u T⌋ + 1, so that recipes without dropping are what they were."""
    _, y, t = seen(sf.train(objective(), examples(), steps=3, **OPTIONS))
    assert y.max() == CLASSES - 1
    for step in range(3):
        u = sf.noise.NoiseSource(0, range(BATCH), step).uniform((BATCH, 1))[:, 0].double()
        assert torch.equal(t[step], (u * PROCESS.T).long() + 1)


def test_resumed_equals_uninterrupted(tmp_path):
    options: dict[str, Any] = {**OPTIONS, "label_dropout": 0.3}
    whole = sf.train(objective(), examples(), steps=6, **options)
    losses = [step.loss for step in whole]
    first = sf.train(objective(), examples(), steps=3, run=tmp_path / "r", **options)
    parts = [step.loss for step in first]
    second = sf.train(objective(), examples(), steps=6, run=tmp_path / "r", resume=True, **options)
    assert parts + [step.loss for step in second] == losses


@pytest.mark.parametrize(
    ("make", "data", "message"),
    [
        (lambda: objective(null_label=False), examples(), "null_label=True"),
        (
            lambda: objective(null_label=False, num_classes=0),
            examples(),
            "this model takes none.*model.conditional=true",
        ),
        (objective, examples()[0], "tensor has none.*a folder with a subfolder for each"),
    ],
)
def test_refused_without_a_row_or_labels(make, data, message):
    with pytest.raises(sf.InputError, match=message):
        sf.train(make(), data, steps=1, label_dropout=0.1, **OPTIONS)


def test_a_recipe_gets_the_row_and_its_run_says_so(tmp_path):
    spec = sf.DataSpec((1, 8, 8), classes=tuple("abc"))
    plain = read_recipe("digits")
    assert build_model(plain, spec).null_label is None
    recipe = with_overrides(
        plain, ["training.label_dropout=0.1", "net.channels=32", "net.blocks=1", "net.channel_mult=[1,1]"]
    )
    model = build_model(recipe, spec)
    assert (model.num_classes, model.null_label) == (3, 3)
    data = torch.zeros(40, 1, 8, 8, dtype=torch.uint8), torch.arange(40) % 3
    run = tmp_path / "run"
    list(
        sf.train(
            sf.objectives.Simple(model),  # type: ignore[arg-type]
            data,
            run=run,
            steps=1,
            batch_size=8,
            label_dropout=0.1,
            device="cpu",  # type: ignore[arg-type]
        )
    )
    config = RunFolder(run).read_config()
    assert config["net"]["null_label"]
    assert config["training"]["label_dropout"] == 0.1
    loaded = sf.load(run)
    guided = sf.guidance.ClassifierFree(loaded, [0, 2], 3.0)  # type: ignore[arg-type]
    assert sf.sample(guided, sf.samplers.DDIM(), [1000, 500, 0], x_T=torch.randn(2, 1, 8, 8)).isfinite().all()
